"""Reads a run folder into small records: the recipe's stages with everything the page shows about them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from accord.errors import DataError
from accord.report.results import Comparison, Series, read_comparison, read_series
from accord.report.values import JsonValue, Row, Table, count, number, numbers, read_json, read_lines, table, text


@dataclass(frozen=True)
class Drop:
    """Rows left out of a data set for one reason, with one of them as the example."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class Split:
    """How many rows of a stage's train or eval data were read and kept."""

    name: str
    read: int | None
    kept: int | None
    drops: tuple[Drop, ...]


@dataclass(frozen=True)
class Stage:
    """Everything the page shows about one stage of the recipe."""

    name: str
    kind: str
    status: str
    seconds: float | None
    data: tuple[Split, ...]
    result: Table
    settings: Table
    metrics: tuple[Row, ...]
    scores: tuple[tuple[Row, ...], ...]  # of the held-out pairs, by each member of the ensemble
    comparison: Comparison | None
    series: tuple[Series, ...]
    findings: JsonValue = None  # of detectors, as stage.json holds them


@dataclass(frozen=True)
class Run:
    """A run folder: the recipe's stages in order and the facts about the run."""

    name: str
    status: str
    seed: str
    started: str
    seconds: float | None
    facts: Table
    recipe: Table
    stages: tuple[Stage, ...]


def read_run(folder: Path) -> Run:
    """Read a run folder, of which only its recipe has to be there, or the folder that an evaluation has left."""
    path = folder / "recipe.toml"
    if not path.exists() and (folder / "results.json").exists():
        return _read_evaluation(folder)
    try:
        recipe: Table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            str(folder), "holds no run: there is no recipe.toml, and no results.json of an evaluation",
            "give a run folder, runs/<name>",
        ) from None  # fmt: skip
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"is no recipe of a run ({error})", "run the recipe again: accord run") from error
    facts = read_json(folder / "run.json")
    stages = table(recipe.get("stage"))
    seed = facts.get("seed", recipe.get("seed"))
    status = text(facts.get("status")) or "not recorded"
    alone = (folder / "stage.json").exists()  # `accord evaluate` leaves its one stage's files in the folder itself
    return Run(
        name=text(recipe.get("name")) or folder.resolve().name,
        status=status,
        seed=text(seed),
        started=text(facts.get("started")),
        seconds=number(facts.get("seconds")),
        facts={k: facts[k] for k in ("device", "precision", "threads", "hardware", "versions") if k in facts},
        recipe=recipe,
        stages=tuple(
            replace(_read_stage(folder if alone else folder / n, table(s), status), name=n) for n, s in stages.items()
        ),
    )


def _read_evaluation(folder: Path) -> Run:
    """An evaluation that belongs to no run, as a run of this one stage."""
    stage = _read_stage(folder, {}, "done")
    alone = replace(
        stage, kind=stage.kind or "evaluate", status="done" if stage.status == "unfinished" else stage.status
    )
    facts = read_json(folder / "run.json")
    name = alone.name or folder.resolve().name
    return Run(name, alone.status, text(facts.get("seed")), "", alone.seconds, {}, {}, (replace(alone, name=name),))


def references(value: JsonValue) -> Iterator[str]:
    """Find the earlier stages (`@name`) that a stage's settings speak of."""
    if isinstance(value, str) and value.startswith("@"):
        yield value[1:]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from references(key)
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def lineage(run: Run, stage: Stage) -> list[Stage]:
    """The stages that a model went through, the first of them first."""
    found = [stage]
    while name := next(references(found[0].settings.get("model")), ""):
        before = next((one for one in run.stages if one.name == name), None)
        if before is None or before in found:
            break
        found.insert(0, before)
    return found


def judged(run: Run) -> Stage | None:
    """The stage that stands for the run's result: the last comparison that has results."""
    return next((s for s in reversed(run.stages) if s.comparison and s.comparison.models), None)


def _read_stage(folder: Path, settings: Table, run: str) -> Stage:
    record = read_json(folder / "stage.json")
    # A stage with several fits puts their logs together at its end.
    logs = (
        [folder / "metrics.jsonl"]
        if (folder / "metrics.jsonl").exists()
        else sorted(folder.glob("state/*/metrics.jsonl"))
    )
    metrics = tuple(numbers(row) for log in logs for row in read_lines(log))
    comparison, series = read_comparison(folder), read_series(folder)
    left = metrics or comparison or series
    status = text(record.get("status")) or ("unfinished" if left else "not run")
    # A stage that was stopped has no time to say so; the run has.
    if status == "running" and run in ("failed", "interrupted"):
        status = run
    return Stage(
        name=folder.name,
        kind=text(record.get("kind")) or text(settings.get("kind")),
        status=status,
        seconds=number(record.get("seconds")),
        data=tuple(_read_split(k, table(v)) for k, v in table(record.get("data")).items()),
        result=table(record.get("result")),
        settings=settings,
        metrics=metrics,
        scores=_read_scores(folder),
        comparison=comparison,
        series=series,
        findings=record.get("findings"),
    )


def _read_split(name: str, fields: Table) -> Split:
    drops = []
    for reason, entry in table(fields.get("dropped")).items():
        found = count(table(entry).get("count", entry))
        if found:
            drops.append(Drop(reason, found, text(table(entry).get("example"))))
    return Split(name, count(fields.get("read")), count(fields.get("kept")), tuple(drops))


def _read_scores(folder: Path) -> tuple[tuple[Row, ...], ...]:
    paths = [folder / "scores.jsonl", *sorted(folder.glob("scores-member-*.jsonl"))]
    members = [tuple(numbers(row) for row in read_lines(path)) for path in paths]
    # A member's rows are the same pairs in the same order; while a stage runs, old ones may lie beside new ones.
    return tuple(rows for rows in members if rows and len(rows) == len(members[0]))
