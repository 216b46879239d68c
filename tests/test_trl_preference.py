"""The DPO family against TRL: the same loss and the same gradient on the same model and rows."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch
from test_objectives import CONFIGS, pair_batch, policy_of, ragged, sums_of
from torch import Tensor
from transformers import PreTrainedModel

from accord.data.batch import Batch, Row, collate
from accord.engine import Engine
from accord.objectives import Loss
from accord.objectives.preference import OBJECTIVES
from accord.outputs import Outputs, Roles, token_outputs
from accord.stages.preference import with_baseline

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

ORDER = torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])  # TRL has the chosen rows first


def trainer(model: PreTrainedModel, **settings: object) -> SimpleNamespace:
    """What TRL's loss reads of its trainer, for one process in evaluation."""
    alone = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    metrics = {"eval": defaultdict(list)}
    return SimpleNamespace(model=model, accelerator=alone, _metrics=metrics, _total_train_tokens=0, **settings)


def model() -> PreTrainedModel:
    return policy_of(CONFIGS["llama"])


def fused(own: PreTrainedModel) -> PreTrainedModel:
    """A copy whose head computes log-probs as TRL's trainers have it."""
    module = pytest.importorskip("trl.trainer.dpo_trainer", reason="trl is not installed")
    other = copy.deepcopy(own)
    module.add_fused_lm_head(other, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    return other


def ours(own: PreTrainedModel, batch: Batch, name: str, **params: object) -> tuple[Loss, Tensor]:
    """The loss by its parts, and as the mean over rows or pairs."""
    loss = OBJECTIVES[name](Outputs({"logp": token_outputs(own, batch)["logp"]}), batch, **params)
    counts = batch.counts()
    return loss, torch.stack([weight * value / counts[unit] for value, unit, weight in loss.terms.values()]).sum()


def assert_same(own: PreTrainedModel, loss: Tensor, other: PreTrainedModel, theirs: Tensor) -> None:
    """Loss and gradient of every weight within 1e-5."""
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    mine, expected = (torch.autograd.grad(x, y.parameters()) for x, y in ((loss, own), (theirs, other)))
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(mine, expected, strict=True)) < 1e-5


def level() -> Batch:
    """Chosen answers of one length: a mean over the tokens of all of them, which TRL takes, is then one over pairs."""
    rows = ragged([9, 5, 9, 12, 9, 3, 9, 7, 9, 10])
    for i, row in enumerate(rows):
        row.train = [t > 0 for t in range(len(row))]  # ORPO's loss of the chosen answer is over its prompt too
        row.extra = {"prob": 1.0, "weight": 1.0, "ref_logp": [0.0] + [-0.1 * i] * (len(row) - 1)}
    return collate([rows[i : i + 2] for i in range(0, 10, 2)], 0)


# ----------------------------------------------------------------------------------------------------------------- dpo

LOSSES = [
    ("dpo", {}, ["sigmoid"], [1.0]),
    ("dpo", {"average": True}, ["sigmoid_norm"], [1.0]),
    ("dpo", {"sft": 0.3}, ["sigmoid", "sft"], [1.0, 0.3]),
    ("hinge", {}, ["hinge"], [1.0]),
    ("ipo", {"average": True}, ["ipo"], [1.0]),
    ("robust", {"label_smoothing": 0.2}, ["robust"], [1.0]),
]


@pytest.mark.parametrize(
    ("name", "params", "types", "weights"), LOSSES, ids=[" + ".join(types) for *_, types, _ in LOSSES]
)
def test_trl_has_the_same_losses_with_a_reference(
    name: str, params: dict[str, object], types: list[str], weights: list[float]
) -> None:
    module = pytest.importorskip("trl.trainer.dpo_trainer", reason="trl is not installed")
    batch = level() if "sft" in types else pair_batch([1.0] * 5, [1.0] * 5)
    given = {"input_ids": batch.tokens[ORDER], "attention_mask": batch.attend[ORDER].long()}
    given |= {"completion_mask": batch.train[ORDER].long()}
    given |= {"ref_chosen_logps": batch["ref_logp"][0::2].sum(1), "ref_rejected_logps": batch["ref_logp"][1::2].sum(1)}
    own = model()
    other = fused(own)
    theirs = trainer(
        other, beta=0.2, loss_types=types, loss_weights=weights, f_divergence_type="reverse_kl", label_smoothing=0.2,
        precompute_ref_logps=True, aux_loss_enabled=False, use_weighting=False, ld_alpha=None,
    )  # fmt: skip
    expected = module.DPOTrainer._compute_loss(theirs, other, given, False)
    loss, mean = ours(own, batch, name, beta=0.2, **params)
    sums = sums_of(loss, "pair")
    logged = {"chosen_logp": "logps/chosen", "rejected_logp": "logps/rejected"}
    if "average" not in params:  # where TRL still logs rewards of whole answers
        logged |= {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}
    for metric, key in logged.items():
        assert sums[metric] / 5 == pytest.approx(theirs._metrics["eval"][key][0], rel=1e-5)
    assert_same(own, mean, other, expected)


# ------------------------------------------------------------------------------------------------- cpo, simpo and orpo


def halves(batch: Batch) -> dict[str, Tensor]:
    """The rows as TRL's trainers of pairs without a reference take them."""
    found: dict[str, Tensor] = {}
    for name, start in (("chosen", 0), ("rejected", 1)):
        tokens, train = batch.tokens[start::2], batch.train[start::2]
        found[f"{name}_input_ids"] = tokens
        found[f"{name}_attention_mask"] = batch.attend[start::2].long()
        found[f"{name}_labels"] = tokens.masked_fill(~train, -100)
    return found


