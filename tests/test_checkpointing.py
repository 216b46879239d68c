"""Layers that are computed again in the backward pass: less is kept, and the gradient is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_lora import FORM, folder_of, shake
from test_packed import rankings, tiny
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from accord.attention import NAME
from accord.data.batch import Batch, collate
from accord.data.tokenizer import load_tokenizer
from accord.model import checkpoint_layers, load_policy, scorer_beside
from accord.outputs import Roles


def gradients(roles: Roles, batch: Batch) -> tuple[list[Tensor], int]:
    """Of a weighted sum of log-probs and scores; and how many numbers were kept for them."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        found = roles(batch, ("logp", "score") if roles.scorer else ("logp",))
        total = sum((x * batch.attend * torch.linspace(-1, 1, x.shape[1])).sum() for x in found.values())
    wanted = [weight for weight in roles.parameters() if weight.requires_grad]
    return list(torch.autograd.grad(total, wanted)), sum(kept.values())


@pytest.mark.parametrize("attention", [NAME, "sdpa"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_less_is_kept_and_the_gradient_stays(kind: str, attention: str) -> None:
    batch, model = collate(rankings(), 0), tiny(kind, attention, scorer=False)
    expected, before = gradients(Roles(policy=model), batch)
    checkpoint_layers(model)
    found, after = gradients(Roles(policy=model), batch)
    assert after < 0.5 * before
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_layer_runs_again_with_the_adapter_it_had(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    base = folder_of("llama", tmp_path, tokenizer)
    own = load_tokenizer(base, "test")
    policy = load_policy(base, own, "test", train=FORM)
    critic = scorer_beside(policy, base, own, "test", train=FORM)
    for model in (policy, critic):
        shake(model)
    roles, batch = Roles(policy=policy, scorer=critic), collate(rankings(), 0)
    expected, before = gradients(roles, batch)
    for model in (policy, critic):
        checkpoint_layers(model)
    found, after = gradients(roles, batch)
    assert after < 0.7 * before
    assert len(found) == len(expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
