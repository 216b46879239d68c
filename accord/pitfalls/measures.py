"""Numbers that detectors need and that cost next to nothing to log while a policy trains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def distinct(answers: Sequence[Sequence[int]]) -> float | None:
    """The share of different pairs of neighbours among all those of some answers' tokens (distinct-2, Li et al. 2016,
    https://arxiv.org/abs/1510.03055); None where there are none.

    It falls with the number of answers, so that only batches of one size can be compared.
    """
    every = [pair for answer in answers for pair in pairwise(answer)]
    return len(set(every)) / len(every) if every else None


def on_length(reward: Sequence[float], length: Sequence[float], group: Sequence[int]) -> tuple[float, float] | None:
    """Slope and correlation of answers' reward on their length in tokens, NaN left out.

    Within the answers to one prompt where prompts have several, so that longer answers to other questions do not count; None
    where rewards or lengths do not differ.
    """
    y, x, g = np.asarray(reward, dtype=float), np.asarray(length, dtype=float), np.asarray(group)
    kept = ~np.isnan(y)
    y, x, g = y[kept], x[kept], g[kept]
    _, place, size = np.unique(g, return_inverse=True, return_counts=True)
    if not len(y) or size.max() < 2:
        place, size = np.zeros(len(y), dtype=int), np.array([max(len(y), 1)])
    y = y - (np.bincount(place, y) / size)[place]
    x = x - (np.bincount(place, x) / size)[place]
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    if xx < 1e-9 or yy < 1e-12:
        return None
    return xy / xx, xy / (xx * yy) ** 0.5


def at_equal_length(reward: Sequence[float], length: Sequence[float]) -> tuple[float, float] | None:
    """Of differences between two models' answers, prompt by prompt: the gain in reward at equal length, and its standard
    error. Intercept of reward on length by least squares; None with fewer than three prompts or equal lengths everywhere.

    So does AlpacaEval 2 take length out of win rates (Dubois et al. 2024, https://arxiv.org/abs/2404.04475).
    """
    y, x = np.asarray(reward, dtype=float), np.asarray(length, dtype=float)
    if len(y) < 3 or float(np.ptp(x)) == 0:
        return None
    design = np.stack([np.ones(len(x)), x], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ (design.T @ y)
    left = y - design @ found
    variance = float(left @ left) / (len(y) - 2)
    return float(found[0]), float(np.sqrt(variance * inverse[0, 0]))
