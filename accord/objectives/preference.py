"""The DPO family: preferences without a reward model."""

import torch
from torch.nn.functional import logsigmoid

from accord.data.batch import Batch
from accord.model import Outputs
from accord.objectives import Loss, Objective, Term, objective


@objective(outputs=["logp"], needs=["ref_logp", "prob", "weight"])
def dpo(out: Outputs, batch: Batch, *, beta: float = 0.1, sft: float = 0.0) -> Loss:
    """Direct preference optimisation: the implicit reward is beta * log(pi / pi_ref) of the whole answer.

    Rafailov et al. 2023, eq. 7 (https://arxiv.org/abs/2305.18290); soft labels (`prob`) weigh both directions. `sft` adds the
    chosen answer's mean loss per token, which keeps its probability from falling with the rejected one's (Pang et al.
    2024, eq. 2, https://arxiv.org/abs/2404.19733).
    `ref_logp` is [B, T]: subtracted token by token, since the difference of two long sums loses digits in float32.
    `chosen_logp` and `rejected_logp` are sums over the answer's tokens, in nats.
    """
    gained, lost = batch.pairs((out.logp - batch["ref_logp"]).sum(1))  # [P], log(pi / pi_ref) of chosen and rejected
    chosen, rejected = batch.pairs(out.logp.detach().sum(1))
    prob, _ = batch.pairs(batch["prob"])
    weight, _ = batch.pairs(batch["weight"])
    margin = beta * (gained - lost)
    loss = -(prob * logsigmoid(margin) + (1 - prob) * logsigmoid(-margin)) * weight
    right = torch.where(margin == 0, 0.5, (margin > 0).float())  # a tie is half right
    length, _ = batch.pairs(batch.train.sum(1))
    nll = -batch.pairs(out.logp.sum(1))[0] / length * weight
    extra: dict[str, Term] = {"sft": (nll.sum(), "pair", sft)} if sft else {}
    return Loss(
        {"dpo": (loss.sum(), "pair", 1.0), **extra},
        {
            "accuracy": (right.sum(), "pair"),
            "margin": (margin.sum(), "pair"),
            "chosen_logp": (chosen.sum(), "pair"),
            "rejected_logp": (rejected.sum(), "pair"),
        },
    )


OBJECTIVES: dict[str, Objective] = {"dpo": dpo}
