"""The embedded world: the truth (`gold`) beside the reward, so that the two can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

from accord.data.records import Record
from accord.demo.gold import gold
from accord.sampler import Rollout
from accord.score import Score, Scorer
from accord.suites import Suite


def demo(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """Questions of the embedded world, by gold and by the stage's `rewards`."""
    return Suite("demo", records, {**({"reward": reward} if reward else {}), "gold": judge})


def judge(rollouts: Sequence[Rollout]) -> list[Score]:
    """Gold of each answer."""
    return [gold(rollout) for rollout in rollouts]
