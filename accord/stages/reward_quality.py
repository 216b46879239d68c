"""How well reward models tell held-out judgements: from the rows of scores.jsonl, and from labels that were given twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias, cast

import numpy as np
from pydantic import JsonValue

from accord.data.judged import Judged, comparisons
from accord.data.records import Pair, Rating, bucket
from accord.estimate import Estimate, mean

Row: TypeAlias = dict[str, JsonValue]  # of scores.jsonl
SIDES = ("chosen", "rejected", "reward")


def quality(rows: Sequence[Row], *, calibrated: bool) -> dict[str, object]:
    """What the rewards of held-out answers show, as stage.json holds it; what there is nothing to measure by is absent.

    `calibrated` is whether differences of rewards are log-odds.
    """
    found: dict[str, object] = {}
    if whole := accuracy(rows):
        found |= {"accuracy": to_json(whole)} | by_source(rows) | by_confidence(rows)
        found |= calibration(rows) if calibrated else {}
    if error := mse(rows):
        found["mse"] = to_json(error)
    return found


def member(rows: Sequence[Row], *, calibrated: bool) -> dict[str, object]:
    """The same of one member of an ensemble, whose accuracy stands in front: `{value, stderr, n, sources, ...}`."""
    found = quality(rows, calibrated=calibrated)
    return {**cast("dict[str, object]", found.pop("accuracy", {})), **found}


def average(members: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of an ensemble: of each row the mean reward of its members."""
    return [
        {**rows[0], **{side: sum(number(row, side) for row in rows) / len(rows) for side in SIDES if side in rows[0]}}
        for rows in zip(*members, strict=True)
    ]


def accuracy(rows: Sequence[Row]) -> Estimate | None:
    """The share of comparisons whose chosen answer has the higher reward; a tie counts half."""
    return mean(hits(rows), [str(row["cluster"]) for row in rows if "chosen" in row])


def hits(rows: Sequence[Row]) -> list[float]:
    """Whether each comparison is told right: 1, 0, or 1/2 for a tie."""
    margins = [margin(row) for row in rows if "chosen" in row]
    return [0.5 if m == 0 else float(m > 0) for m in margins]


def mse(rows: Sequence[Row]) -> Estimate | None:
    """The mean squared distance of rewards from ratings."""
    rated = [row for row in rows if "label" in row]
    errors = [(number(row, "reward") - number(row, "label")) ** 2 for row in rated]
    return mean(errors, [str(row["cluster"]) for row in rated])


def by_source(rows: Sequence[Row]) -> dict[str, object]:
    """`sources`: the accuracy on the comparisons of each source, where there are several."""
    names = sorted({str(row["source"]) for row in rows if "source" in row})
    found = {name: accuracy([row for row in rows if row.get("source") == name]) for name in names}
    return {"sources": {name: to_json(each) for name, each in found.items() if each}} if len(names) > 1 else {}


def by_confidence(rows: Sequence[Row]) -> dict[str, object]:
    """`confidence`: the accuracy by how sure the labels are, from `low` to `high` of each bin.

    Where labels are soft, |prob - 1/2| in five steps; else, where every comparison has a margin, quarters of the margins.
    """
    if any(row.get("prob", 1.0) not in {0.0, 1.0} for row in rows):
        sure, edges, of = [abs(number(row, "prob") - 0.5) for row in rows], [0, 0.1, 0.2, 0.3, 0.4, 0.5], "prob"
    elif all("margin" in row for row in rows):
        sure, of = [number(row, "margin") for row in rows], "margin"
        edges = np.unique(np.quantile(sure, [0, 0.25, 0.5, 0.75, 1])).tolist()
    else:
        return {}
    place = np.digitize(np.round(sure, 9), edges[1:-1])  # the last bin holds its upper end too
    bins: list[dict[str, float]] = []
    for low, high, at in zip(edges, edges[1:], range(len(edges)), strict=False):
        if inside := accuracy([row for row, bin_ in zip(rows, place, strict=True) if bin_ == at]):
            bins.append({"low": low, "high": high, **to_json(inside)})
    return {"confidence": {"of": of, "bins": bins}} if bins else {}


def calibration(rows: Sequence[Row]) -> dict[str, object]:
    """`ece`, the expected calibration error, and `reliability`, the points of its curve, over ten bins of equal width.

    A reward model says P(first better) = sigmoid(r_first - r_second). Its confidence is that of the answer it prefers,
    in [1/2, 1], which is right with the label's probability: ECE = sum over bins of n_bin / n |accuracy - confidence|,
    means over the bin each (Guo et al. 2017, eq. 3, https://arxiv.org/abs/1706.04599). Counted is the answer preferred
    and not the one labelled better, which would be right in every bin. A point's `value` is its accuracy.
    """
    pairs = [row for row in rows if "chosen" in row]
    apart = np.array([margin(row) for row in pairs])
    prob = np.array([number(row, "prob") if "prob" in row else 1.0 for row in pairs])
    confidence = 1 / (1 + np.exp(-np.abs(apart)))
    right = np.where(apart == 0, 0.5, np.where(apart > 0, prob, 1 - prob))
    bins = np.minimum((20 * (confidence - 0.5)).astype(int), 9)
    points: list[dict[str, float]] = []
    for at in np.unique(bins):
        inside = np.flatnonzero(bins == at)
        share = cast(Estimate, mean(right[inside].tolist(), [str(pairs[i]["cluster"]) for i in inside]))
        points.append({"confidence": float(confidence[inside].mean()), **to_json(share)})
    gap = sum(point["n"] * abs(point["value"] - point["confidence"]) for point in points) / len(pairs)
    return {"ece": {"value": gap, "n": len(pairs)}, "reliability": points}


def margin(row: Row) -> float:
    """By how much the chosen answer of a comparison has the higher reward."""
    return number(row, "chosen") - number(row, "rejected")


def to_json(found: Estimate) -> dict[str, float]:
    """`{value, stderr, n}`, without a standard error where a single prompt gives none."""
    return {name: value for name, value in found.to_json().items() if math.isfinite(value)}


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


def ceiling(agreed: Estimate) -> Estimate:
    """The accuracy against one label that a judge without error could reach, labels erring alike and independently."""
    root = max(2 * agreed.value - 1, 0) ** 0.5
    return Estimate((1 + root) / 2, agreed.stderr / (2 * root) if root else math.inf, agreed.n)  # delta method


def suspicion(found: Estimate, most: Estimate | None) -> str:
    """What to say of an accuracy that is too good to be true; empty where it may be.

    More than two standard errors above what the agreement of labels allows, or above 0.98 on 200 comparisons or more.
    """
    leak = "held-out prompts or answers may be in the training data: accord check --data finds leaks"
    if most and found.value - most.value > 2 * math.hypot(found.stderr, most.stderr):
        return f"Suspect: accuracy {found} is above the {most} that the agreement of labels allows; {leak}"
    if found.value > 0.98 and found.n >= 200:
        return f"Suspect: accuracy {found} on {found.n} comparisons is too good to be true of most judgements; {leak}"
    return ""
