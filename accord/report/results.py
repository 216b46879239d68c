"""What an evaluate stage left behind: results.json, answers.jsonl and curves.json as small records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accord.report.values import JsonValue, Measure, Table, measure, number, read_json, read_lines, table, tables, text

RATINGS = "ratings"  # the suite that people's ratings stand under: `ratings/helpfulness`


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
    scores: dict[str, float]
    parts: dict[str, float]  # of gold, or of the first score that has any
    constraints: tuple[str, ...]  # what the prompt asks of the form, in words
    why: str
    tokens: float | None = None

    @property
    def reward(self) -> float | None:
        """What the judge's reward model thinks of it."""
        return self.scores.get("reward")

    @property
    def gold(self) -> float | None:
        """What is true of it."""
        return self.scores.get("gold")


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
class Point:
    """A policy some way from where it started: after so many steps, or as the best of n samples."""

    at: float | None
    kl: float
    proxy: Measure | None
    gold: Measure | None


@dataclass(frozen=True)
class Series:
    """Points of growing optimisation against one proxy."""

    name: str
    kind: str  # "rl" or "best_of_n"
    points: tuple[Point, ...]


def read_comparison(folder: Path) -> Comparison | None:
    """Read results and answers; None where there are neither."""
    results = read_json(folder / "results.json")
    answers = tuple(_answer(row) for row in read_lines(folder / "answers.jsonl"))
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
    return Comparison(text(results.get("baseline")), tuple(models), tuple(trials.values()), answers)


def read_series(folder: Path) -> tuple[Series, ...]:
    """Read the curves of over-optimisation, each in the order of its KL."""
    found: list[Series] = []
    for fields in tables(read_json(folder / "curves.json").get("series")):
        points = tuple(sorted(_points(fields.get("points")), key=lambda point: point.kl))
        if points:
            found.append(Series(text(fields.get("name")), text(fields.get("kind")), points))
    return tuple(found)


def ranked(compared: Comparison) -> list[Trial]:
    """Order the trials by how much they say: those with gold first, then those with a reward, sampled before greedy.

    People's ratings, which stand for themselves, come last.
    """

    def rank(trial: Trial) -> tuple[bool, ...]:
        return (
            trial.suite == RATINGS,
            "gold" not in trial.metrics,
            "reward" not in trial.metrics,
            trial.sampling != "sampled",
        )

    return sorted(compared.trials, key=rank)


def main_trial(compared: Comparison) -> Trial:
    """The trial that stands for the comparison."""
    return next(iter(ranked(compared)), Trial("", "", {}))


def main_sampling(compared: Comparison) -> str:
    """The sampling that stands for the answers: the first that is not greedy."""
    names = list(dict.fromkeys(answer.sampling for answer in compared.answers))
    return next((name for name in names if name != "greedy"), names[0] if names else "")


def _points(value: JsonValue) -> Iterator[Point]:
    for fields in tables(value):
        kl = number(fields.get("kl"))
        if kl is not None:
            at = number(fields.get("step", fields.get("n")))
            # The exact KL of a policy to itself may come out a rounding error below 0.
            yield Point(at, max(kl, 0.0), measure(fields.get("proxy")), measure(fields.get("gold")))


def _answer(row: Table) -> Answer:
    parts = table(row.get("parts"))
    first = table(parts.get("gold")) or next((table(found) for found in parts.values() if table(found)), {})
    return Answer(
        model=text(row.get("model")),
        prompt=_prompt(row.get("prompt")),
        response=text(row.get("response")),
        finish=text(row.get("finish")),
        sampling=_sampling(table(row.get("sampling"))),
        suite=text(row.get("suite")),
        scores=_finite(table(row.get("scores"))),
        parts=_finite(first),
        constraints=tuple(_constraint(found) for found in tables(row.get("constraints"))),
        why=text(row.get("why")),
        tokens=number(row.get("tokens")),
    )


def _finite(values: Table) -> dict[str, float]:
    return {name: found for name, value in values.items() if (found := number(value)) is not None}


def _constraint(fields: Table) -> str:
    """Put a constraint into words: `{"kind": "bullets", "n": 3}` -> `bullets: 3`."""
    rest = [text(value) for key, value in fields.items() if key != "kind" and value is not None]
    kind = text(fields.get("kind")).replace("_", " ")
    return f"{kind}: {', '.join(rest)}" if rest else kind


def _prompt(value: JsonValue) -> tuple[Message, ...]:
    if not isinstance(value, list):
        return (Message("", text(value)),)
    turns = [table(turn) for turn in value]
    return tuple(Message(text(t.get("role")), text(t.get("content"))) for t in turns)


def _sampling(settings: Table) -> str:
    if number(settings.get("temperature")) == 0:
        return "greedy"
    return ", ".join(f"{key} {text(value)}" for key, value in settings.items())
