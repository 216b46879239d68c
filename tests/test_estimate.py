"""Intervals, paired differences and sample sizes, against plain formulas, published figures and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from accord.estimate import Estimate, interval, paired, power, prompts_needed, wilson


def test_paired_differences_cancel_what_both_find_hard() -> None:
    draw = np.random.default_rng(0)
    hard = draw.normal(size=50)
    a, b = hard + 0.1 * draw.normal(size=50), hard + 0.1 * draw.normal(size=50)
    found = paired(a.tolist(), b.tolist())
    assert found is not None
    assert found.value == pytest.approx(float((a - b).mean()))
    assert found.stderr == pytest.approx(float((a - b).std(ddof=1) / math.sqrt(50)))
    apart = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 50)
    assert found.stderr < apart / 3


def test_paired_differences_are_clustered_and_leave_out_what_one_lacks() -> None:
    a, b = [1.0, 0.0, 1.0, 1.0, math.nan], [0.0, 0.0, 1.0, 0.0, 1.0]
    found = paired(a, b, ["x", "x", "y", "z", "z"])
    assert found is not None
    assert (found.value, found.n) == (0.5, 4)
    sums = np.array([(1 - 0.5) + (0 - 0.5), 0 - 0.5, 1 - 0.5]) / 4  # residuals of each cluster
    assert found.stderr == pytest.approx(math.sqrt((sums**2).sum() * 3 / 2))


def test_interval_is_the_normal_one() -> None:
    assert interval(Estimate(0.5, 0.1, 10)) == pytest.approx((0.5 - 0.1959964, 0.5 + 0.1959964))
    assert interval(Estimate(0.0, 1.0, 10), 0.9) == pytest.approx((-1.6448536, 1.6448536))


def test_wilson_equals_published_intervals() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 3: the score interval without continuity correction.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_power_and_sample_size_agree_with_each_other_and_with_simulation() -> None:
    n = prompts_needed(0.02, 400, points=3.0)
    assert n == math.ceil((1.9599640 + 0.8416212) ** 2 * 0.02**2 * 400 / 0.03**2)
    assert power(0.03, 0.02 * math.sqrt(400 / n)) == pytest.approx(0.8, abs=2e-3)
    draw = np.random.default_rng(1)
    seen = np.abs(draw.normal(0.05, 0.02, size=40000)) > 1.9599640 * 0.02
    assert power(0.05, 0.02) == pytest.approx(seen.mean(), abs=0.01)
    assert prompts_needed(0.0, 10) == 1
