"""The user's own prompts."""

from __future__ import annotations

from collections.abc import Sequence

from accord.data.records import Record
from accord.score import Scorer
from accord.suites import Suite


def prompts(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """The stage's `data`, judged by the stage's `rewards`."""
    return Suite("prompts", records, {"reward": reward} if reward else {})