def bare(module: str, name: str, **settings: object) -> object:
    """A trainer with nothing but what its loss reads."""
    kind = getattr(pytest.importorskip(module, reason="trl is not installed"), name)
    made = object.__new__(kind)
    alone = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda values: values)
    common = {"accelerator": alone, "is_encoder_decoder": False, "aux_loss_enabled": False}
    for key, value in (common | settings).items():
        setattr(made, key, value)
    return made


def cpo(**settings: object) -> object:
    return bare("trl.experimental.cpo.cpo_trainer", "CPOTrainer", pad_token_id=0, alpha=0.0, cpo_alpha=0.0, **settings)


def test_trl_has_the_same_conservative_loss() -> None:
    """TRL has label smoothing without a reference only."""
    batch = pair_batch([1.0] * 5, [1.0] * 5)
    own = model()
    other = copy.deepcopy(own)
    theirs = cpo(beta=0.2, label_smoothing=0.15, loss_type="sigmoid")
    expected, _ = theirs.get_batch_loss_metrics(other, halves(batch), "eval")
    _, mean = ours(own, batch, "cdpo", beta=0.2, label_smoothing=0.15, reference_free=True)
    assert_same(own, mean, other, expected)


def test_trl_has_the_same_simpo_loss() -> None:
    batch = pair_batch([1.0] * 5, [1.0] * 5)
    own = model()
    other = copy.deepcopy(own)
    theirs = cpo(beta=2.5, label_smoothing=0.0, loss_type="simpo", simpo_gamma=0.7)
    expected, metrics = theirs.get_batch_loss_metrics(other, halves(batch), "eval")
    loss, mean = ours(own, batch, "simpo", beta=2.5, gamma=0.7)
    sums = sums_of(loss, "pair")
    assert sums["margin"] / 5 == pytest.approx(metrics["eval_rewards/margins"], rel=1e-5)
    assert sums["accuracy"] / 5 == pytest.approx(metrics["eval_rewards/accuracies"], rel=1e-5)
    assert_same(own, mean, other, expected)


def test_trl_has_the_same_orpo_loss() -> None:
    batch = level()
    own = model()
    other = copy.deepcopy(own)
    theirs = bare("trl.experimental.orpo.orpo_trainer", "ORPOTrainer", beta=0.4, padding_value=0)
    expected, metrics = theirs.get_batch_loss_metrics(other, halves(batch), "eval")
    loss, mean = ours(own, batch, "orpo", lam=0.4)
    sums = sums_of(loss, "pair")
    assert sums["sft"] / 5 == pytest.approx(metrics["eval_nll_loss"], rel=1e-5)
    assert sums["odds_ratio"] / 5 == pytest.approx(-metrics["eval_log_odds_ratio"], rel=1e-5)
    assert sums["margin"] / 5 == pytest.approx(metrics["eval_log_odds_chosen"], rel=1e-5)
    assert_same(own, mean, other, expected)


# ----------------------------------------------------------------------------------------------------------------- kto


def padded(rows: Iterable[Row], prefix: str) -> dict[str, Tensor]:
    batch = collate([[row] for row in rows], 0)
    masks = {"attention_mask": batch.attend.long(), "completion_mask": batch.train.long()}
    named = {f"{prefix}{name}": values for name, values in ({"input_ids": batch.tokens} | masks).items()}
    return named | {f"ref_{prefix}logps": batch["ref_logp"].sum(1)}


def test_trl_has_the_same_kto_loss(engine: Engine) -> None:
    module = pytest.importorskip("trl.trainer.kto_trainer", reason="trl is not installed")
    rows, others = ragged([9, 5, 12, 3, 7, 7]), ragged([8, 6, 12, 4, 5, 10], seed=1)
    labels = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    for i, (row, label) in enumerate(zip([*rows, *others], [*labels, *labels], strict=True)):
        row.extra = {"label": label, "ref_logp": [(-6.0 - 0.3 * i) * train for train in row.train]}
    given = padded(rows, "") | padded(others, "KL_") | {"label": torch.tensor(labels).bool()}
    own = model()
    other = fused(own)
    theirs = trainer(
        other, beta=0.2, loss_type="kto", calculate_KL=True, desirable_weight=1.5, undesirable_weight=0.8,
        precompute_ref_logps=True, aux_loss_enabled=False, _tp_size=1,
    )  # fmt: skip
    theirs._compute_kl_logps = lambda model, batch: module.KTOTrainer._compute_kl_logps(theirs, model, batch)
    expected = module.KTOTrainer._compute_loss(theirs, other, given, False)

    whole = collate([list(pair) for pair in zip(rows, others, strict=True)], 0)
    (batch,) = with_baseline(engine, Roles(policy=own), [whole], micro_tokens=20)
    loss, mean = ours(own, batch, "kto", beta=0.2, desirable=1.5, undesirable=0.8)
    sums = sums_of(loss, "row")
    assert sums["baseline"] / 6 > 1
    for metric, key in (
        ("baseline", "kl"), ("margin", "rewards/margins"), ("chosen_logp", "logps/chosen"), ("rejected_logp", "logps/rejected")
    ):  # fmt: skip
        assert sums[metric] / 6 == pytest.approx(theirs._metrics["eval"][key][0], rel=1e-5)
    assert_same(own, mean, other, expected)
