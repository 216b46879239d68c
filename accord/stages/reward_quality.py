"""How well reward models tell held-out judgements: from the rows of scores.jsonl, and from labels that were given twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias, cast

from pydantic import JsonValue

from accord.data.judged import Judged, comparisons
from accord.data.records import Pair, Rating, bucket
from accord.estimate import Estimate, mean

Row: TypeAlias = dict[str, JsonValue]  # of scores.jsonl
SIDES = ("chosen", "rejected", "reward")


def average(members: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of an ensemble: of each row the mean reward of its members."""
    return [
        {**rows[0], **{side: sum(number(row, side) for row in rows) / len(rows) for side in SIDES if side in rows[0]}}
        for rows in zip(*members, strict=True)
    ]


def accuracy(rows: Sequence[Row]) -> Estimate | None:
    """The share of comparisons whose chosen answer has the higher reward; a tie counts half."""
    pairs = [row for row in rows if "chosen" in row]
    margins = [margin(row) for row in pairs]
    return mean([0.5 if m == 0 else float(m > 0) for m in margins], [str(row["cluster"]) for row in pairs])


def mse(rows: Sequence[Row]) -> Estimate | None:
    """The mean squared distance of rewards from ratings."""
    rated = [row for row in rows if "label" in row]
    errors = [(number(row, "reward") - number(row, "label")) ** 2 for row in rated]
    return mean(errors, [str(row["cluster"]) for row in rated])


def margin(row: Row) -> float:
    """By how much the chosen answer of a comparison has the higher reward."""
    return number(row, "chosen") - number(row, "rejected")


def number(row: Row, name: str) -> float:
    """A number of a row."""
    return cast(float, row[name])


def agreement(records: Sequence[Judged]) -> Estimate | None:
    """How often two labels of the same comparison agree; None where nothing was labelled twice."""
    labels: dict[tuple[int, str, str], list[bool]] = {}
    for record in records:
        if isinstance(record, Rating):
            continue
        texts = [record.chosen, record.rejected] if isinstance(record, Pair) else record.responses
        said = {(texts[c.better], texts[c.worse]) for c in comparisons([record])}  # a text may stand there twice
        for better, worse in sorted(said):
            first, second = sorted((better, worse))
            labels.setdefault((bucket(record, 2**60), first, second), []).append(better == first)
    both = [
        (key[0], float(a == b)) for key, said in labels.items() for a, b in combinations(said, 2) if key[1] != key[2]
    ]
    return mean([same for _, same in both], [cluster for cluster, _ in both]) if both else None


def ceiling(agreed: Estimate) -> float:
    """The accuracy against one label that a judge without error could reach, labels erring alike and independently."""
    return (1 + max(2 * agreed.value - 1, 0) ** 0.5) / 2
