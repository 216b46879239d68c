"""Credit for tokens: KL-shaped rewards, generalised advantage estimation, whitening.

All tensors are [B, T] and all sums run over the answer's tokens only (`train`, one contiguous stretch per row).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def token_rewards(score: Tensor, logp: Tensor, ref_logp: Tensor, train: Tensor, *, kl: float) -> Tensor:
    """Reward of each token, [B, T]: -kl * (log pi - log pi_ref), plus the answer's score [B] at its last token.

    The per-token penalty is the k1 estimator. Ziegler et al. 2019, section 2 (https://arxiv.org/abs/1909.08593). The
    score lands on the last sampled token, the end token where there is one (as in OpenRLHF and verl).
    """
    reward = -kl * (logp - ref_logp) * train
    last = train.shape[1] - 1 - train.flip(1).long().argmax(1)
    return reward.scatter_add(1, last[:, None], torch.where(train.any(1), score, 0.0)[:, None])


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


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shifted to mean 0 and scaled to variance 1 over the masked entries; 0 elsewhere.

    The variance is the population's, as in the original PPO code for language models (tf.nn.moments).
    """
    if not mask.any():
        return torch.zeros_like(values)
    kept = values[mask]
    scaled = (values - kept.mean()) * torch.rsqrt(kept.var(correction=0) + 1e-8)
    return torch.where(mask, scaled, torch.zeros_like(values))


def explained_variance(value: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - value) / Var(returns), NaN without variance: 1 is a perfect critic, 0 no better than a constant."""
    variance = float(returns.var(correction=0)) if len(returns) else 0.0
    return 1 - float((returns - value).var(correction=0)) / variance if variance > 0 else math.nan
