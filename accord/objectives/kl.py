"""KL from the reference: estimators of it, and what steers its weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from accord.recipe import Estimator


def estimate(log_ratio: Tensor, estimator: Estimator) -> Tensor:
    """An estimate of KL(pi || pi_ref) from samples of pi, elementwise; `log_ratio` is log pi - log pi_ref, in nats.

    Schulman 2020 (http://joschu.net/blog/kl-approx.html), with r = pi_ref / pi: k1 = -log r is unbiased and may be
    negative; k2 = (log r)^2 / 2 is biased, but its gradient under samples of pi is that of the KL; k3 = r - 1 - log r is
    unbiased and at least 0, but its gradient is that of KL(pi_ref || pi).
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio.square()
    return torch.expm1(-log_ratio) + log_ratio


def adapted(beta: float, kl: float, *, target: float, horizon: int, rollouts: int) -> float:
    """The weight after a batch of so many rollouts: proportional control, the error clipped at 20 %.

    Ziegler et al. 2019, section 2.2 (https://arxiv.org/abs/1909.08593).
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * rollouts / horizon)


def multiplied(beta: float, kl: float, *, target: float, rate: float) -> float:
    """The weight as the Lagrange multiplier of `KL <= target`: projected dual ascent, 0 while the KL stays below.

    Boyd & Vandenberghe 2004, section 5; for language models Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373).
    """
    return max(0.0, beta + rate * (kl - target))


def scheduled(start: float, end: float, done: float) -> float:
    """The weight on its straight way from `start` to `end`; `done` is the part of the way, 0 to 1."""
    return start + (end - start) * min(max(done, 0.0), 1.0)


def best_of_n(n: int) -> float:
    """KL of best-of-n from what it chooses among, in nats, where no two answers are alike; else an upper bound.

    Stiennon et al. 2020, appendix G.3; Beirami et al. 2024, theorem 3.1 (https://arxiv.org/abs/2401.01879).
    """
    return math.log(n) - (n - 1) / n
