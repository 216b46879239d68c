"""Means with standard errors: what every reported number carries; differences, intervals, and how many prompts they take."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CLEAR = 2.0  # standard errors that count as a difference


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error and how many observations stand behind it."""

    value: float
    stderr: float
    n: int

    def to_json(self) -> dict[str, float]:
        """`{value, stderr, n}`, as results.json holds it."""
        return {"value": self.value, "stderr": self.stderr, "n": self.n}

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


@dataclass(frozen=True)
class Ranged(Estimate):
    """An estimate with a 95 % interval of its own: that of a bootstrap, say, which need not be symmetric."""

    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """`{value, stderr, n, low, high}`."""
        return super().to_json() | {"low": self.low, "high": self.high}


def mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """The mean of what was scored (NaN is left out), None where nothing was.

    Observations of one cluster (answers to one prompt, dialogues from one question) are not independent; the standard
    error is cluster-robust with the small-sample factor G/(G-1) (Liang & Zeger 1986; Miller 2024, arXiv 2411.00640).
    """
    return ratio(values, np.where(np.isnan(np.asarray(values, dtype=float)), np.nan, 1.0).tolist(), clusters)


def ratio(
    above: Sequence[float], below: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate | None:
    """sum(above) / sum(below), linearised for the standard error: a mean per token over rows of unequal length, say."""
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    kept = ~(np.isnan(a) | np.isnan(b))
    if not kept.any() or b[kept].sum() == 0:
        return None
    value = a[kept].sum() / b[kept].sum()
    residual = (a[kept] - value * b[kept]) / b[kept].sum()
    names = list(range(len(a))) if clusters is None else list(clusters)
    _, index = np.unique([str(names[i]) for i in np.flatnonzero(kept)], return_inverse=True)
    sums = np.bincount(index, weights=residual)
    groups = len(sums)
    stderr = float(np.sqrt((sums**2).sum() * groups / (groups - 1))) if groups > 1 else float("nan")
    return Estimate(float(value), stderr, int(kept.sum()))


def paired(a: Sequence[float], b: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """The mean of a - b over what both were scored on, with the standard error of the differences, clustered as in `mean`.

    Two models on the same prompts are compared so: what makes a prompt hard for both does not count as noise (Miller 2024,
    arXiv 2411.00640, section 4.2).
    """
    return mean([x - y for x, y in zip(a, b, strict=True)], clusters)


def errors(difference: float, stderr: float | None) -> float | None:
    """A difference in standard errors; None where these are not known."""
    if stderr is None:
        return None
    return difference / stderr if stderr else math.copysign(math.inf, difference) if difference else 0.0


def sure(difference: float, stderr: float | None) -> int:
    """1 where a difference is clearly above 0, -1 where clearly below, 0 where neither can be said."""
    far = errors(difference, stderr)
    return 0 if far is None or abs(far) <= CLEAR else 1 if far > 0 else -1


def interval(estimate: Estimate, level: float = 0.95) -> tuple[float, float]:
    """The normal interval value ± z stderr; NaN where the standard error is unknown."""
    reach = _z(level) * estimate.stderr
    return estimate.value - reach, estimate.value + reach


def wilson(hits: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share that stays within 0 and 1 and is right at 0 of n too (Wilson 1927); 0 to 1 where n is 0."""
    if n <= 0:
        return 0.0, 1.0
    z, share = _z(level), hits / n
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    below = 1 + z * z / n
    return max(0.0, (middle - reach) / below), min(1.0, (middle + reach) / below)


def power(difference: float, stderr: float, level: float = 0.95) -> float:
    """The chance that a true difference is seen at this level, two-sided, by a comparison with this standard error."""
    if stderr == 0:
        return 1.0 if difference else 1 - level
    normal, z, shift = NormalDist(), _z(level), abs(difference) / stderr
    return normal.cdf(shift - z) + normal.cdf(-shift - z)


def prompts_needed(stderr: float, n: int, points: float = 3.0, level: float = 0.95, chance: float = 0.8) -> int:
    """How many prompts a comparison needs to see a difference of `points` hundredths with this chance.

    `stderr` is that of the paired difference over `n` prompts, so that stderr² n is the variance of one: N = (z_level +
    z_chance)² stderr² n / difference² (Miller 2024, arXiv 2411.00640, equation 9).
    """
    needed = ((_z(level) + NormalDist().inv_cdf(chance)) * stderr / (points / 100)) ** 2 * n
    return max(1, math.ceil(needed - 1e-9))


def _z(level: float) -> float:
    """How many standard errors the middle `level` of a normal distribution reaches to either side."""
    return NormalDist().inv_cdf((1 + level) / 2)
