"""Detectors at work while a stage trains: what they say goes to the terminal and into stage.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from accord import processes
from accord.console import say
from accord.pitfalls import Watch
from accord.run import StageFolder, read_rows

LOOKS = 40  # over a fit, at most: each reads all that was logged


def watch(folder: StageFolder, settings: Mapping[str, JsonValue], step: int) -> Watch:
    """Detectors on what a stage has logged up to `step`, with what they have told by then."""
    before = findings(folder)
    kept = [finding for finding in before if isinstance(finding, dict) and cast(int, finding["told"]) <= step]
    if kept != before:  # told after the saved state: those steps are done again
        folder.note(findings=kept)
    rows = cast("list[dict[str, float | None]]", read_rows(folder.path / "metrics.jsonl"))
    return Watch(str(settings["kind"]), settings, [*rows], {str(finding["name"]) for finding in kept})


def look(folder: StageFolder, watching: Watch, label: str, *, step: int, total: int) -> None:
    """Say what detectors find that was not said before, and keep it in stage.json with the step at which it was `told`."""
    result = cast("dict[str, JsonValue]", folder.record.get("result") or {})
    if new := processes.once(lambda: watching.look(step / total, result)):
        watching.told |= {finding.name for finding in new}
        for finding in new:
            say(f"{label:<10} {finding.line}")
        folder.note(findings=[*findings(folder), *({**finding.to_json(), "told": step} for finding in new)])


def findings(folder: StageFolder) -> list[JsonValue]:
    """What detectors have found while a fit trained, as stage.json keeps it."""
    return cast("list[JsonValue]", folder.record.get("findings", []))
