"""Credit for tokens: KL-shaped rewards, advantages with and without a critic, whitening.

Tensors are [B, T] unless said otherwise, and sums run over the answer's tokens only (one contiguous stretch per row).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from accord.objectives.kl import estimate
from accord.recipe import Estimator


def token_rewards(
    score: Tensor,
    logp: Tensor,
    ref_logp: Tensor,
    train: Tensor,
    *,
    kl: float,
    estimator: Estimator = "k1",
    valued: Tensor | None = None,
) -> Tensor:
    """Reward of each token, [B, T]: -kl * KL(pi || pi_ref) there, plus the answer's score [B] at its last token.

    Ziegler et al. 2019, section 2 (https://arxiv.org/abs/1909.08593). The score lands on the last token sampled, the end
    token where there is one (as in OpenRLHF and verl); with `valued` on the last of those positions.
    """
    reward = -kl * estimate((logp - ref_logp) * train, estimator)
    stretch = train if valued is None else valued
    last = stretch.shape[1] - 1 - stretch.flip(1).long().argmax(1)
    return reward.scatter_add(1, last[:, None], torch.where(stretch.any(1), score, 0.0)[:, None])


def gae(reward: Tensor, value: Tensor, train: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates, [B, T]; `value[b, t]` is the value before token t. The end is terminal.

    Schulman et al. 2016, eq. 16 (https://arxiv.org/abs/1506.02438): sum over l of (gamma lam)^l delta[t+l], with
    delta[t] = r[t] + gamma V[t+1] - V[t].
    """
    keep = train.to(reward.dtype)
    advantage = torch.zeros_like(reward)
    running = reward.new_zeros(reward.shape[0])
    after = reward.new_zeros(reward.shape[0])  # V[t+1], 0 past the end
    for t in range(reward.shape[1] - 1, -1, -1):
        delta = reward[:, t] + gamma * after - value[:, t]
        running = keep[:, t] * (delta + gamma * lam * running)
        advantage[:, t] = running
        after = keep[:, t] * value[:, t]
    return advantage


def leave_one_out(reward: Tensor, group: Tensor) -> Tensor:
    """Advantage of each answer, [B]: its reward less the mean of the other answers in its group; 0 where it is alone.

    Kool et al. 2019; RLOO of Ahmadian et al. 2024, section 3.2 (https://arxiv.org/abs/2402.14740). An answer whose reward
    is NaN counts for nothing and gets 0.
    """
    total, count = _sums(reward.nan_to_num(0.0), group, ~reward.isnan())
    others = (count - 1).clamp(min=1)
    return torch.where(count > 1, reward - (total - reward) / others, 0.0).nan_to_num(0.0)


def group_relative(reward: Tensor, group: Tensor, *, std: bool) -> Tensor:
    """Advantage of each answer, [B]: its reward less its group's mean, divided by the group's deviation with `std`.

    GRPO, Shao et al. 2024, section 4.1.2 (https://arxiv.org/abs/2402.03300), with the sample's deviation (Bessel) and 1e-4
    below the line as in TRL; without `std` Dr. GRPO, Liu et al. 2025 (https://arxiv.org/abs/2503.20783). NaN as above.
    """
    scored = ~reward.isnan()
    total, count = _sums(reward.nan_to_num(0.0), group, scored)
    centred = (reward - total / count.clamp(min=1)).nan_to_num(0.0)
    if not std:
        return centred
    squares, _ = _sums(centred.square(), group, scored)
    return centred / ((squares / (count - 1).clamp(min=1)).sqrt() + 1e-4)


def _sums(values: Tensor, group: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row's group: the sum of the values that are counted, and how many there are; [B] each."""
    _, index = group.unique(return_inverse=True)
    size = int(index.max()) + 1
    kept = counted.to(values.dtype)
    total = values.new_zeros(size).scatter_add(0, index, values * kept)
    count = values.new_zeros(size).scatter_add(0, index, kept)
    return total[index], count[index]


def whiten(values: Tensor, mask: Tensor, *, shift: bool = True, bessel: bool = False) -> Tensor:
    """Scaled to variance 1 over the masked entries, about their mean, which `shift` moves to 0; 0 elsewhere.

    The variance is the population's, as in the original PPO code for language models (tf.nn.moments) and its replication
    (summarize_from_feedback_details); `bessel` takes the sample's, as TRL did.
    """
    count = int(mask.sum())
    if count < 1 + bessel:
        return torch.zeros_like(values)
    kept = values[mask]
    mean = kept.mean()
    scaled = (values - mean) * torch.rsqrt(kept.var(correction=int(bessel)) + 1e-8)
    return torch.where(mask, scaled if shift else scaled + mean, torch.zeros_like(values))


def explained_variance(value: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - value) / Var(returns), NaN without variance: 1 is a perfect critic, 0 no better than a constant."""
    variance = float(returns.var(correction=0)) if len(returns) else 0.0
    return 1 - float((returns - value).var(correction=0)) / variance if variance > 0 else math.nan
