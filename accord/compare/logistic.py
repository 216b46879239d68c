"""Logistic regression with soft labels and a normal prior of each coefficient, by Newton's method."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

STEPS = 100  # of Newton's method; a dozen are usual


@dataclass(frozen=True)
class Fit:
    """Coefficients [K] of a fit, with what their uncertainty follows from."""

    weights: Array
    features: Array  # [N, K]
    labels: Array  # [N], in 0 to 1
    precision: Array  # [K], of the prior
    converged: bool

    def error_of(self, value: Array, gradient: Array, clusters: Sequence[Hashable]) -> float:
        """The standard error of the mean of N `values` that depend on the weights by `gradient`, [K].

        By the delta method and clustered: the prompts are a sample, for the weights and for the mean. What is known of the
        weights from the prior alone counts as one more observation, with the prior's own variance. For fits without `counts`.
        """
        chance = sigmoid(self.features @ self.weights)
        spread = chance * (1 - chance)
        hessian = (self.features * spread[:, None]).T @ self.features + np.diag(self.precision)
        pull = np.linalg.solve(hessian, gradient)  # [K]
        each = (value - value.mean()) / len(value) + (self.features @ pull) * (self.labels - chance)
        _, index = np.unique([str(name) for name in clusters], return_inverse=True)
        sums = np.bincount(index, weights=each)
        if len(sums) < 2:
            return float("nan")
        sampled = (sums**2).sum() * len(sums) / (len(sums) - 1)
        return float(np.sqrt(sampled + pull**2 @ self.precision))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), also far out."""
    return np.exp(-np.logaddexp(0.0, -x))


def fit(
    features: Array, labels: Array, *, mean: Array, precision: Array, counts: Array | None = None, start: Array | None = None
) -> Fit:  # fmt: skip
    """The weights that maximise sum_n c_n [y log p + (1 - y) log(1 - p)] - sum_k precision_k (w_k - mean_k)^2 / 2.

    Labels [N] are probabilities. The problem is concave; a step that would not improve is halved.
    """
    counts = np.ones(len(labels)) if counts is None else counts
    weights = mean.copy() if start is None else start.copy()

    def loss(w: Array) -> float:
        x = features @ w
        return float(counts @ (np.logaddexp(0.0, x) - labels * x) + precision @ (w - mean) ** 2 / 2)

    now, converged = loss(weights), False
    for _ in range(STEPS):
        chance = sigmoid(features @ weights)
        slope = features.T @ (counts * (labels - chance)) - precision * (weights - mean)
        hessian = (features * (counts * chance * (1 - chance))[:, None]).T @ features + np.diag(precision)
        step = np.linalg.lstsq(hessian, slope, rcond=None)[0]
        if slope @ step < 1e-12:  # twice what a full step would gain
            converged = True
            break
        while (new := loss(weights + step)) > now and np.abs(step).max() > 1e-12:
            step = step / 2
        weights, now = weights + step, min(now, new)
    return Fit(weights, features, labels, precision, converged)
