"""Reads a run folder into small records, keeping "not measured" apart from every number."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from accord.errors import DataError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Table: TypeAlias = "dict[str, JsonValue]"
# None in a row means "was measured and was not finite"; a missing key means "was not measured".
Row: TypeAlias = "dict[str, float | None]"


@dataclass(frozen=True)
class Measure:
    """A measured value with its standard error and sample size, where those are known."""

    value: float
    stderr: float | None = None
    n: int | None = None


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
class Message:
    """One turn of a prompt; the role is empty for a plain text prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class Answer:
    """One model's answer to one prompt, as the comparison scored it."""

    model: str
    prompt: tuple[Message, ...]
    response: str
    finish: str
    sampling: str
    suite: str
    reward: float | None
    gold: float | None
    why: str


@dataclass(frozen=True)
class Trial:
    """What was measured on one suite under one way of sampling: metric -> model -> value."""

    suite: str
    sampling: str  # "sampled", or what the key says behind its @
    metrics: dict[str, dict[str, Measure]]


@dataclass(frozen=True)
class Comparison:
    """What an evaluate stage measured, and the answers themselves."""

    baseline: str
    models: tuple[str, ...]
    trials: tuple[Trial, ...]
    answers: tuple[Answer, ...]


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


@dataclass(frozen=True)
class Run:
    """A run folder: the recipe's stages in order and the facts about the run."""

    name: str
    status: str
    seed: str
    started: str
    seconds: float | None
    facts: Table
    stages: tuple[Stage, ...]


def read_run(folder: Path) -> Run:
    """Read a run folder; only its recipe has to be there."""
    path = folder / "recipe.toml"
    try:
        recipe: Table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            str(folder), "holds no run: there is no recipe.toml", "give a run folder, runs/<name>"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read as a run's recipe ({error})") from error
    facts = _read_json(folder / "run.json")
    stages = table(recipe.get("stage"))
    seed = facts.get("seed", recipe.get("seed"))
    status = _text(facts.get("status")) or "not recorded"
    return Run(
        name=_text(recipe.get("name")) or folder.resolve().name,
        status=status,
        seed=_text(seed),
        started=_text(facts.get("started")),
        seconds=number(facts.get("seconds")),
        facts={k: facts[k] for k in ("device", "precision", "threads", "hardware", "versions") if k in facts},
        stages=tuple(_read_stage(folder / n, table(s), status) for n, s in stages.items()),
    )


def number(value: JsonValue) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def table(value: JsonValue) -> Table:
    """Return the value if it is a table, or an empty one."""
    return value if isinstance(value, dict) else {}


def measure(value: JsonValue) -> Measure | None:
    """Read `{"value", "stderr", "n"}` or a bare number; None where nothing was measured."""
    fields = table(value) or {"value": value}
    found = number(fields.get("value"))
    if found is None:
        return None
    return Measure(found, number(fields.get("stderr")), _count(fields.get("n")))


def _read_stage(folder: Path, settings: Table, run: str) -> Stage:
    record = _read_json(folder / "stage.json")
    metrics = tuple(_numbers(row) for row in _read_lines(folder / "metrics.jsonl"))
    comparison = _read_comparison(folder)
    status = _text(record.get("status")) or ("unfinished" if metrics or comparison else "not run")
    # A stage that was stopped has no time to say so; the run has.
    if status == "running" and run in ("failed", "interrupted"):
        status = run
    return Stage(
        name=folder.name,
        kind=_text(record.get("kind")) or _text(settings.get("kind")),
        status=status,
        seconds=number(record.get("seconds")),
        data=tuple(_read_split(k, table(v)) for k, v in table(record.get("data")).items()),
        result=table(record.get("result")),
        settings=settings,
        metrics=metrics,
        scores=_read_scores(folder),
        comparison=comparison,
    )


def _read_split(name: str, fields: Table) -> Split:
    drops = []
    for reason, entry in table(fields.get("dropped")).items():
        count = _count(table(entry).get("count", entry))
        if count:
            drops.append(Drop(reason, count, _text(table(entry).get("example"))))
    return Split(name, _count(fields.get("read")), _count(fields.get("kept")), tuple(drops))


def _read_scores(folder: Path) -> tuple[tuple[Row, ...], ...]:
    paths = [folder / "scores.jsonl", *sorted(folder.glob("scores-member-*.jsonl"))]
    members = [tuple(_numbers(row) for row in _read_lines(path)) for path in paths]
    # A member's rows are the same pairs in the same order; while a stage runs, old ones may lie beside new ones.
    return tuple(rows for rows in members if rows and len(rows) == len(members[0]))


def _read_comparison(folder: Path) -> Comparison | None:
    results = _read_json(folder / "results.json")
    answers = tuple(_answer(row) for row in _read_lines(folder / "answers.jsonl"))
    if not results and not answers:
        return None
    models = table(results.get("models"))
    trials: dict[tuple[str, str], Trial] = {}
    for model, metrics in models.items():
        for key, value in table(metrics).items():
            found = measure(value)
            if found:  # "suite@sampling/metric", or "suite/metric"
                group, _, metric = key.rpartition("/")
                suite, _, way = group.partition("@")
                place = (suite, way or "sampled")
                trials.setdefault(place, Trial(*place, {})).metrics.setdefault(metric, {})[model] = found
    return Comparison(_text(results.get("baseline")), tuple(models), tuple(trials.values()), answers)


def _answer(row: Table) -> Answer:
    return Answer(
        model=_text(row.get("model")),
        prompt=_prompt(row.get("prompt")),
        response=_text(row.get("response")),
        finish=_text(row.get("finish")),
        sampling=_sampling(table(row.get("sampling"))),
        suite=_text(row.get("suite")),
        reward=number(table(row.get("scores")).get("reward")),
        gold=number(table(row.get("scores")).get("gold")),
        why=_text(row.get("why")),
    )


def _prompt(value: JsonValue) -> tuple[Message, ...]:
    if not isinstance(value, list):
        return (Message("", _text(value)),)
    turns = [table(turn) for turn in value]
    return tuple(Message(_text(t.get("role")), _text(t.get("content"))) for t in turns)


def _sampling(settings: Table) -> str:
    if number(settings.get("temperature")) == 0:
        return "greedy"
    return ", ".join(f"{key} {_text(value)}" for key, value in settings.items())


def _numbers(row: Table) -> Row:
    return {k: number(v) for k, v in row.items() if v is None or isinstance(v, int | float)}


def _count(value: JsonValue) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _text(value: JsonValue) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def _read_json(path: Path) -> Table:
    if not path.is_file():
        return {}
    try:
        return table(json.loads(path.read_bytes()))
    except ValueError as error:
        raise DataError(str(path), f"is not valid JSON ({error})") from error


def _read_lines(path: Path) -> list[Table]:
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines()
    rows: list[Table] = []
    for at, line in enumerate(lines, start=1):
        try:
            rows.append(table(json.loads(line)) if line.strip() else {})
        except ValueError as error:
            # A run that was stopped while writing leaves half of its last line.
            if at < len(lines):
                raise DataError(f"{path}:{at}", f"is not valid JSON ({error})") from error
    return [row for row in rows if row]
