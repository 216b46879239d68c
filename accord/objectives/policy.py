"""Policy optimisation on sampled answers. The batch brings each token's `advantage`, computed once over all rollouts."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.data.batch import Batch, Unit
from accord.objectives import Loss, Objective, Sum, Term, objective
from accord.objectives.kl import estimate
from accord.outputs import Outputs
from accord.recipe import Estimator, Length, Level


@objective(outputs=["logp", "entropy"], needs=["old_logp", "ref_logp", "advantage"])
def surrogate(
    out: Outputs,
    batch: Batch,
    *,
    clip: float = 0.2,
    policy_coef: float = 1.0,
    entropy: float = 0.0,
    kl: float = 0.0,
    kl_estimator: Estimator = "k1",
    kl_level: Level = "token",
) -> Loss:
    """The clipped surrogate of the policy, averaged over tokens (Schulman et al. 2017, eq. 7).

    `kl` is the weight of a KL term in the loss, beside any in the reward. `policy_coef` is 0 while the critic warms up.
    """
    log_ratio = _log_ratio(out, batch)
    gain = _clipped(batch["advantage"], log_ratio.exp(), clip) * batch.train
    return _policy(
        out, batch, gain, log_ratio, "token", clip=clip, coef=policy_coef, entropy=entropy * policy_coef,
        kl=kl * policy_coef, kl_estimator=kl_estimator, kl_level=kl_level,
    )  # fmt: skip


@objective(outputs=["value"], needs=["old_value", "return", "valued"])
def value_error(out: Outputs, batch: Batch, *, value_coef: float = 0.1, value_clip: float = 0.2) -> Loss:
    """The clipped squared error of the critic, averaged over its tokens; clip and factor 1/2 as in
    openai/lm-human-preferences."""
    value, old, valued = out.value, batch["old_value"], batch["valued"]
    error = (value - batch["return"]).square()
    off = torch.zeros_like(valued)
    if value_clip > 0:
        near = old + (value - old).clamp(-value_clip, value_clip)
        clamped = (near - batch["return"]).square()
        off = ((value - old).abs() > value_clip) & (clamped > error)
        error = torch.maximum(error, clamped)
    loss = (0.5 * error * valued).sum()
    return Loss({"value/loss": (loss, "value", value_coef)}, {"value/clip_fraction": ((off * valued).sum(), "value")})


@objective(
    outputs=[*value_error.outputs, *surrogate.outputs],
    needs=[*surrogate.needs, *value_error.needs],
    parts=[value_error, surrogate],
)
def ppo(out: Outputs, batch: Batch, **params: object) -> Loss:
    """The surrogate of the policy and the error of the critic (Schulman et al. 2017, eq. 9, https://arxiv.org/abs/1707.06347),
    with the parameters of both."""
    critic, policy = (part(out, batch, **own) for part, own in ppo.divided(params))
    return Loss(policy.terms | critic.terms, policy.metrics | critic.metrics, policy.extremes)


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
    log_ratio = _log_ratio(out, batch).sum(1)  # [B]
    gain = _clipped(_of_row(batch), log_ratio.exp(), clip)
    return _policy(
        out,
        batch,
        gain,
        log_ratio,
        "row",
        clip=clip,
        entropy=entropy,
        kl=kl,
        kl_estimator=kl_estimator,
        kl_level=kl_level,
    )


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
    log_ratio = _log_ratio(out, batch)
    gain = _clipped(batch["advantage"], log_ratio.exp(), clip) * batch.train
    unit: Unit = "token" if length == "token" else "row"
    weight = torch.ones_like(gain[:, 0])  # [B]
    if length == "answer":
        weight = 1 / batch.train.sum(1).clamp(min=1)
    elif length == "constant":
        weight = weight / max_new_tokens
    return _policy(
        out, batch, gain.sum(1) * weight, log_ratio, unit, clip=clip, weight=weight, entropy=entropy, kl=kl,
        kl_estimator=kl_estimator, kl_level=kl_level,
    )  # fmt: skip


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
    log_ratio = _log_ratio(out, batch).sum(1)  # [B]
    gain = _of_row(batch) * out.logp.sum(1)
    return _policy(
        out, batch, gain, log_ratio, "row", entropy=entropy, kl=kl, kl_estimator=kl_estimator, kl_level=kl_level
    )


OBJECTIVES: dict[str, Objective] = {"ppo": ppo, "rloo": rloo, "grpo": grpo, "reinforce": reinforce}


# ------------------------------------------------------------------------------------------------------- what they share


def _log_ratio(out: Outputs, batch: Batch) -> Tensor:
    """How much likelier each train token has become since it was sampled, [B, T], in nats.

    Answers without `old_logp` are updated on but once: this very pass says how likely they were.
    """
    return (out.logp - batch.extra.get("old_logp", out.logp.detach())) * batch.train


def _clipped(advantage: Tensor, ratio: Tensor, clip: float) -> Tensor:
    """What a change of probability earns: nothing more beyond 1 +- clip."""
    return torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip))


def _of_row(batch: Batch) -> Tensor:
    """The advantage of each answer, [B], which all its tokens carry alike."""
    return batch["advantage"].sum(1) / batch.train.sum(1).clamp(min=1)


def _policy(
    out: Outputs, batch: Batch, gain: Tensor, log_ratio: Tensor, unit: Unit, *, clip: float | None = None,
    coef: float = 1.0, entropy: float, kl: float, kl_estimator: Estimator, kl_level: Level, weight: Tensor | None = None,
) -> Loss:  # fmt: skip
    """What all have: `gain` made large, the terms of KL and entropy where they weigh anything, and how far the policy moved."""
    terms: dict[str, Term] = {"policy/loss": (-gain.sum(), unit, coef)}
    if kl:
        distance = _kl(out, batch, kl_estimator, kl_level)
        terms["kl/loss"] = ((distance if weight is None else distance * weight).sum(), unit, kl)
    if entropy:
        terms["entropy/loss"] = (-out.entropy.sum(), "token", entropy)
    metrics: dict[str, Sum] = {"policy/entropy": (out.entropy.detach().sum(), "token"), **_moved(log_ratio, clip)}
    if "old_logp" not in batch.extra:
        metrics |= _since(out.logp.detach(), batch)
    return Loss(terms, metrics, _extremes(log_ratio, batch.train))


def _kl(out: Outputs, batch: Batch, estimator: Estimator, level: Level) -> Tensor:
    """KL of each answer from the reference, [B], estimated token by token or for the answer as a whole.

    Only at the level of the answer is the gradient of k2 that of the KL: of single tokens it leaves out what a token does to
    the KL of those after it.
    """
    log_ratio = (out.logp - batch["ref_logp"]) * batch.train
    return estimate(log_ratio if level == "token" else log_ratio.sum(1, keepdim=True), estimator).sum(1)


def _moved(log_ratio: Tensor, clip: float | None = None) -> dict[str, Sum]:
    """How far an update stands from the policy that sampled: the share outside of the clip range, and k3 of KL(old || new)."""
    unit: Unit = "token" if log_ratio.dim() == 2 else "row"
    with torch.no_grad():
        ratio = log_ratio.exp()
        found: dict[str, Sum] = {"policy/approx_kl": (((ratio - 1) - log_ratio).sum(), unit)}
        if clip is not None:
            found["policy/clip_fraction"] = (((ratio - 1).abs() > clip).sum(), unit)
    return found


def _since(old: Tensor, batch: Batch) -> dict[str, Sum]:
    """How far from the reference the answers were sampled (k1), and how far from what the sampler said of their tokens."""
    distance, mismatch = old - batch["ref_logp"], (old - batch["sampled_logp"]).abs()
    return {
        "kl/mean": ((distance * batch.train).sum(), "row"),
        "sampler/mismatch": ((mismatch * batch.train).sum(), "token"),
    }


def _extremes(log_ratio: Tensor, train: Tensor) -> dict[str, Tensor]:
    """The largest and the smallest ratio of probabilities, new to old; 1 where nothing is trained."""
    taught = train if log_ratio.dim() == 2 else train.any(1)
    ratio = log_ratio.detach()[taught].exp() if taught.any() else log_ratio.new_ones(1)
    return {"policy/ratio_max": ratio.max(), "policy/ratio_min": ratio.min()}
