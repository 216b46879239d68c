"""Judgements of rollouts: one type for rewards in training, scorers in evaluation and checks in serving."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from accord import processes
from accord.errors import DataError
from accord.functions import is_reference, load_function, running
from accord.recipe import Rewards, RewardTerm
from accord.sampler import Rollout


@dataclass(frozen=True)
class Score:
    """What was thought of a rollout. `value` NaN means not scored: left out of means and updates, and counted.

    `details` is what an evaluation writes into the answer's row beside the scores, each under its own key.
    """

    value: float
    parts: dict[str, float] = field(default_factory=dict)
    why: str = ""
    details: dict[str, object] = field(default_factory=dict)


UNSURE = ("spread", "outside")  # parts of a reward model's score

Scorer: TypeAlias = Callable[[Sequence[Rollout]], list[Score]]


def from_function(reference: str, where: str) -> Scorer:
    """A scorer from a function of the user's: of one `rollout`, or of a whole group with a parameter named `rollouts`."""
    function = load_function(reference, where)
    if "rollouts" not in inspect.signature(function).parameters:
        return careful(lambda rollouts: [function(rollout) for rollout in rollouts], reference)
    judge = careful(function, reference)

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        found: dict[int, Score] = {}
        groups: dict[int, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            groups.setdefault(rollout.group, []).append(i)
        for members in groups.values():
            found |= dict(zip(members, judge([rollouts[i] for i in members]), strict=True))
        return [found[i] for i in range(len(rollouts))]

    return score


def careful(function: Callable[[Sequence[Rollout]], object], reference: str) -> Scorer:
    """A scorer from code of the user's behind `reference`: DataError where it raises, or returns anything but scores."""

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        with running(reference):
            found = function(rollouts)
        values = list(cast(Iterable[object], found)) if isinstance(found, Iterable) else []
        if len(values) != len(rollouts):
            said = f"{len(values)} values" if isinstance(found, Iterable) else type(found).__name__
            fix = "a scorer of several returns a list with a float or a Score for each"
            raise DataError(reference, f"returned {said} for {len(rollouts)} rollouts", fix)
        return [_score(value, reference) for value in values]

    return score


def _once(scorer: Scorer) -> Scorer:
    """A scorer that only one of several processes asks: it may cost something, or answer differently each time."""
    return lambda rollouts: processes.once(lambda: scorer(rollouts))


def _score(value: object, reference: str) -> Score:
    if isinstance(value, Score):
        return value
    if isinstance(value, int | float):
        return Score(float(value))
    raise DataError(reference, f"returned {type(value).__name__}", "a scorer returns a float or a Score")


def combine(rewards: Rewards, open_model: Callable[[str, RewardTerm], Scorer], where: str) -> Scorer:
    """The weighted sum of several rewards; each part is kept beside it under the last word of its name.

    So is the most that any reward model says of how unsure it is: `spread` and `outside`.
    """
    parts: dict[str, tuple[Scorer, float]] = {}
    for name, term in rewards.items():
        scorer = _once(from_function(name, f"{where}.{name}")) if is_reference(name) else open_model(name, term)
        parts[part_name(name)] = (scorer, term.weight)

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        found = {name: scorer(rollouts) for name, (scorer, _) in parts.items()}
        whole: list[Score] = []
        for i in range(len(rollouts)):
            values = {name: scores[i].value for name, scores in found.items()}
            total = sum(parts[name][1] * value for name, value in values.items())
            for name in UNSURE:
                said = [scores[i].parts[name] for scores in found.values() if name in scores[i].parts]
                values |= {name: max(said)} if said else {}
            why = "; ".join(scores[i].why for scores in found.values() if scores[i].why)
            whole.append(Score(total if math.isfinite(total) else math.nan, values, why))
        return whole

    return score


def part_name(name: str) -> str:
    """`@reward` -> `reward`, `my_rewards.py:brevity` -> `brevity`, `runs/x/reward/model` -> `reward`."""
    if ".py:" in name:
        return name.rpartition(":")[2]
    return name.removeprefix("@").rstrip("/").removesuffix("/model").rpartition("/")[2]
