"""Logistic regression in numpy: multinomial, with an L2 penalty, by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def minimise(function: Callable[[Array], tuple[float, Array]], start: Array, *, steps: int = 200) -> Array:
    """The minimum of a smooth convex function, which returns its value and gradient at a point [D].

    L-BFGS with 10 corrections and backtracking (Nocedal & Wright 2006, algorithms 7.4 and 3.1).
    """
    x, history = start.copy(), list[tuple[Array, Array]]()
    value, gradient = function(x)
    for _ in range(steps):
        direction = -_two_loops(gradient, history)
        slope, size = float(gradient @ direction), 1.0
        if -slope < 1e-10 * max(1.0, abs(value)):
            break
        new, new_gradient = function(x + size * direction)
        while new > value + 1e-4 * size * slope and size > 1e-12:
            size /= 2
            new, new_gradient = function(x + size * direction)
        step, change = size * direction, new_gradient - gradient
        if step @ change > 1e-12:
            history = [*history[-9:], (step, change)]
        x, value, gradient = x + step, new, new_gradient
    return x


def _two_loops(gradient: Array, history: list[tuple[Array, Array]]) -> Array:
    q, kept = gradient.copy(), list[tuple[float, float]]()
    for step, change in reversed(history):
        rho = 1.0 / float(step @ change)
        alpha = rho * float(step @ q)
        q -= alpha * change
        kept.append((rho, alpha))
    if history:
        step, change = history[-1]
        q *= float(step @ change) / float(change @ change)
    for (step, change), (rho, alpha) in zip(history, reversed(kept), strict=True):
        q += (alpha - rho * float(change @ q)) * step
    return q


def multinomial(x: Array, labels: NDArray[np.int64], classes: int, *, l2: float, weights: Array | None = None) -> Array:
    """Weights [C, D] of a multinomial regression on rows [N, D] with labels in 0..C-1.

    It minimises sum(w * cross-entropy) / sum(w) + l2 / 2 * |W|^2, so that the penalty does not depend on the number of rows.
    """
    w = np.ones(len(x)) if weights is None else weights
    w = w / w.sum()
    target = np.eye(classes)[labels]

    def loss(flat: Array) -> tuple[float, Array]:
        table = flat.reshape(classes, -1)
        logits = x @ table.T
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        gradient = ((np.exp(log_p) - target) * w[:, None]).T @ x + l2 * table
        value = -float((w[:, None] * target * log_p).sum()) + l2 / 2 * float((table**2).sum())
        return value, gradient.ravel()

    return minimise(loss, np.zeros(classes * x.shape[1])).reshape(classes, -1)
