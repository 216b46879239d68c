"""Policy optimisation on sampled answers. The batch brings each token's `advantage`, computed once over all rollouts."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.data.batch import Batch, Unit
from accord.model import Outputs
from accord.objectives import Loss, Objective, Sum, Term, objective
from accord.objectives.kl import estimate
from accord.recipe import Estimator, Length, Level


def before(score: Tensor) -> Tensor:
    """The value before each token, [B, T]: the score after the token in front of it, 0 before the first."""
    return torch.cat([torch.zeros_like(score[:, :1]), score[:, :-1]], dim=1)


@objective(
    outputs=["logp", "entropy", "score"],
    needs=["old_logp", "ref_logp", "advantage", "old_value", "return", "valued"],
)
def ppo(
    out: Outputs,
    batch: Batch,
    *,
    clip: float = 0.2,
    value_coef: float = 0.1,
    value_clip: float = 0.2,
    policy_coef: float = 1.0,
    entropy: float = 0.0,
    kl: float = 0.0,
    kl_estimator: Estimator = "k1",
    kl_level: Level = "token",
) -> Loss:
    """The clipped surrogate of the policy and the clipped squared error of the critic, averaged over tokens.

    Schulman et al. 2017, eq. 7 and 9 (https://arxiv.org/abs/1707.06347); value clipping and the factor 1/2 as in
    openai/lm-human-preferences. `kl` is the weight of a KL term in the loss, beside any in the reward. `policy_coef` is 0
    while the critic warms up.
    """
    train = batch.train
    log_ratio = (out.logp - batch["old_logp"]) * train
    gain = _clipped(batch["advantage"], log_ratio.exp(), clip) * train
    value, old = before(out.score), batch["old_value"]
    error = (value - batch["return"]).square()
    if value_clip > 0:
        near = old + (value - old).clamp(-value_clip, value_clip)
        clamped = (near - batch["return"]).square()
        off = (((value - old).abs() > value_clip) & (clamped > error) & batch["valued"].bool()).sum()
        error = torch.maximum(error, clamped)
    else:
        off = error.new_zeros(())
    critic = 0.5 * error * batch["valued"]
    terms: dict[str, Term] = {
        "policy/loss": (-gain.sum(), "token", policy_coef),
        "value/loss": (critic.sum(), "value", value_coef),
        **_kl(out, batch, kl * policy_coef, kl_estimator, kl_level, "token"),
        **_entropy(out, entropy * policy_coef),
    }
    metrics: dict[str, Sum] = {
        "policy/entropy": (out.entropy.detach().sum(), "token"),
        "value/clip_fraction": (off, "value"),
        **_moved(log_ratio, clip),
    }
    return Loss(terms, metrics, _extremes(log_ratio, train))


@objective(outputs=["logp", "entropy"], needs=["old_logp", "ref_logp", "advantage"])
def rloo(
    out: Outputs,
    batch: Batch,
    *,
    clip: float = 0.2,
    entropy: float = 0.0,
    kl: float = 0.0,
    kl_estimator: Estimator = "k1",
    kl_level: Level = "token",
) -> Loss:
    """REINFORCE on whole answers with a clipped ratio of their probabilities, averaged over answers.

    Ahmadian et al. 2024, eq. 8 (https://arxiv.org/abs/2402.14740); the clip, as in TRL, matters only after the first update on
    a batch.
    """
    log_ratio = ((out.logp - batch["old_logp"]) * batch.train).sum(1)  # [B]
    gain = _clipped(_of_row(batch), log_ratio.exp(), clip)
    terms: dict[str, Term] = {
        "policy/loss": (-gain.sum(), "row", 1.0),
        **_kl(out, batch, kl, kl_estimator, kl_level, "row"),
        **_entropy(out, entropy),
    }
    metrics: dict[str, Sum] = {
        "policy/entropy": (out.entropy.detach().sum(), "token"),
        **_moved(log_ratio, clip),
    }
    return Loss(terms, metrics, _extremes(log_ratio, batch.train))


@objective(outputs=["logp", "entropy"], needs=["old_logp", "ref_logp", "advantage"])
def grpo(
    out: Outputs,
    batch: Batch,
    *,
    clip: float = 0.2,
    length: Length = "answer",
    max_new_tokens: int = 1,
    entropy: float = 0.0,
    kl: float = 0.0,
    kl_estimator: Estimator = "k3",
    kl_level: Level = "token",
) -> Loss:
    """The clipped surrogate of each token with the advantage of its answer.

    Shao et al. 2024, eq. 3 (https://arxiv.org/abs/2402.03300). What a token weighs is `length`: `answer` divides by the
    answer's length and averages answers (the paper); `token` averages tokens (DAPO, Yu et al. 2025); `constant` divides every
    answer by `max_new_tokens` (Dr. GRPO, Liu et al. 2025, https://arxiv.org/abs/2503.20783).
    """
    log_ratio = (out.logp - batch["old_logp"]) * batch.train
    gain = _clipped(batch["advantage"], log_ratio.exp(), clip) * batch.train
    unit: Unit = "token" if length == "token" else "row"
    weight = torch.ones_like(gain[:, 0])  # [B]
    if length == "answer":
        weight = 1 / batch.train.sum(1).clamp(min=1)
    elif length == "constant":
        weight = weight / max_new_tokens
    terms: dict[str, Term] = {
        "policy/loss": (-(gain.sum(1) * weight).sum(), unit, 1.0),
        **_kl(out, batch, kl, kl_estimator, kl_level, unit, weight),
        **_entropy(out, entropy),
    }
    metrics: dict[str, Sum] = {
        "policy/entropy": (out.entropy.detach().sum(), "token"),
        **_moved(log_ratio, clip),
    }
    return Loss(terms, metrics, _extremes(log_ratio, batch.train))


@objective(outputs=["logp", "entropy"], needs=["old_logp", "ref_logp", "advantage"])
def reinforce(
    out: Outputs,
    batch: Batch,
    *,
    entropy: float = 0.0,
    kl: float = 0.0,
    kl_estimator: Estimator = "k1",
    kl_level: Level = "token",
) -> Loss:
    """The score-function estimator: -advantage * log pi of the whole answer, averaged over answers.

    Williams 1992 (https://doi.org/10.1007/BF00992696). No ratio and no clip: exact for one update on a batch only.
    """
    log_ratio = ((out.logp - batch["old_logp"]) * batch.train).sum(1)  # [B]
    gain = _of_row(batch) * out.logp.sum(1)
    terms: dict[str, Term] = {
        "policy/loss": (-gain.sum(), "row", 1.0),
        **_kl(out, batch, kl, kl_estimator, kl_level, "row"),
        **_entropy(out, entropy),
    }
    metrics: dict[str, Sum] = {
        "policy/entropy": (out.entropy.detach().sum(), "token"),
        **_moved(log_ratio),
    }
    return Loss(terms, metrics, _extremes(log_ratio, batch.train))


OBJECTIVES: dict[str, Objective] = {"ppo": ppo, "rloo": rloo, "grpo": grpo, "reinforce": reinforce}


# ------------------------------------------------------------------------------------------------------- what they share


def _clipped(advantage: Tensor, ratio: Tensor, clip: float) -> Tensor:
    """What a change of probability earns: nothing more beyond 1 +- clip."""
    return torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip))


def _of_row(batch: Batch) -> Tensor:
    """The advantage of each answer, [B], which all its tokens carry alike."""
    return batch["advantage"].sum(1) / batch.train.sum(1).clamp(min=1)


def _kl(
    out: Outputs,
    batch: Batch,
    coef: float,
    estimator: Estimator,
    level: Level,
    unit: Unit,
    weight: Tensor | None = None,
) -> dict[str, Term]:
    """KL from the reference as a term of the loss, of each token or of the whole answer; nothing where it weighs nothing.

    Only at the level of the answer is the gradient of k2 that of the KL: of single tokens it leaves out what a token does to
    the KL of those after it.
    """
    if coef == 0:
        return {}
    log_ratio = (out.logp - batch["ref_logp"]) * batch.train
    found = estimate(log_ratio if level == "token" else log_ratio.sum(1, keepdim=True), estimator).sum(1)  # [B]
    return {"kl/loss": ((found if weight is None else found * weight).sum(), unit, coef)}


def _entropy(out: Outputs, coef: float) -> dict[str, Term]:
    """Entropy as a bonus; needs it with its gradient."""
    return {"entropy/loss": (-out.entropy.sum(), "token", coef)} if coef else {}


def _moved(log_ratio: Tensor, clip: float | None = None) -> dict[str, Sum]:
    """How far an update stands from the policy that sampled: the share outside of the clip range, and k3 of KL(old || new)."""
    unit: Unit = "token" if log_ratio.dim() == 2 else "row"
    with torch.no_grad():
        ratio = log_ratio.exp()
        found: dict[str, Sum] = {"policy/approx_kl": (((ratio - 1) - log_ratio).sum(), unit)}
        if clip is not None:
            found["policy/clip_fraction"] = (((ratio - 1).abs() > clip).sum(), unit)
    return found


def _extremes(log_ratio: Tensor, train: Tensor) -> dict[str, Tensor]:
    """The largest and the smallest ratio of probabilities, new to old; 1 where nothing is trained."""
    taught = train if log_ratio.dim() == 2 else train.any(1)
    ratio = log_ratio.detach()[taught].exp() if taught.any() else log_ratio.new_ones(1)
    return {"policy/ratio_max": ratio.max(), "policy/ratio_min": ratio.min()}
