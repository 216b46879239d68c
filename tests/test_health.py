"""What must not be learned from: numbers that are not finite, spikes; and what memory does not hold."""

from __future__ import annotations

import random
import weakref
from pathlib import Path
from typing import cast

import pytest
import torch
from conftest import tiny_llama
from torch import Tensor

from accord.data.batch import Batch, Row, collate
from accord.engine import Engine, Learner
from accord.errors import EngineError
from accord.health import NotFinite, Spikes, enough_memory
from accord.objectives import Loss, objective
from accord.objectives.likelihood import sft
from accord.outputs import Outputs, Roles
from accord.recipe import Optim, Table
from accord.recipe_file import parse
from accord.run import read_json
from accord.stages import run as run_recipe

ROWS = [[Row([5, 9, 30, 12, 77, 8], [False] + [True] * 5)], [Row([9, 14, 3], [False, True, True])]]


def noise(seed: int = 0) -> list[float]:
    dice = random.Random(seed)
    return [1 + dice.gauss(0, 0.1) for _ in range(200)]


def test_ordinary_updates_are_not_left_out():
    spikes = Spikes(6)
    assert not any(spikes.skips(loss, norm) for loss, norm in zip(noise(), noise(1), strict=True))
    assert not any(Spikes(0).skips(value, value) for value in [*noise(), 1e9])


@pytest.mark.parametrize(("loss", "norm"), [(2.0, 1.0), (1.0, 2.0)])
def test_a_spike_of_the_loss_or_of_the_gradient_is_left_out(loss: float, norm: float):
    spikes = Spikes(6)
    for values in zip(noise(), noise(1), strict=True):
        spikes.skips(*values)
    assert spikes.skips(loss, norm)
    assert not spikes.skips(1.0, 1.0)


def test_the_first_updates_have_nothing_to_be_compared_with():
    spikes = Spikes(6)
    assert not any(spikes.skips(value, 1.0) for value in [1.0, 1.0, 100.0])


def test_a_level_that_has_changed_for_good_is_taken_for_what_it_is():
    spikes = Spikes(3)
    for value in noise():
        spikes.skips(value, 1.0)
    left_out = [spikes.skips(value + 2, 1.0) for value in noise(2)]
    assert left_out[0]
    assert not any(left_out[20:])


def learner(engine: Engine, **optim: object) -> Learner:
    return engine.learner(Roles(policy=tiny_llama()), Optim.model_validate({"lr": 1e-2, "name": "sgd", **optim}))


def weights(of: Learner) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in of.roles.parameters()])


def test_a_new_learner_lets_go_of_the_one_before(engine: Engine):
    before = learner(engine)
    seen = weakref.ref(before.roles)
    del before
    learner(engine)
    assert seen() is None


def test_a_step_that_is_left_out_moves_nothing_and_is_counted(engine: Engine):
    batch, it = collate(ROWS, 0), learner(engine, skip=6)
    numbers = engine.update(it, batch, sft, {})
    assert numbers["skipped"] == 0
    it.spikes.seen = [(numbers["loss"] / 100, numbers["grad_norm"])] * 64
    before = weights(it)
    assert engine.update(it, batch, sft, {})["skipped"] == 1
    assert torch.equal(weights(it), before)
    assert "skipped" not in engine.update(learner(engine), batch, sft, {})


@objective(outputs=["logp"])
def steep(out: Outputs, batch: Batch) -> Loss:
    """A finite loss with an infinite gradient."""
    return Loss({"loss": ((out.logp[batch.train] * 0).sqrt().sum(), "token", 1.0)})


@objective(outputs=["logp"])
def greedy(out: Outputs, batch: Batch) -> Loss:
    """Asks for more memory than there is."""
    return Loss({"loss": (out.logp.sum() + torch.empty(10**15)[0], "token", 1.0)})


def test_a_gradient_that_is_not_finite_is_no_step(engine: Engine):
    it = learner(engine)
    before = weights(it)
    with pytest.raises(NotFinite, match=r"update: the loss is -?0, the norm of its gradient nan; lower lr"):
        engine.update(it, collate(ROWS, 0), steep, {})
    assert torch.equal(weights(it), before)


def test_a_lack_of_memory_says_what_to_change(engine: Engine):
    with pytest.raises(
        EngineError, match=r"not enough for optim.micro_tokens = 4,096 .*; try optim.micro_tokens = 2048"
    ):
        engine.update(learner(engine), collate(ROWS, 0), greedy, {})


OBJECTIVE = """
from accord.objectives import Loss, objective

@objective(outputs=["logp"])
def breaks(out, batch):
    bad = 255 in batch.tokens  # one pair of all is poison
    return Loss({"loss": (out.logp.sum() * (float("nan") if bad else 1.0), "pair", 1.0)})
"""


def test_a_batch_whose_loss_is_not_finite_is_kept(base: Path, tmp_path: Path):
    (tmp_path / "mine.py").write_text(OBJECTIVE.replace("255 in batch.tokens", "batch.extra['weight'].max() > 5"))
    rows = [
        f'{{"prompt": "the cat {i}", "chosen": "sat", "rejected": "no", "weight": {9 if i == 7 else 1}}}'
        for i in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    stage = {"kind": "preference", "model": str(base), "data": str(tmp_path / "pairs.jsonl"),
             "objective": f"{tmp_path}/mine.py:breaks", "optim": {"batch_size": 2, "steps": 6}}  # fmt: skip
    table = cast(Table, {"name": "x", "compute": {"device": "cpu", "precision": "float32"}, "stage": {"dpo": stage}})
    with pytest.raises(NotFinite, match=r"stage.dpo: the loss is nan, .*; the batch is in .*not-finite.pt"):
        run_recipe(parse(table), tmp_path / "run")
    kept = torch.load(tmp_path / "run/dpo/not-finite.pt", weights_only=False)
    assert float(kept["batch"]["extra"]["weight"].max()) == 9
    assert kept["batch"]["tokens"].shape[0] == 4
    assert read_json(tmp_path / "run/run.json")["status"] == "failed"


def test_other_errors_than_a_lack_of_memory_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), enough_memory("optim.micro_tokens", 2):
        raise RuntimeError("shapes differ")
