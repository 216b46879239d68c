"""The DPO family: preferences without a reward model.

On pairs every objective is a loss of one number, h: how far the chosen answer's value lies above the rejected one's. The value
is log(pi / pi_ref) of the answer, or what stands in its place where there is no reference. KTO judges answers one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from accord.data.batch import Batch
from accord.objectives import Loss, Objective, Sum, Term, objective, token_metrics
from accord.outputs import Output, Outputs

# ----------------------------------------------------------------------------------------------------- what they share


def log_ratio(out: Outputs, batch: Batch, *, average: bool = False, reference_free: bool = False) -> Tensor:
    """log(pi / pi_ref) of each answer, [B]: summed over its tokens or, with `average`, their mean.

    `reference_free` takes the reference's as 0. `ref_logp` is [B, T]: subtracted token by token, since the difference of
    two long sums loses digits in float32.
    """
    gain = out.logp if reference_free else out.logp - batch["ref_logp"]
    return gain.sum(1) / batch.train.sum(1) if average else gain.sum(1)


def pairwise(
    out: Outputs, batch: Batch, *, name: str, value: Tensor, loss: Callable[[Tensor], Tensor], beta: float = 1.0,
    coef: float = 1.0, sft: float = 0.0,
) -> Loss:  # fmt: skip
    """A loss of h = value of chosen - value of rejected, averaged over pairs; `value` is [B], `loss` maps [P] to [P].

    Under a soft label, p = P(chosen is better), it is the expectation p L(w, l) + (1 - p) L(l, w), where L(l, w) has -h for h
    and the other answer in the likelihood term. `sft` is the weight of that term, the better answer's mean loss per token,
    which keeps its probability from falling with the worse one's (Pang et al. 2024, eq. 2, https://arxiv.org/abs/2404.19733).
    Metrics: `margin` is beta h; `chosen_logp` and `rejected_logp` are sums over the answer's tokens, in nats.
    """
    prob, _ = batch.pairs(batch["prob"])  # [P]
    weight, _ = batch.pairs(batch["weight"])
    chosen, rejected = batch.pairs(value)
    h = chosen - rejected
    each = (prob * loss(h) + (1 - prob) * loss(-h)) * weight
    terms: dict[str, Term] = {name: (each.sum(), "pair", coef)}
    if sft:
        first, second = batch.pairs(-out.logp.sum(1) / batch.train.sum(1))
        nll = (prob * first + (1 - prob) * second) * weight
        terms["sft"] = (nll.sum(), "pair", sft)
    right = torch.where(h == 0, 0.5, (h > 0).float())  # a tie is half right
    chosen_logp, rejected_logp = batch.pairs(out.logp.detach().sum(1))
    return Loss(
        terms,
        {
            "accuracy": (right.sum(), "pair"),
            "margin": (beta * h.detach().sum(), "pair"),
            "chosen_logp": (chosen_logp.sum(), "pair"),
            "rejected_logp": (rejected_logp.sum(), "pair"),
            **logit_metrics(out, batch),
            **token_metrics(out, batch),
        },
    )


def logit_metrics(out: Outputs, batch: Batch) -> dict[str, Sum]:
    """The mean logit of an answer, where the pass was asked for it: what TRL logs by the same names, there over all tokens."""
    if "logit" not in out.values:
        return {}
    chosen, rejected = batch.pairs(out.logit.sum(1) / batch.train.sum(1).clamp(min=1))
    return {"logits/chosen": (chosen.sum(), "pair"), "logits/rejected": (rejected.sum(), "pair")}


OUTPUTS: list[Output] = ["logp", "entropy", "likeliest", "logit"]

referenced = objective(outputs=OUTPUTS, needs=["ref_logp", "prob", "weight"], unless={"ref_logp": "reference_free"})
unreferenced = objective(outputs=OUTPUTS, needs=["prob", "weight"])

# -------------------------------------------------------------------------------------------------- with a reference


@referenced
def dpo(
    out: Outputs, batch: Batch, *, beta: float = 0.1, average: bool = False, reference_free: bool = False,
    sft: float = 0.0,
) -> Loss:  # fmt: skip
    """Direct preference optimisation: -log sigmoid(beta h); the implicit reward is beta * log(pi / pi_ref).

    Rafailov et al. 2023, eq. 7 (https://arxiv.org/abs/2305.18290).
    """
    value = log_ratio(out, batch, average=average, reference_free=reference_free)
    return pairwise(out, batch, name="dpo", value=value, loss=lambda h: -logsigmoid(beta * h), beta=beta, sft=sft)


@referenced
def hinge(
    out: Outputs, batch: Batch, *, beta: float = 0.1, average: bool = False, reference_free: bool = False,
    sft: float = 0.0,
) -> Loss:  # fmt: skip
    """Hinge loss: max(0, 1 - beta h). No pull any more once h has reached 1 / beta.

    The `hinge-norm` of RSO, Liu et al. 2023 (https://arxiv.org/abs/2309.06657). With `reference_free` it is the calibration
    loss of SLiC-HF, Zhao et al. 2023, eq. 4 (https://arxiv.org/abs/2305.10425), divided by its margin delta = 1 / beta.
    """
    value = log_ratio(out, batch, average=average, reference_free=reference_free)
    return pairwise(out, batch, name="hinge", value=value, loss=lambda h: relu(1 - beta * h), beta=beta, sft=sft)


@referenced
def ipo(
    out: Outputs, batch: Batch, *, beta: float = 0.1, average: bool = False, reference_free: bool = False,
    sft: float = 0.0,
) -> Loss:  # fmt: skip
    """Identity preference optimisation: (h - 1 / (2 beta))^2; beta is the paper's tau.

    Azar et al. 2023, eq. 17 (https://arxiv.org/abs/2310.12036). Log-ratios are summed over tokens, as in the equation and in
    the DPO authors' code. TRL averages them, as `average` does: by word of IPO's authors the paper's results came so.
    """
    value = log_ratio(out, batch, average=average, reference_free=reference_free)
    return pairwise(
        out, batch, name="ipo", value=value, loss=lambda h: (h - 1 / (2 * beta)).square(), beta=beta, sft=sft
    )


@referenced
def cdpo(
    out: Outputs, batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.1, average: bool = False,
    reference_free: bool = False, sft: float = 0.0,
) -> Loss:  # fmt: skip
    """Conservative DPO: (1 - eps) L(w, l) + eps L(l, w). No pull any more once sigmoid(beta h) has reached 1 - eps.

    `label_smoothing` is eps, the share of labels taken to be flipped. Mitchell 2023, eq. 3 (https://ericmitchell.ai/cdpo.pdf).
    """

    def loss(h: Tensor) -> Tensor:
        return -(1 - label_smoothing) * logsigmoid(beta * h) - label_smoothing * logsigmoid(-beta * h)

    value = log_ratio(out, batch, average=average, reference_free=reference_free)
    return pairwise(out, batch, name="cdpo", value=value, loss=loss, beta=beta, sft=sft)


@referenced
def robust(
    out: Outputs, batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.1, average: bool = False,
    reference_free: bool = False, sft: float = 0.0,
) -> Loss:  # fmt: skip
    """Robust DPO: ((1 - eps) L(w, l) - eps L(l, w)) / (1 - 2 eps). Its mean over how labels flip is DPO's on true ones.

    `label_smoothing` is eps, the share of labels that are flipped. It has no lower bound. Chowdhury et al. 2024, section 3.1
    (https://arxiv.org/abs/2403.00409).
    """

    def loss(h: Tensor) -> Tensor:
        kept, flipped = -logsigmoid(beta * h), -logsigmoid(-beta * h)
        return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)

    value = log_ratio(out, batch, average=average, reference_free=reference_free)
    return pairwise(out, batch, name="robust", value=value, loss=loss, beta=beta, sft=sft)


# ------------------------------------------------------------------------------------------------ without a reference


@unreferenced
def simpo(out: Outputs, batch: Batch, *, beta: float = 2.0, gamma: float = 1.0, sft: float = 0.0) -> Loss:
    """Simple preference optimisation: -log sigmoid(beta h - gamma), h of the mean log-probs per token.

    Meng et al. 2024, eq. 6 (https://arxiv.org/abs/2405.14734). `gamma` is the equation's, the margin asked of beta h; the
    authors' code tunes the ratio gamma / beta.
    """
    value = log_ratio(out, batch, average=True, reference_free=True)
    return pairwise(
        out, batch, name="simpo", value=value, loss=lambda h: -logsigmoid(beta * h - gamma), beta=beta, sft=sft
    )


@unreferenced
def orpo(out: Outputs, batch: Batch, *, lam: float = 0.1) -> Loss:
    """Odds-ratio preference optimisation: the better answer's loss per token, minus lam log sigmoid(h).

    h is the log odds ratio of the two answers, odds = P / (1 - P), where P is the geometric mean of the probabilities of an
    answer's tokens. Hong et al. 2024, eq. 6 and 7 (https://arxiv.org/abs/2403.07691).
    """
    # A probability that rounds to 1 has no odds.
    mean = log_ratio(out, batch, average=True, reference_free=True).clamp(max=-torch.finfo(out.logp.dtype).eps)
    odds = mean - torch.log(-torch.expm1(mean))  # log(P / (1 - P)), [B]
    return pairwise(out, batch, name="odds_ratio", value=odds, loss=lambda h: -logsigmoid(h), coef=lam, sft=1.0)


# --------------------------------------------------------------------------------------------------- without pairs


@objective(outputs=["logp"], needs=["ref_logp", "label", "baseline", "good_share"])
def kto(
    out: Outputs, batch: Batch, *, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0, sft: float = 0.0
) -> Loss:
    """Kahneman-Tversky optimisation: lambda - v(x, y), averaged over rated answers.

    v = desirable * sigmoid(beta (r - z0)) for a good answer, undesirable * sigmoid(beta (z0 - r)) for a bad one, where
    r = log(pi / pi_ref). Ethayarajh et al. 2024, eq. 8 (https://arxiv.org/abs/2402.01306). With unequal numbers of the two the
    paper asks for desirable * n_good / (undesirable * n_bad) between 1 and 3/2 (eq. 9). `sft` adds the good answers' loss
    per token.

    What couples rows comes with the batch: `baseline` is z0, `good_share` that of good answers among all rows. `label` is
    1 or 0. `accuracy` is the share of answers on their side of z0, `margin` beta times the mean r of the good minus that of
    the bad, `chosen_logp` and `rejected_logp` are means over the good and over the bad; absent where one kind is.
    """
    good = batch["label"]  # [B]
    ratio = log_ratio(out, batch)
    gain = beta * (ratio - batch["baseline"])
    value = good * desirable * torch.sigmoid(-gain) + (1 - good) * undesirable * torch.sigmoid(gain)  # lambda - v
    terms: dict[str, Term] = {"kto": (value.sum(), "row", 1.0)}
    logp = out.logp.sum(1)
    if sft:
        terms["sft"] = ((-good * logp / batch.train.sum(1)).sum(), "row", sft)

    right = torch.where(gain == 0, 0.5, ((gain > 0) == (good > 0)).float())  # a tie is half right
    metrics: dict[str, Sum] = {"accuracy": (right.sum(), "row"), "baseline": (batch["baseline"].sum(), "row")}
    share = batch["good_share"]
    if 0 < share[0] < 1:
        of_good, of_bad = good / share, (1 - good) / (1 - share)  # over all rows, the weights of a mean over one kind
        metrics |= {
            "margin": (beta * (ratio.detach() * (of_good - of_bad)).sum(), "row"),
            "chosen_logp": ((logp.detach() * of_good).sum(), "row"),
            "rejected_logp": ((logp.detach() * of_bad).sum(), "row"),
        }
    return Loss(terms, metrics)


OBJECTIVES: dict[str, Objective] = {each.name: each for each in (dpo, hinge, ipo, cdpo, robust, simpo, orpo, kto)}
