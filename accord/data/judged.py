"""Judgements of answers, pairs, rankings and ratings, as rows for a reward model; and what they say compared two by two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from transformers import PreTrainedTokenizerBase

from accord.data import prepare
from accord.data.loaded import Loaded
from accord.data.prepare import Limits, compared
from accord.data.records import Pair, Ranking, Rating, Record, as_pair, as_ranking, as_ratings
from accord.data.rows import Rows
from accord.errors import DataError
from accord.functions import is_reference

Judged: TypeAlias = Pair | Ranking | Rating
Form: TypeAlias = Literal["pairs", "rankings", "ratings"]


def form_of(objective: str, records: Sequence[Record], *, split: bool) -> Form:
    """The rows that an objective learns from. A function of the user's gets the records as they are; `split` makes pairs
    of rankings."""
    if objective == "regression" or (is_reference(objective) and any(isinstance(r, Rating) for r in records)):
        return "ratings"
    whole = objective in {"plackett_luce", "best_of_k"}
    return "rankings" if whole or (not split and any(isinstance(r, Ranking) for r in records)) else "pairs"


def check(record: Record, objective: str, where: str, *, margin: bool) -> None:
    """DataError where an objective cannot learn from a record."""
    if objective == "regression":
        as_ratings(record, where)
    elif objective in {"plackett_luce", "best_of_k"}:
        as_ranking(record, where)
    elif not isinstance(record, Ranking) and not (is_reference(objective) and isinstance(record, Rating)):
        as_pair(record, where)
    if margin and (not isinstance(record, Pair) or record.margin is None):
        said = "params.margin asks for a margin, and there is a " + type(record).__name__.lower() + " without one"
        raise DataError(where, said, "give every pair a margin, or leave params.margin out")


def rows(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str, *, form: Form, ties: bool
) -> tuple[Rows, Sequence[Judged]]:
    """Groups of rows in the form that an objective reads, and the records that were kept.

    `ties` lets tied answers of a ranking be compared.
    """
    if form == "ratings":
        return prepare.ratings(loaded, tokenizer, limits, where)
    if form == "rankings":
        return prepare.rankings(loaded, tokenizer, limits, where, ties=ties)
    return prepare.pairs(loaded, tokenizer, limits, where, every="with ties" if ties else "without ties")


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, of which one was judged better: places among the rows of all records."""

    better: int
    worse: int
    record: Judged  # that says so


def comparisons(records: Sequence[Judged]) -> list[Comparison]:
    """Every comparison that records hold: pairs, the answers of each ranking, rated answers to the same prompt."""
    found: list[Comparison] = []
    rated: dict[str, list[tuple[int, Rating]]] = {}
    at = 0
    for record in records:
        if isinstance(record, Rating):
            rated.setdefault(json.dumps(record.prompt), []).append((at, record))
            at += 1
        else:
            places = [(0, 1)] if isinstance(record, Pair) else compared(record.ranks)
            found += [Comparison(at + better, at + worse, record) for better, worse in places]
            at += 2 if isinstance(record, Pair) else len(record.responses)
    for same in rated.values():
        found += [Comparison(i, j, first) for i, first in same for j, second in same if first.label > second.label]
    return found
