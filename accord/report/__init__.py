"""Writes a run folder's report: one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import median

import jinja2
from markupsafe import Markup

from accord.report.comparison import BETTER, Board, Card, boards, cards, show, verdict
from accord.report.curves import label
from accord.report.figures import draw
from accord.report.read import JsonValue, Measure, Run, Stage, Table, measure, number, read_run
from accord.report.svg import Drawing, tone

__all__ = ["write_report"]

LAST = ("eval/loss", "eval/perplexity", "eval/accuracy", "eval/margin")
TITLES = {
    "pretrain": "Pretraining",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "policy": "Policy optimisation",
    "preference": "Preference optimisation",
    "evaluate": "Comparison",
}
RESULTS = {"folds": "cross-validated accuracy", "step": "chosen step", "kl_budget": "KL budget"}


@dataclass(frozen=True)
class Tile:
    """One number that sums a stage up."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """A stage as the page shows it."""

    stage: Stage
    anchor: str
    title: str
    uses: tuple[str, ...]
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    boards: tuple[Board, ...]
    cards: tuple[Card, ...]
    colours: dict[str, str]


def write_report(folder: Path) -> Path:
    """Write `<folder>/report.html` and return its path; an old report stays until the new is whole."""
    page = _render(read_run(folder)).encode("utf-8", "replace")
    target, part = folder / "report.html", folder / f".report.html.{os.getpid()}"
    try:
        part.write_bytes(page)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _render(run: Run) -> str:
    sections = [_section(stage, at) for at, stage in enumerate(run.stages, start=1)]
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters.update(brief=_brief, duration=_duration, flat=_flat, metric=_metric_title, svg=Markup)
    page = env.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    compared = [(s, s.stage.comparison) for s in sections if s.stage.comparison and s.stage.comparison.models]
    last, comparison = compared[-1] if compared else (None, None)
    said = verdict(comparison) if comparison else None
    return page.render(run=run, sections=sections, verdict=said, judged=last)


def _section(stage: Stage, at: int) -> Section:
    compared = stage.comparison
    return Section(
        stage=stage,
        anchor=f"stage-{at}",
        title=TITLES.get(stage.kind, stage.kind),
        uses=tuple(dict.fromkeys(_references(stage.settings))),
        tiles=tuple(_tiles(stage)),
        notes=tuple(text for text in stage.result.values() if isinstance(text, str)),
        drawings=draw(stage, f"s{at}"),
        boards=tuple(boards(compared)) if compared else (),
        cards=tuple(cards(compared)) if compared else (),
        colours={name: tone(at) for at, name in enumerate(compared.models)} if compared else {},
    )


def _references(value: JsonValue) -> Iterator[str]:
    """Find the earlier stages (`@name`) that a stage's settings speak of."""
    if isinstance(value, str) and value.startswith("@"):
        yield value[1:]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _references(key)
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _tiles(stage: Stage) -> Iterator[Tile]:
    for name, value in stage.result.items():
        found = None if isinstance(value, str) else measure(value)
        # The objective's only term is the loss once more.
        repeats = name != "loss" and value == stage.result.get("loss")
        if found and not repeats and not name.endswith("_stderr"):
            error = found.stderr or number(stage.result.get(f"{name}_stderr"))
            detail = f"n = {found.n:,}" if found.n else ""
            words = RESULTS.get(name) or label(f"eval/{name}")
            yield Tile(words, show(name, Measure(found.value, error)), detail)
    # An ensemble's last row is one member's, so a reward stage has no value of its own here.
    for key in LAST if stage.kind in ("pretrain", "sft", "preference") else ():
        values = [row[key] for row in stage.metrics if key in row]
        if values and values[-1] is not None and key.removeprefix("eval/") not in stage.result:
            yield Tile(label(key), show(key, Measure(values[-1])), "at the last evaluation")
    speeds = [row.get("tokens_per_second") for row in stage.metrics]
    if measured := [speed for speed in speeds if speed is not None]:
        yield Tile("tokens per second", f"{median(measured):,.0f}", "median")


def _metric_title(name: str) -> str:
    arrow = {1: " ↑", -1: " ↓"}.get(BETTER.get(name, 0), "")
    return ("KL" if name == "kl" else name.replace("_", " ")) + arrow


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(seconds // 60)
    if seconds < 3600:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _flat(settings: Table, under: str = "") -> list[tuple[str, str]]:
    """Spell nested settings out as dotted keys."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        key, value = f"{under}{_brief(name)}", _brief(value)
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{key}.")
        else:
            rows.append((key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def _brief(value: JsonValue) -> JsonValue:
    """Cut absolute paths that texts begin with: `/a/b/c/d.jsonl:7: is empty` -> `…/c/d.jsonl:7: is empty`."""
    if isinstance(value, list):
        return [_brief(item) for item in value]
    if isinstance(value, dict):
        return {key: _brief(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    path, colon, rest = value.partition(":")
    parts = PurePath(path).parts
    shorter = PurePath(path).is_absolute() and len(parts) > 3 and "\n" not in path
    return f"…/{'/'.join(parts[-2:])}{colon}{rest}" if shorter else value
