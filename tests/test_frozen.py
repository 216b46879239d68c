"""Frozen models take less memory in bfloat16, and say the same to the bit."""

from __future__ import annotations

import copy
import gc
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from test_packed import NAME, rankings, tiny
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from accord import lora
from accord.attention import KNOWN
from accord.data.batch import collate
from accord.engine import Engine
from accord.model import load_policy
from accord.outputs import Output, Roles
from accord.recipe import Compute, Lora


def size(model: PreTrainedModel) -> int:
    """Bytes of its weights, each once."""
    return sum(weight.nbytes for weight in model.parameters())


@pytest.mark.parametrize("scorer", [False, True], ids=["policy", "reward model"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_an_inner_model_says_the_same_to_the_bit(kind: str, tied: bool, scorer: bool) -> None:
    engine = Engine(Compute(device="cpu", precision="bfloat16", threads=1))
    model = tiny(kind, NAME, scorer=scorer, tie_word_embeddings=tied)
    batch = collate(rankings(), 0)
    names: list[Output] = ["reward"] if scorer else ["logp"]

    def said(of: PreTrainedModel) -> torch.Tensor:
        roles = Roles(scorer=of) if scorer else Roles(policy=of)
        out = engine.outputs(roles, batch, names, micro_tokens=4096)
        return out.reward if scorer else out.logp

    plain, inner = engine.place(copy.deepcopy(model)), engine.place(copy.deepcopy(model), inner=True)
    assert torch.equal(said(inner), said(plain))
    kept = sum(weight.nbytes for name, weight in plain.named_parameters() if "norm" in name or "ln_" in name or "embed" in
               name or "wte" in name or "wpe" in name or weight.dim() == 1)  # fmt: skip
    assert size(inner) == kept + (size(plain) - kept) // 2


@pytest.mark.parametrize(("precision", "inner"), [("float32", True), ("bfloat16", False)])
def test_others_keep_their_weights(precision: Literal["float32", "bfloat16"], inner: bool) -> None:
    """Of a float32 run, and a model that is written or sampled from, all of them are whole."""
    engine = Engine(Compute(device="cpu", precision=precision, threads=1))
    model = engine.place(tiny("llama", NAME, scorer=False), inner=inner)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_a_trunk_that_others_learn_on_stays_as_it_is() -> None:
    engine = Engine(Compute(device="cpu", precision="bfloat16", threads=1))
    policy = tiny("llama", NAME, scorer=False)
    lora.attach(policy, "trained", lora.new(policy, Lora()))
    engine.place(lora.view(policy, ""), inner=True)
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}


@pytest.mark.skipif(sys.platform != "linux", reason="reads what the process has mapped from /proc")
def test_an_inner_model_lets_go_of_its_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights are mapped from their file at first, which stays in memory as long as one of them is read from there."""

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    tiny("llama", NAME, scorer=False).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_policy(tmp_path, tokenizer, "test")
    assert mapped()
    Engine(Compute(device="cpu", precision="bfloat16", threads=1)).place(model, inner=True)
    gc.collect()
    assert not mapped()
