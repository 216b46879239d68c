"""Rows that begin alike are read once, and nothing that is computed from them changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from accord import model as models
from accord.data.batch import Batch, Row, collate
from accord.data.shared import Shared, share
from accord.model import SHARING, Roles

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
         "intermediate_size": 48, "vocab_size": 97, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": None, "eos_token_id": 1}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 97, "pad_token_id": 0, "resid_pdrop": 0,
        "embd_pdrop": 0, "attn_pdrop": 0, "bos_token_id": None, "eos_token_id": 1}  # fmt: skip


def tiny(kind: str, attention: str, *, scorer: bool, **more: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(GPT2 if kind == "gpt2" else SIZES), **more, num_labels=1)
    made = AutoModelForSequenceClassification if scorer else AutoModelForCausalLM
    model: PreTrainedModel = made.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.dim() == 2 else 1)  # attention shall look at some tokens more than at others
    return model


def row(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    return Row([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


def rankings() -> list[list[Row]]:
    """Groups of unlike sizes; answers that begin alike, that are alike, and one that begins another."""
    dice = torch.Generator().manual_seed(3)

    def some(count: int) -> list[int]:
        return torch.randint(2, 97, (count,), generator=dice).tolist()

    one, two, three, answer = some(20), some(9), some(14), some(7)
    return [
        [row(one, some(n)) for n in (5, 11, 2, 8)],
        [row(two, answer), row(two, [*answer[:4], *some(3)]), row(two, answer), row(two, answer[:3])],
        [row(three, some(4)), row(three, some(6))],
        [row(some(6), some(6))],
    ]


def alone(batch: Batch) -> Batch:
    """The same rows, each a group of its own."""
    found = copy.deepcopy(batch)
    found.group = torch.arange(len(batch))
    return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Shared | None]:
    """What came of every attempt to share."""
    found: list[Shared | None] = []

    def spy(batch: Batch) -> Shared | None:
        found.append(share(batch))
        return found[-1]

    monkeypatch.setattr(models, "share", spy)
    return found


def outputs(model: PreTrainedModel, batch: Batch, *, scorer: bool) -> tuple[Tensor, list[Tensor]]:
    """Scores of the real tokens or log-probs, and the gradient of a sum of them with weights of its own."""
    roles = Roles(scorer=model) if scorer else Roles(policy=model)
    found = roles(batch, ("score",) if scorer else ("logp",))["score" if scorer else "logp"] * batch.attend
    weights = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad((found * weights).sum(), wanted, allow_unused=True)
    return found.detach(), [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("scorer", [True, False], ids=["scores", "logps"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", sorted(SHARING))
def test_sharing_changes_neither_values_nor_gradients(
    kind: str, attention: str, scorer: bool, seen: list[Shared | None]
) -> None:
    model, batch = tiny(kind, attention, scorer=scorer), collate(rankings(), 0)
    expected, plain = outputs(model, alone(batch), scorer=scorer)
    found, gradients = outputs(model, batch, scorer=scorer)
    assert [made is None for made in seen] == [True, False]
    assert float(expected.abs().max()) > 0.5
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-5)
    for ours, theirs in zip(gradients, plain, strict=True):
        assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_half_precision_stays_close(seen: list[Shared | None]) -> None:
    model, batch = tiny("llama", "sdpa", scorer=True), collate(rankings(), 0)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = outputs(model, alone(batch), scorer=True)
        found, _ = outputs(model, batch, scorer=True)
    assert seen[1] is not None
    assert float((found - expected).norm()) < 0.03 * float(expected.norm())


def test_the_picture_in_the_docs() -> None:
    shared = share(collate([[row([7, 8, 9], [2, 3]), row([7, 8, 9], [4, 5, 6])]], 0))
    assert shared is not None
    assert shared.tokens.tolist() == [[7, 8, 9, 2, 3, 4, 5, 6]]
    assert shared.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert shared.place.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 5, 6, 7]]
    assert shared.sees[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [1, 1, 1, 0, 0, 1, 1, 1],
    ]


def test_little_in_common_is_not_worth_it() -> None:
    assert share(collate([[row([7], [2, 3, 4, 5, 6, 7, 8, 9]), row([7], [3, 4, 5, 6, 7, 8, 9, 2])]], 0)) is None
    assert share(collate([[row([7, 8], [2])], [row([7, 8], [2])]], 0)) is None  # groups share nothing


@pytest.mark.parametrize(
    ("kind", "more"), [("mistral", {"sliding_window": 8}), ("gemma2", {"query_pre_attn_scalar": 8}), ("gpt_neox", {})]
)
def test_other_attention_reads_every_row(kind: str, more: dict[str, object], seen: list[Shared | None]) -> None:
    model, batch = tiny(kind, "eager", scorer=True, **more), collate(rankings(), 0)
    found, _ = outputs(model, batch, scorer=True)
    expected, _ = outputs(model, alone(batch), scorer=True)
    assert seen == []
    assert torch.equal(found, expected)
