"""The shipped rankings with other labels: the judge's own, and those with a quarter of the rankings turned around."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from accord.data.records import Ranking, bucket
from accord.demo import SOURCES
from accord.demo.gold import gold
from accord.sampler import Rollout


def clean() -> Iterator[Ranking]:
    """Rankings by the exact judge."""
    for ranking in cast(Iterator[Ranking], SOURCES["demo/rankings"]()):
        values = [round(gold(answered(ranking, text)).value, 6) for text in ranking.responses]
        yield replace(ranking, ranks=[1 + sum(other > value for other in values) for value in values])


def flipped() -> Iterator[Ranking]:
    """The same, a quarter of them (by a hash of the prompt) in reverse: a quarter of the comparisons are wrong."""
    for ranking in clean():
        worst = max(ranking.ranks)
        wrong = bucket(ranking, 4001) % 4 == 0
        yield replace(ranking, ranks=[1 + worst - rank for rank in ranking.ranks]) if wrong else ranking


def answered(ranking: Ranking, text: str) -> Rollout:
    """An answer of a ranking as the judge reads it."""
    return Rollout(
        prompt=ranking.prompt, text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop", meta=ranking.meta
    )
