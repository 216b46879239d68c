"""Losses of reward models."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from accord.data.batch import Batch
from accord.model import Outputs
from accord.objectives import Loss, objective


def reward_of(score: Tensor, batch: Batch) -> Tensor:
    """The reward of each row, [B]: the score, [B, T], at its last real token."""
    return score.gather(1, batch.last()[:, None])[:, 0]


@objective(outputs=["score"], needs=["rank", "share"])
def all_pairs(out: Outputs, batch: Batch) -> Loss:
    """Bradley-Terry over every comparison that a ranking of K answers holds, averaged within the ranking.

    Each answer is read once, and a ranking is one element of the batch whatever its K: -1/C sum log sigmoid(r_i - r_j)
    over its C comparisons (i better than j). Ouyang et al. 2022, eq. 1 (https://arxiv.org/abs/2203.02155).
    """
    reward = reward_of(out.score, batch)  # [B]
    better = (batch.group[:, None] == batch.group) & (batch["rank"][:, None] < batch["rank"])  # [B, B], row over column
    first, second = better.nonzero(as_tuple=True)  # [C] each
    margin, share = reward[first] - reward[second], batch["share"][first]
    right = torch.where(margin == 0, 0.5, (margin > 0).float())
    return Loss(
        {"bradley_terry": (-(logsigmoid(margin) * share).sum(), "group", 1.0)},
        {"accuracy": ((right * share).sum(), "group"), "margin": ((margin * share).sum(), "group")},
    )


@objective(outputs=["score"], needs=["prob", "weight"])
def bradley_terry(out: Outputs, batch: Batch) -> Loss:
    """Negative log-likelihood of the preferences under P(chosen > rejected) = sigmoid(r_chosen - r_rejected).

    Soft labels (`prob`) weigh both directions. Bradley & Terry 1952; Christiano et al. 2017, eq. 1
    (https://arxiv.org/abs/1706.03741).
    """
    chosen, rejected = batch.pairs(reward_of(out.score, batch))  # [P]
    prob, _ = batch.pairs(batch["prob"])
    weight, _ = batch.pairs(batch["weight"])
    margin = chosen - rejected
    loss = -(prob * logsigmoid(margin) + (1 - prob) * logsigmoid(-margin)) * weight
    right = torch.where(margin == 0, 0.5, (margin > 0).float())  # a tie is half right
    return Loss(
        {"bradley_terry": (loss.sum(), "pair", 1.0)},
        {"accuracy": (right.sum(), "pair"), "margin": (margin.sum(), "pair")},
    )
