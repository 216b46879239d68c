"""TRL's RewardTrainer on the same model and rows: loss, gradient and metrics, with margins and centred rewards."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_llama
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from accord.data.batch import Batch, Row, collate
from accord.objectives.reward import bradley_terry
from accord.outputs import Outputs, Roles

module = pytest.importorskip("trl.trainer.reward_trainer", reason="trl is not installed")
MARGINS = [0.0, 1 / 3, 2 / 3, 1.0, 0.25]


def scorer() -> PreTrainedModel:
    """A tiny reward model whose weights are enlarged, so that attention looks at some tokens more than at others."""
    config = tiny_llama().config
    config.num_labels = 1
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5 if weight.dim() == 2 else 1)
    return model


def pairs() -> Batch:
    """Five pairs of ragged rows with margins."""
    draw = np.random.default_rng(0)
    lengths = [5, 9, 12, 3, 7, 7, 4, 12, 10, 2]
    rows = [
        Row(draw.integers(1, 320, n).tolist(), [False] * n, {"prob": 1.0, "weight": 1.0, "margin": MARGINS[i // 2]})
        for i, n in enumerate(lengths)
    ]
    return collate([rows[i : i + 2] for i in range(0, len(rows), 2)], 0)


@pytest.mark.parametrize(("margin", "centre"), [(False, 0.0), (True, 0.0), (False, 0.01), (True, 0.5)])
def test_trl_has_the_same_loss_and_gradient(margin: bool, centre: float) -> None:
    batch, model = pairs(), scorer()
    order = torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])  # TRL has the chosen rows first
    given = {"input_ids": batch.tokens[order], "attention_mask": batch.attend[order].long()}
    given |= {"margin": torch.tensor(MARGINS)} if margin else {}
    alone = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    metrics = {"eval": defaultdict(list)}
    args = SimpleNamespace(center_rewards_coefficient=centre or None)
    trainer = SimpleNamespace(model=model, accelerator=alone, args=args, _metrics=metrics, _total_train_tokens=0)
    # TRL hands all of its inputs to the model, which ignores a margin.
    theirs = module.RewardTrainer.compute_loss(trainer, lambda margin=None, **rest: model(**rest), given)

    loss = bradley_terry(Outputs(Roles(scorer=model)(batch, ["reward"])), batch, margin=margin, centre=centre)
    ours = torch.stack([weight * value / 5 for value, _, weight in loss.terms.values()]).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for name in ("accuracy", "margin"):
        assert loss.metrics[name][0].item() / 5 == pytest.approx(metrics["eval"][name][0], rel=1e-5)
    weights = list(model.parameters())
    for mine, expected in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights), strict=True):
        assert float((mine - expected).norm() / expected.norm()) < 1e-5
