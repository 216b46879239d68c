"""The embedded world: the truth (`gold`, with its parts) beside the reward, so that the two can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from accord.data.records import Record
from accord.demo.gold import gold
from accord.sampler import Rollout
from accord.score import Score, Scorer
from accord.suites import Suite

# Each is measured where it can be: the first four on tasks, `refusal` on requests to turn down.
PARTS = ("compliance", "facts", "concise", "over_refusal", "refusal")


def demo(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """Requests of the embedded world, by gold and by the stage's `rewards`."""
    return Suite(
        "demo", records, {**({"reward": reward} if reward else {}), "gold": judge, **{p: part(p) for p in PARTS}}
    )


def judge(rollouts: Sequence[Rollout]) -> list[Score]:
    """Gold of each answer, with its parts."""
    return [gold(rollout) for rollout in rollouts]


def part(name: str) -> Scorer:
    """One part of gold; NaN, not scored, for answers that it does not apply to."""
    return lambda rollouts: [Score(gold(rollout).parts.get(name, nan)) for rollout in rollouts]
