"""What more labels would bring: the slope and its error recounted, and what is said of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from accord.estimate import Estimate
from accord.stages.learning_curve import gain_per_doubling, learning_curve, more_labels
from accord.stages.reward_quality import Row


def judged(right: list[float]) -> list[Row]:
    """Comparisons that are told right, wrong or not at all, each of a prompt of its own."""
    return [{"chosen": 2 * r - 1, "rejected": 0.0, "cluster": i} for i, r in enumerate(right)]


def test_the_gain_is_the_slope_of_least_squares_and_its_error_that_of_the_same_comparisons() -> None:
    draw, labels = np.random.default_rng(0), [100, 230, 400, 800]
    right = (draw.random((4, 300)) < np.array([0.6, 0.65, 0.7, 0.74])[:, None]).astype(float)
    found = gain_per_doubling(labels, right.tolist(), [str(i) for i in range(300)])
    assert found.value == pytest.approx(np.polyfit(np.log2(labels), right.mean(1), 1)[0])
    # The jackknife over comparisons, which knows nothing of weights.
    each = [np.polyfit(np.log2(labels), np.delete(right, i, 1).mean(1), 1)[0] for i in range(300)]
    assert found.stderr == pytest.approx(math.sqrt(299 / 300 * np.sum((each - np.mean(each)) ** 2)), rel=1e-6)


def test_a_curve_holds_its_points_and_says_what_they_mean() -> None:
    fits = [(50, judged([1, 0, 0, 1] * 100)), (200, judged([1, 1, 0, 1] * 100))]
    found: dict[str, Any] = learning_curve(fits, None)
    curve = found["learning_curve"]
    assert [(point["labels"], point["value"], point["n"]) for point in curve["points"]] == [
        (50, 0.5, 400),
        (200, 0.75, 400),
    ]
    assert curve["gain"]["value"] == pytest.approx(0.125)
    assert found["more_labels"].startswith("One point of accuracy more takes about 11 more labels")  # 200 (2^0.08 - 1)


def test_there_is_no_curve_of_one_size_or_without_comparisons() -> None:
    assert learning_curve([(50, judged([1, 0])), (50, judged([1, 1]))], None) == {}
    assert learning_curve([(50, [{"reward": 1.0, "label": 1.0, "cluster": 1}]), (90, [])], None) == {}


@pytest.mark.parametrize(
    ("gain", "most", "said"),
    [(0.02, None, "One point of accuracy more takes about 1,300 more labels, if it goes on to grow as it did "
                  "(+2.0 ± 0.5 points for each doubling of the labels from 400 to 3,200)."),
     (0.011, None, "One point of accuracy more takes about 2,800 more labels, if it goes on"),
     (0.0101, Estimate(0.8, 0.02, 50), "One point of accuracy more takes about 3,200 more labels, if it goes on"),
     (0.02, Estimate(0.705, 0.02, 50), "Accuracy grew with labels (+2.0 ± 0.5 points for each doubling of the labels from "
                                       "400 to 3,200), but their own agreement allows no more than 70 %."),
     (0.009, None, "Accuracy does not clearly grow with labels (+0.9 ± 0.5 points"),
     (-0.02, None, "Accuracy does not clearly grow with labels (-2.0 ± 0.5 points")],
)  # fmt: skip
def test_what_is_said(gain: float, most: Estimate | None, said: str) -> None:
    found = more_labels([400, 800, 3200], Estimate(0.7, 0.01, 500), Estimate(gain, 0.005, 500), most)
    assert found.startswith(said)
    slow = more_labels([400, 3200], Estimate(0.7, 0.01, 500), Estimate(0.008, 0.001, 500), None)
    assert slow.startswith("One point of accuracy more takes more than twice the labels, if")
