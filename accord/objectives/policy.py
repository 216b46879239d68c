"""Policy optimisation on sampled answers."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.data.batch import Batch
from accord.model import Outputs
from accord.objectives import Loss, objective


def before(score: Tensor) -> Tensor:
    """The value before each token, [B, T]: the score after the token in front of it, 0 before the first."""
    return torch.cat([torch.zeros_like(score[:, :1]), score[:, :-1]], dim=1)


@objective(outputs=["logp", "entropy", "score"], needs=["old_logp", "advantage", "old_value", "return"])
def ppo(
    out: Outputs,
    batch: Batch,
    *,
    clip: float = 0.2,
    value_coef: float = 0.1,
    value_clip: float = 0.2,
    policy_coef: float = 1.0,
) -> Loss:
    """The clipped surrogate of the policy and the clipped squared error of the critic, averaged over tokens.

    Schulman et al. 2017, eq. 7 and 9 (https://arxiv.org/abs/1707.06347); value clipping and the factor 1/2 as in
    openai/lm-human-preferences. No entropy bonus: entropy is reported only. `policy_coef` is 0 while the critic warms up.
    """
    train = batch.train
    keep = train.float()
    log_ratio = (out.logp - batch["old_logp"]) * keep
    ratio = log_ratio.exp()
    gain = batch["advantage"] * ratio
    clipped = batch["advantage"] * ratio.clamp(1 - clip, 1 + clip)
    policy = -torch.minimum(gain, clipped) * keep

    value, old = before(out.score), batch["old_value"]
    error = (value - batch["return"]).square()
    if value_clip > 0:
        near = old + (value - old).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (near - batch["return"]).square())
    critic = 0.5 * error * keep

    with torch.no_grad():
        far = ((ratio - 1).abs() > clip) & train
        moved = ((ratio - 1) - log_ratio) * keep  # k3 of KL(old || new), Schulman 2020
    return Loss(
        {
            "policy/loss": (policy.sum(), "token", policy_coef),
            "value/loss": (critic.sum(), "token", value_coef),
        },
        {
            "policy/clip_fraction": (far.sum(), "token"),
            "policy/approx_kl": (moved.sum(), "token"),
            "policy/entropy": (out.entropy.sum(), "token"),
        },
    )
