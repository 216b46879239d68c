"""Means with standard errors: what every reported number carries."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


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
