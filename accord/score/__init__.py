"""Judgements of rollouts: one type for rewards in training, scorers in evaluation and checks in serving."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from accord import processes
from accord.errors import DataError
from accord.functions import is_reference, load_function
from accord.recipe import Rewards, RewardTerm
from accord.sampler import Rollout


@dataclass(frozen=True)
class Score:
    """What was thought of a rollout. `value` NaN means not scored: left out of means and updates, and counted."""

    value: float
    parts: dict[str, float] = field(default_factory=dict)
    why: str = ""


UNSURE = ("spread", "outside")  # parts of a reward model's score

Scorer: TypeAlias = Callable[[Sequence[Rollout]], list[Score]]


def from_function(reference: str, where: str) -> Scorer:
    """A scorer from a function of the user's: of one `rollout`, or of a whole group with a parameter named `rollouts`."""
    function = load_function(reference, where)
    whole = "rollouts" in inspect.signature(function).parameters

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        if not whole:
            return [_score(function(rollout), reference) for rollout in rollouts]
        found: dict[int, Score] = {}
        groups: dict[int, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            groups.setdefault(rollout.group, []).append(i)
        for members in groups.values():
            judged = cast(Sequence[object], function([rollouts[i] for i in members]))
            found |= {i: _score(value, reference) for i, value in zip(members, judged, strict=True)}
        return [found[i] for i in range(len(rollouts))]

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
