"""How gold follows a proxy that is optimised ever harder: the fits of Gao, Schulman & Hilton (2022).

With d = sqrt(KL(policy || start)), in nats to the power of a half, and R the gain in gold over the start
(https://arxiv.org/abs/2210.10760):

    best of n:               R(d) = d (a - b d)       peak at d = a / (2 b)
    reinforcement learning:  R(d) = d (a - b ln d)    peak at d = exp(a / b - 1)

Both are linear in a and b, so that weighted least squares gives them in one step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accord.report.results import Point, Series
from accord.report.values import Measure

KINDS = ("rl", "best_of_n")
ORIGIN = 1e-3  # nats; a point this near to the start counts as the start


@dataclass(frozen=True)
class Fit:
    """The fitted curve of one series."""

    kind: str
    a: float
    b: float
    a_stderr: float
    b_stderr: float
    reach: float  # the largest d that was measured

    @property
    def peak(self) -> float | None:
        """The d at which gold is highest; None where it rises for ever, or falls from the start."""
        if self.b <= 0 or self.a <= 0:
            return None
        if self.kind == "best_of_n":
            return self.a / (2 * self.b)
        # Beyond e^20 standard distances nothing is meant any more.
        return math.exp(self.a / self.b - 1) if self.a / self.b < 20 else None

    @property
    def inside(self) -> bool:
        """Whether the peak lies where there is data."""
        return self.peak is not None and self.peak <= self.reach


def basis(kind: str, d: np.ndarray) -> np.ndarray:
    """The columns that a and b are multiplied with: [d, -d d] or [d, -d ln d]; 0 at d = 0."""
    second = d * d if kind == "best_of_n" else d * np.log(np.where(d > 0, d, 1.0))
    return np.stack([d, -second], axis=1)


def curve(fit: Fit, d: np.ndarray) -> np.ndarray:
    """The fitted gain at each d."""
    return basis(fit.kind, d) @ np.array([fit.a, fit.b])


def fit_curve(kind: str, d: Sequence[float], gain: Sequence[float], stderr: Sequence[float] | None = None) -> Fit:
    """Fit a and b by least squares, weighted by 1/stderr^2 where these are given; needs two different d above 0.

    The errors of a and b come from the given ones, or else from the residuals (nan with no point to spare).
    """
    x, y = basis(kind, np.asarray(d, dtype=float)), np.asarray(gain, dtype=float)
    weights = np.ones(len(y)) if stderr is None else np.asarray(stderr, dtype=float) ** -2.0
    inverse = np.linalg.inv(x.T @ (weights[:, None] * x))
    found = inverse @ (x.T @ (weights * y))
    if stderr is None:
        spare = len(y) - 2
        left = y - x @ found
        inverse = inverse * (float(left @ left) / spare if spare else math.nan)
    a_stderr, b_stderr = np.sqrt(np.diag(inverse))
    return Fit(kind, float(found[0]), float(found[1]), float(a_stderr), float(b_stderr), float(max(d)))


def start_of(series: Series) -> Point | None:
    """The point from which gains count: the one with KL 0."""
    return next((point for point in series.points if point.kl <= ORIGIN), None)


def gains(series: Series, side: str) -> list[tuple[float, Measure]]:
    """The gains over the start as (d, gain), in `gold` or in the `proxy`; empty where the start was not measured."""
    start = start_of(series)
    base = _side(start, side) if start else None
    if base is None:
        return []
    found: list[tuple[float, Measure]] = []
    for point in series.points:
        value = _side(point, side)
        if value is not None:
            found.append((math.sqrt(point.kl), Measure(value.value - base.value, value.stderr, value.n)))
    return found


def fit_gold(series: Series) -> Fit | None:
    """Fit a series' gain in gold; None for an unknown kind, and for fewer than three points beyond the start."""
    points = [(d, gain) for d, gain in gains(series, "gold") if d * d > ORIGIN]
    if series.kind not in KINDS or len({d for d, _ in points}) < 3:
        return None
    errors = [gain.stderr for _, gain in points if gain.stderr]
    weighted = errors if len(errors) == len(points) else None
    return fit_curve(series.kind, [d for d, _ in points], [gain.value for _, gain in points], weighted)


def _side(point: Point, side: str) -> Measure | None:
    return point.gold if side == "gold" else point.proxy
