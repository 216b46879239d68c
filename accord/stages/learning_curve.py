"""What more labels would bring: accuracy on the same held-out comparisons after learning from nested shares of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from accord.estimate import Estimate, mean
from accord.stages.reward_quality import Row, accuracy, hits, to_json


def learning_curve(fits: Sequence[tuple[int, Sequence[Row]]], most: Estimate | None) -> dict[str, object]:
    """`learning_curve` and `more_labels`, as stage.json holds them; nothing where there is nothing to compare.

    Of each fit, fewest labels (pairs, rankings, ratings) first: how many it learned from, and its rewards of the held-out
    answers. `most` is the accuracy that the agreement of labels allows, where it is known.
    """
    labels, reached = [count for count, _ in fits], [accuracy(rows) for _, rows in fits]
    now, pairs = reached[-1], [row for row in fits[0][1] if "chosen" in row]
    if now is None or len(set(labels)) < 2:
        return {}
    gain = gain_per_doubling(labels, [hits(rows) for _, rows in fits], [str(row["cluster"]) for row in pairs])
    points = [{"labels": count, **to_json(found)} for count, found in zip(labels, reached, strict=True) if found]
    curve = {"points": points, "gain": to_json(gain)}
    return {"learning_curve": curve, "more_labels": more_labels(labels, now, gain, most)}


def gain_per_doubling(labels: Sequence[int], right: Sequence[Sequence[float]], clusters: Sequence[str]) -> Estimate:
    """The slope of accuracy over log2 of the labels by least squares, with its standard error.

    `right` tells of each fit which comparisons it has right. The slope is a weighted sum of the fits' accuracies, so that
    of single comparisons has its mean: the error is theirs, clustered, and knows that all fits are judged by the same. How
    much another draw of the training data would change is not in it.
    """
    doublings = np.log2(labels)
    weights = (doublings - doublings.mean()) / ((doublings - doublings.mean()) ** 2).sum()
    return cast(Estimate, mean((weights @ np.array(right)).tolist(), clusters))


def more_labels(labels: Sequence[int], now: Estimate, gain: Estimate, most: Estimate | None) -> str:
    """How many more labels it takes, in one sentence that claims no more than the curve shows."""
    change = f"{100 * gain.value:+.1f} ± {100 * gain.stderr:.1f} points"
    seen = f"{change} for each doubling of the labels from {labels[0]:,} to {labels[-1]:,}"
    if not gain.value > 2 * gain.stderr:
        return f"Accuracy does not clearly grow with labels ({seen}): more may bring little, or too few are held out."
    if most and now.value > most.value - 0.01:
        allowed = f"{100 * most.value:.0f} %"
        return f"Accuracy grew with labels ({seen}), but their own agreement allows no more than {allowed}."
    more = labels[-1] * (2 ** (0.01 / gain.value) - 1)
    unit = 10 ** max(math.floor(math.log10(more)) - 1, 0)  # two digits are more than the curve knows
    takes = f"about {round(more / unit) * unit:,} more labels" if more <= labels[-1] else "more than twice the labels"
    return f"One point of accuracy more takes {takes}, if it goes on to grow as it did ({seen})."
