"""Losses and gradients of TRL's trainers on the same model and rows: SFT, GRPO and RLOO; PPO where TRL still has it (1.12)."""

from __future__ import annotations

import copy
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_llama
from torch import Tensor
from transformers import PreTrainedModel

from accord.data.batch import Batch
from accord.objectives import Objective
from accord.objectives.likelihood import sft
from accord.objectives.policy import OBJECTIVES
from accord.outputs import Outputs, token_outputs

pytest.importorskip("trl", reason="trl is not installed")
PROMPT, ANSWER = 4, 6
LENGTHS = (6, 3, 5, 4)  # of the answers, padded on the right; prompts are alike long


def rows() -> tuple[Tensor, Tensor]:
    """Tokens and answer mask, [4, 10]; 0 is padding."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 320, (len(LENGTHS), PROMPT + ANSWER), generator=draw)
    answer = torch.arange(PROMPT + ANSWER) < PROMPT + torch.tensor(LENGTHS)[:, None]
    return tokens * answer, answer & (torch.arange(PROMPT + ANSWER) >= PROMPT)


def columns(train: Tensor) -> dict[str, Tensor]:
    """Log-probs near those of a random model, and an advantage for each answer; [4, 10]."""
    draw = torch.Generator().manual_seed(1)
    logp = -5.77 + 0.3 * torch.randn(2, *train.shape, generator=draw)
    advantage = torch.randn(len(train), 1, generator=draw) * train
    return {"old_logp": logp[0] * train, "ref_logp": logp[1] * train, "advantage": advantage}


def trainer(fused: PreTrainedModel, **settings: object) -> SimpleNamespace:
    """What TRL's losses read of their trainer, for one process in evaluation."""

    def reduce(values: Tensor, **_: object) -> Tensor:
        return values

    alone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=reduce,
        autocast=lambda: torch.autocast("cpu", enabled=False), num_processes=1, parallelism_config=None,
        is_main_process=False,
    )  # fmt: skip
    return SimpleNamespace(
        model=fused, accelerator=alone, _metrics={"eval": defaultdict(list)}, aux_loss_enabled=False,
        use_vllm=False, **settings,
    )  # fmt: skip


def with_fused_head(model: PreTrainedModel, module: object) -> PreTrainedModel:
    fused = copy.deepcopy(model)
    module.add_fused_lm_head(fused, outputs=("log_probs", "entropy", "mean_logits", "is_top1", "label_mask"))
    return fused


def ours(objective: Objective, model: PreTrainedModel, params: dict[str, object]) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients by accord."""
    tokens, train = rows()
    attend = tokens != 0
    batch = Batch(tokens, attend, train, torch.arange(len(tokens)), columns(train))
    loss = objective(Outputs(token_outputs(model, batch)), batch, **params)
    counts = batch.counts()
    total = torch.stack([weight * value / counts[unit] for value, unit, weight in loss.terms.values()]).sum()
    return total, list(torch.autograd.grad(total, list(model.parameters())))


def alike(mine: tuple[Tensor, list[Tensor]], theirs: Tensor, model: PreTrainedModel) -> None:
    """Loss and every gradient within 1e-5."""
    assert mine[0].item() == pytest.approx(theirs.item(), rel=1e-5)
    expected = torch.autograd.grad(theirs, list(model.parameters()))
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(mine[1], expected, strict=True)) < 1e-5


def given() -> dict[str, Tensor]:
    """The rows as TRL's policy trainers take them."""
    tokens, train = rows()
    found = columns(train)
    return {
        "prompt_ids": tokens[:, :PROMPT], "prompt_mask": torch.ones(len(tokens), PROMPT, dtype=torch.long),
        "completion_ids": tokens[:, PROMPT:], "completion_mask": train[:, PROMPT:].long(),
        "advantages": found["advantage"][:, PROMPT], "old_per_token_logps": found["old_logp"][:, PROMPT:],
        "ref_per_token_logps": found["ref_logp"][:, PROMPT:], "old_logps": found["old_logp"].sum(1),
        "num_items_in_batch": train.sum(),
    }  # fmt: skip


@pytest.mark.parametrize("length", ["answer", "token", "constant"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_trl_has_the_same_grpo(length: str, kl: float) -> None:
    module = pytest.importorskip("trl.trainer.grpo_trainer")
    model = tiny_llama()
    fused = with_fused_head(model, module)
    names = {"answer": "grpo", "token": "dapo", "constant": "dr_grpo"}
    theirs = trainer(
        fused, beta=kl, loss_type=names[length], epsilon_low=0.2, epsilon_high=0.2, importance_sampling_level="token",
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, max_completion_length=8, _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, report_to=[]),
    )  # fmt: skip
    theirs._get_per_token_logps_and_entropies = lambda *args, **named: (
        module.GRPOTrainer._get_per_token_logps_and_entropies(theirs, *args, **named)
    )
    loss = module.GRPOTrainer._compute_loss(theirs, fused, given())
    params = {"length": length, "max_new_tokens": 8, "kl": kl, "kl_estimator": "k3"}
    alike(ours(OBJECTIVES["grpo"], model, params), loss, fused)


def test_trl_has_the_same_rloo() -> None:
    module = pytest.importorskip("trl.trainer.rloo_trainer")
    model = tiny_llama()
    fused = with_fused_head(model, module)
    theirs = trainer(fused, epsilon_low=0.2, epsilon_high=0.2, args=SimpleNamespace(report_to=[]))
    theirs._get_per_token_logps_and_entropies = lambda *args, **named: (
        module.RLOOTrainer._get_per_token_logps_and_entropies(theirs, *args, **named)
    )
    loss = module.RLOOTrainer._compute_loss(theirs, fused, given())
    alike(ours(OBJECTIVES["rloo"], model, {}), loss, fused)


def test_trl_has_the_same_sft() -> None:
    module = pytest.importorskip("trl.trainer.sft_trainer")
    model = tiny_llama()
    fused = with_fused_head(model, module)
    tokens, train = rows()
    theirs = trainer(
        fused,
        compute_loss_func=None,
        label_smoother=None,
        args=SimpleNamespace(loss_type="nll", average_tokens_across_devices=False),
        _total_train_tokens=0,
    )
    labels = tokens.masked_fill(~train, -100)
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 0).long(), "labels": labels}
    loss = module.SFTTrainer.compute_loss(theirs, fused, inputs)
    alike(ours(sft, model, {}), loss, fused)
