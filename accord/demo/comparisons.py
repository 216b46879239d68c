"""The shipped comparisons: answers sampled from a fine-tuned model, ranked by simulated annotators.

recipes/demo_comparisons.py made them. Training groups have one annotator each; held-out ones are ranked by two, so that
it can be told how often people agree.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from accord.data.records import Pair, Ranking

FOLDER = Path(__file__).with_name("data")


def rankings() -> Iterator[Ranking]:
    """Rankings of four answers to a request of the training set."""
    yield from read(FOLDER / "rankings.jsonl.gz")


def held() -> Iterator[Ranking]:
    """Rankings of answers to requests of tasks that nothing is trained on, each by two annotators."""
    yield from read(FOLDER / "rankings-held.jsonl.gz")


def pairs() -> Iterator[Pair]:
    """The comparisons of `rankings` as pairs, two of each ranking, which share no answer."""
    for ranking in rankings():
        for i, j in ((0, 1), (2, 3)):
            if ranking.ranks[i] != ranking.ranks[j]:
                better, worse = (i, j) if ranking.ranks[i] < ranking.ranks[j] else (j, i)
                chosen, rejected = ranking.responses[better], ranking.responses[worse]
                yield Pair(prompt=ranking.prompt, chosen=chosen, rejected=rejected, source="people", meta=ranking.meta)


def read(path: Path) -> Iterator[Ranking]:
    """Rankings from a compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield Ranking(**json.loads(line))
