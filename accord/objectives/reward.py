"""Losses of reward models: comparisons, whole rankings, the best of several answers, ratings."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from accord.data.batch import Batch, Unit
from accord.objectives import Loss, Objective, Sum, Term, objective
from accord.outputs import Outputs


@objective(outputs=["reward"], needs=["rank", "share"])
def all_pairs(
    out: Outputs, batch: Batch, *, label_smoothing: float = 0.0, centre: float = 0.0, ties: bool = False
) -> Loss:
    """Bradley-Terry over every comparison that a ranking of K answers holds, averaged within the ranking.

    Each answer is read once, and a ranking is one element of the batch whatever its K: -1/C sum log sigmoid(r_i - r_j)
    over its C comparisons (i better than j). Ouyang et al. 2022, eq. 1 (https://arxiv.org/abs/2203.02155). With `ties`
    two answers of one rank are a comparison too, with the soft label 1/2, and count as half right.
    """
    reward = out.reward  # [B]
    first, second, tied = comparisons(batch, ties)  # [C] each
    prob, share = torch.where(tied, 0.5, 1.0).to(reward), batch["share"][first]
    terms = _bradley_terry(
        reward[first], reward[second], prob, share, "group", label_smoothing=label_smoothing, centre=centre
    )
    return Loss(terms, _ranked(reward, batch, ties))


@objective(outputs=["reward"], needs=["prob", "weight", "margin"])
def bradley_terry(
    out: Outputs, batch: Batch, *, label_smoothing: float = 0.0, margin: bool = False, centre: float = 0.0
) -> Loss:
    """Negative log-likelihood of the preferences under P(chosen > rejected) = sigmoid(r_chosen - r_rejected).

    Soft labels (`prob`) weigh both directions. Bradley & Terry 1952; Christiano et al. 2017, eq. 1
    (https://arxiv.org/abs/1706.03741). With `margin` the better answer has to be better by the pair's margin m,
    -log sigmoid(r_chosen - r_rejected - m): Touvron et al. 2023, eq. 2 (https://arxiv.org/abs/2307.09288).
    """
    chosen, rejected = batch.pairs(out.reward)  # [P]
    prob, _ = batch.pairs(batch["prob"])
    weight, _ = batch.pairs(batch["weight"])
    least = batch.pairs(batch["margin"])[0] if margin else 0.0
    apart = chosen - rejected
    return Loss(
        _bradley_terry(
            chosen, rejected, prob, weight, "pair", label_smoothing=label_smoothing, margin=least, centre=centre
        ),
        {"accuracy": (right(apart).sum(), "pair"), "margin": (apart.sum(), "pair")},
    )


def _bradley_terry(
    chosen: Tensor, rejected: Tensor, prob: Tensor, weight: Tensor, unit: Unit, *,
    label_smoothing: float, margin: Tensor | float = 0.0, centre: float,
) -> dict[str, Term]:  # fmt: skip
    """The terms of C comparisons, all [C]: their negative log-likelihood and, with `centre`, (chosen + rejected)^2.

    `label_smoothing` is the share of labels taken to be the wrong way round (Mitchell 2023,
    https://ericmitchell.ai/cdpo.pdf); a label that is turned round turns its margin with it. The square keeps rewards
    near 0 (Eisenstein et al. 2023, eq. 2, https://arxiv.org/abs/2312.09244).
    """
    apart = chosen - rejected
    prob = (1 - 2 * label_smoothing) * prob + label_smoothing
    loss = -(prob * logsigmoid(apart - margin) + (1 - prob) * logsigmoid(-apart - margin)) * weight
    terms: dict[str, Term] = {"bradley_terry": (loss.sum(), unit, 1.0)}
    if centre:
        terms["centre"] = (((chosen + rejected).square() * weight).sum(), unit, centre)
    return terms


@objective(outputs=["reward"], needs=["rank", "share"])
def plackett_luce(out: Outputs, batch: Batch) -> Loss:
    """Negative log-likelihood of rankings as choices, best first, among the answers that are left; averaged within each.

    P(ranking) = product over i of exp(r_i) / sum over j no better than i of exp(r_j): Plackett 1975, Luce 1959. Answers
    of one rank are each chosen among all of them and what is worse, prod exp(r_i) / (sum exp r_j)^size: Breslow 1974.
    A ranking counts by its mean over the choices that leave something to choose from, so that rankings of any length
    weigh alike, a ranking of two is Bradley-Terry, and a tie of two Bradley-Terry with the soft label 1/2.
    """
    reward = out.reward  # [B]
    same = batch.group[:, None] == batch.group  # [B, B]
    left = same & (batch["rank"][:, None] <= batch["rank"])  # what each row was chosen among
    nll = torch.where(left, reward, -math.inf).logsumexp(1) - reward  # [B]
    choice = left.sum(1) > 1
    share = choice / (same & choice).sum(1).clamp(min=1)
    return Loss({"plackett_luce": ((nll * share).sum(), "group", 1.0)}, _ranked(reward, batch, ties=True))


@objective(outputs=["reward"], needs=["rank"])
def best_of_k(out: Outputs, batch: Batch) -> Loss:
    """Cross-entropy of the best answer among all of its ranking: -log exp(r_best) / sum over j of exp(r_j).

    Ziegler et al. 2019, eq. 1 (https://arxiv.org/abs/1909.08593). Several best answers share the label evenly.
    `accuracy` asks whether the best has the highest reward, `margin` is its distance to the highest of the others.
    """
    reward = out.reward  # [B]
    same = batch.group[:, None] == batch.group  # [B, B]
    best = batch["rank"] == torch.where(same, batch["rank"], math.inf).amin(1)
    share = best / (same & best).sum(1)
    nll = torch.where(same, reward, -math.inf).logsumexp(1) - reward
    top = reward == torch.where(same, reward, -math.inf).amax(1)
    hit = (best & top) / (same & top).sum(1)  # highest rewards that are equal share the guess
    ahead = reward - torch.where(same & ~best, reward, -math.inf).amax(1)
    return Loss(
        {"best_of_k": ((nll * share).sum(), "group", 1.0)},
        {"accuracy": (hit.sum(), "group"), "margin": ((ahead * share).sum(), "group")},
    )


@objective(outputs=["reward"], needs=["label"])
def regression(out: Outputs, batch: Batch) -> Loss:
    """Squared distance of the reward from the rating (`label`), averaged over answers; a yes is 1, a no 0."""
    error = out.reward - batch["label"]  # [B]
    return Loss({"squared_error": (error.square().sum(), "row", 1.0)}, {"error": (error.abs().sum(), "row")})


def comparisons(batch: Batch, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Every comparison within the rankings of a batch: better row, worse row, and whether they are tied, [C] each.

    Ties take part only where asked for.
    """
    rank = batch["rank"]
    same = batch.group[:, None] == batch.group  # [B, B]
    better = same & (rank[:, None] < rank)  # row over column
    if ties:
        better |= (same & (rank[:, None] == rank)).triu(1)
    first, second = better.nonzero(as_tuple=True)
    return first, second, rank[first] == rank[second]


def _ranked(reward: Tensor, batch: Batch, ties: bool) -> dict[str, Sum]:
    """Accuracy and margin over all comparisons, averaged within each ranking."""
    first, second, tied = comparisons(batch, ties)
    apart, share = torch.where(tied, 0.0, reward[first] - reward[second]), batch["share"][first]
    return {"accuracy": ((right(apart) * share).sum(), "group"), "margin": ((apart * share).sum(), "group")}


def right(apart: Tensor) -> Tensor:
    """1 where the better answer has the higher reward, 0 where the lower; a tie is half right."""
    return torch.where(apart == 0, 0.5, (apart > 0).float())


OBJECTIVES: dict[str, Objective] = {
    "bradley_terry": bradley_terry,
    "plackett_luce": plackett_luce,
    "best_of_k": best_of_k,
    "regression": regression,
}
