"""What held-out rewards show, recounted: accuracy by source and by confidence, and accuracies too good to be true."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from accord.estimate import Estimate
from accord.stages.reward_quality import Row, average, by_confidence, by_source, ceiling, mse, quality, suspicion


def rows(margins: list[float], **columns: list[Any]) -> list[Row]:
    """Comparisons by their margins, each of a prompt of its own."""
    return [
        {"chosen": 1 + m, "rejected": 1.0, "cluster": i, **{name: values[i] for name, values in columns.items()}}
        for i, m in enumerate(margins)
    ]


def test_accuracy_by_source() -> None:
    made = rows([1, -1, 2, 3, 0, -2], source=["web", "web", "web", "lab", "lab", "lab"])
    found: dict[str, Any] = by_source(made)
    assert found["sources"]["web"]["value"] == pytest.approx(2 / 3)
    assert found["sources"]["lab"]["value"] == pytest.approx(1.5 / 3)
    assert found["sources"]["web"]["stderr"] == pytest.approx(np.std([1, 0, 1], ddof=1) / math.sqrt(3))
    assert by_source(rows([1, 2], source=["web", "web"])) == {}
    assert by_source(rows([1, 2])) == {}  # of rankings


def test_accuracy_by_the_labels_probability() -> None:
    made = rows([1, -1, 2, 3, 1, -2, 4], prob=[0.5, 0.59, 0.6, 0.7, 0.8, 0.95, 1.0])
    found: dict[str, Any] = by_confidence(made)
    assert found["confidence"]["of"] == "prob"
    bins = [(b["low"], b["high"], b["n"], b["value"]) for b in found["confidence"]["bins"]]
    assert bins == [(0, 0.1, 2, 0.5), (0.1, 0.2, 1, 1), (0.2, 0.3, 1, 1), (0.3, 0.4, 1, 1), (0.4, 0.5, 2, 0.5)]


def test_accuracy_by_margin_where_labels_are_hard() -> None:
    made = rows([1, -1, 2, 3, 1, -2, 4, 5], prob=[1.0] * 8, margin=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    found: dict[str, Any] = by_confidence(made)
    assert found["confidence"]["of"] == "margin"
    assert [(b["n"], b["value"]) for b in found["confidence"]["bins"]] == [(2, 0.5), (2, 1), (2, 0.5), (2, 1)]
    assert [b["low"] for b in found["confidence"]["bins"]] == [pytest.approx(x) for x in (0.1, 0.275, 0.45, 0.625)]
    assert by_confidence(rows([1, 2], prob=[1.0, 1.0], margin=[0.5, 0.5])) == {}  # all are as sure
    assert by_confidence(rows([1, 2], prob=[1.0, 1.0])) == {}


def test_an_ensemble_is_the_mean_of_its_members_and_a_rating_is_missed_by_its_distance() -> None:
    first: list[Row] = [{"chosen": 1.0, "rejected": 0.0, "cluster": 1}, {"reward": 2.0, "label": 1.0, "cluster": 1}]
    second: list[Row] = [{"chosen": -2.0, "rejected": 0.5, "cluster": 1}, {"reward": 1.0, "label": 1.0, "cluster": 1}]
    assert average([first, second]) == [
        {"chosen": -0.5, "rejected": 0.25, "cluster": 1}, {"reward": 1.5, "label": 1.0, "cluster": 1},
    ]  # fmt: skip
    found = mse([*average([first, second]), {"reward": 0.0, "label": 2.0, "cluster": 2}])
    assert found is not None
    assert (found.value, found.n) == (pytest.approx((0.25 + 4) / 2), 2)


def test_there_is_no_calibration_of_ratings_and_nothing_of_nothing() -> None:
    assert "ece" in quality(rows([1, 2]), calibrated=True)
    assert set(quality(rows([1, 2]), calibrated=False)) == {"accuracy"}
    assert quality([], calibrated=True) == {}
    alone: dict[str, Any] = quality(rows([1]), calibrated=True)
    assert alone["accuracy"] == {"value": 1.0, "n": 1}  # one prompt has no standard error


def test_the_ceiling_has_the_error_of_the_agreement() -> None:
    """(1 + sqrt(2a - 1)) / 2, its derivative by central differences."""
    agreed = Estimate(0.73, 0.02, 300)
    found = ceiling(agreed)
    assert found.value == pytest.approx((1 + math.sqrt(0.46)) / 2)
    slope = (math.sqrt(2 * 0.7301 - 1) - math.sqrt(2 * 0.7299 - 1)) / 2 / 0.0002
    assert found.stderr == pytest.approx(0.02 * slope, rel=1e-4)
    assert ceiling(Estimate(0.5, 0.02, 300)) == Estimate(0.5, math.inf, 300)  # coins: nothing is known of it


@pytest.mark.parametrize(
    ("value", "stderr", "n", "most", "suspected"),
    [(0.90, 0.01, 400, Estimate(0.84, 0.02, 400), True), (0.90, 0.03, 400, Estimate(0.84, 0.02, 400), False),
     (0.83, 0.01, 400, Estimate(0.84, 0.02, 400), False), (0.90, 0.01, 400, None, False),
     (0.985, 0.01, 200, None, True), (0.985, 0.01, 199, None, False), (0.98, 0.01, 900, None, False),
     (1.0, 0.0, 200, Estimate(1.0, 0.0, 200), True), (0.9, 0.01, 400, Estimate(0.5, math.inf, 400), False)],
)  # fmt: skip
def test_an_accuracy_too_good_to_be_true_is_suspected(
    value: float, stderr: float, n: int, most: Estimate | None, suspected: bool
) -> None:
    assert bool(suspicion(Estimate(value, stderr, n), most)) == suspected
