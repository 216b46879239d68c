"""Padding is not read, beginnings that rows share are read once, and nothing that is computed changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from accord import attention, last_layer
from accord.attention import KNOWN, NAME
from accord.data.batch import Batch, Row, collate, minibatches
from accord.data.packed import pack
from accord.model import _attention
from accord.objectives.likelihood import sft
from accord.outputs import Output, Outputs, Roles, scorer_outputs, token_kl, token_outputs
from accord.sampler import Rollout, as_batch

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


POLICY: tuple[Output, ...] = ("logp", "entropy", "entropy_grad")
SCORER: tuple[Output, ...] = ("score", "feature")


def outputs(model: PreTrainedModel, batch: Batch, names: Sequence[Output]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, scores of the real tokens alone, and the gradient of a weighted sum of them."""
    roles = Roles(policy=model) if "logp" in names else Roles(scorer=model)
    batch.extra["valued"] = batch.train.float()
    found = [x * batch.attend if x.shape == batch.attend.shape else x for x in roles(batch, names).values()]
    total = torch.stack([(x * torch.linspace(-1, 1, x.numel()).reshape(x.shape)).sum() for x in found]).sum()
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return [x.detach() for x in found], [gradient for gradient in gradients if gradient is not None]


def left_padded() -> Batch:
    """Rows with padding on either side."""
    batch = collate([[each] for group in rankings() for each in group], 0)
    rolled = [batch.tokens, batch.attend, batch.train]
    for i, shift in enumerate((3, 0, 5, 1)):
        for x in rolled:
            x[i] = x[i].roll(shift)
    return Batch(*rolled, group=torch.arange(len(batch)))


@pytest.mark.parametrize("batch", [collate(rankings(), 0), left_padded()], ids=["groups", "padding on the left"])
@pytest.mark.parametrize(
    "names", [POLICY, SCORER, ("reward", "feature"), ("value", "reward"), ("value",)], ids="-".join
)
@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_values_and_gradients_are_those_of_plain_transformers(
    kind: str, names: tuple[Output, ...], batch: Batch
) -> None:
    batch.temperature = 0.7
    scorer = names != POLICY
    expected, plain = outputs(tiny(kind, "eager", scorer=scorer), batch, names)
    found, gradients = outputs(tiny(kind, NAME, scorer=scorer), batch, names)
    assert float(expected[0].abs().max()) > 0.5
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5, rtol=1e-5)
    for ours, theirs in zip(gradients, plain, strict=True):
        assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


@pytest.mark.parametrize(("name", "reads"), [("reward", 3), ("value", 12), ("logp", 12), ("score", 30)])
@pytest.mark.parametrize(("kind", "size"), [("llama", 32 * 32 + 3 * 32 * 48), ("gpt2", 32 * 32 + 8 * 32 * 32)])
def test_the_last_layer_is_computed_where_it_is_read(
    kind: str, size: int, name: Output, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 tokens so many go through what stands behind its attention: `size` weights."""
    batch = collate([[row(range(2, 8), range(k, k + 4))] for k in (20, 30, 40)], 0)
    batch.extra["valued"] = batch.train.float()
    model = tiny(kind, NAME, scorer=name != "logp")
    roles = Roles(policy=model) if name == "logp" else Roles(scorer=model)
    counts: list[int] = []
    for worth in (0.0, last_layer.WORTH):
        monkeypatch.setattr(last_layer, "WORTH", worth)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            roles(batch, [name])
        counts.append(counter.get_total_flops())
    assert counts[0] - counts[1] == 2 * (30 - reads) * size


@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_of_queries_and_the_fused_kernel_agree(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate(rankings(), 0)
    monkeypatch.setattr(attention, "LONGEST", 0)
    expected, plain = outputs(tiny("llama", NAME, scorer=False), batch, POLICY)
    monkeypatch.setattr(attention, "LONGEST", 64)
    monkeypatch.setattr(attention, "BLOCK", block)
    found, gradients = outputs(tiny("llama", NAME, scorer=False), batch, POLICY)
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    for ours, theirs in zip(gradients, plain, strict=True):
        assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_half_precision_stays_close() -> None:
    batch = collate(rankings(), 0)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = outputs(tiny("llama", "sdpa", scorer=True), batch, SCORER)
        found, gradients = outputs(tiny("llama", NAME, scorer=True), batch, SCORER)
    assert float((found[0] - expected[0]).norm()) < 0.03 * float(expected[0].norm())
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_kl_is_that_of_plain_transformers() -> None:
    batch = collate(rankings(), 0)
    plain, packed = ((tiny("qwen2", kind, scorer=False), tiny("qwen2", kind, scorer=False)) for kind in ("eager", NAME))
    for pair in (plain, packed):
        with torch.no_grad():
            pair[1].get_output_embeddings().weight.mul_(2)
    found = token_kl(*packed, batch)
    assert float(found.max()) > 0.01
    assert torch.allclose(found, token_kl(*plain, batch), atol=1e-5)


def test_the_picture_in_the_docs() -> None:
    packed = pack(collate([[row([7, 8, 9], [2, 3]), row([7, 8, 9], [4, 5, 6])], [row([4, 5], [6, 7])]], 0))
    assert packed.tokens.tolist() == [[7, 8, 9, 4, 5, 6, 7, 2, 3, 4, 5, 6]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3, 3, 4, 3, 4, 5]]
    assert packed.place.tolist() == [[0, 1, 2, 7, 8, 0], [0, 1, 2, 9, 10, 11], [3, 4, 5, 6, 0, 0]]
    assert (packed.heads, packed.tails, packed.after.tolist()) == ((2, 4), (2, 3), [0, 0])
    assert packed.hidden.tolist() == [[False, False, False, True]] * 2
    assert packed.order.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13]


@pytest.mark.parametrize(
    "groups",
    [
        [[row([7], [2, 3, 4, 5, 6, 7, 8, 9]), row([7], [3, 4, 5, 6, 7, 8, 9, 2])]],
        [[row([7, 8], [2])], [row([7, 8], [2])]],
    ],
    ids=["too little in common", "in different groups"],
)
def test_rows_that_share_little_stay_whole(groups: list[list[Row]]) -> None:
    batch = collate(groups, 0)
    packed = pack(batch)
    assert packed.tails == (0, 0)
    assert torch.equal(packed.rows(packed.tokens), batch.tokens)


@pytest.mark.parametrize(
    ("kind", "more", "ours"),
    [
        ("mistral", {}, True),
        ("mistral", {"sliding_window": 8}, False),
        ("gemma2", {"query_pre_attn_scalar": 8}, False),
        ("gpt_neox", {}, False),
    ],
)
def test_a_model_with_attention_of_another_kind_keeps_it(
    kind: str, more: dict[str, object], ours: bool, tmp_path: Path
) -> None:
    made = tiny(kind, "eager", scorer=True, **more)
    made.save_pretrained(tmp_path)
    chosen = _attention(made.config)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation=chosen).eval()
    assert (model.config._attn_implementation == NAME) == ours
    batch = collate(rankings(), 0)
    with torch.no_grad():
        expected, found = (scorer_outputs(each, batch, ["score"])["score"] * batch.attend for each in (made, model))
    assert torch.allclose(found, expected, atol=1e-5)


def rollout(prompt: list[int], answer: list[int]) -> Rollout:
    return Rollout(prompt=[], text="", prompt_tokens=prompt, tokens=answer, logp=[0.0] * len(answer), finish="length")


def test_answers_to_one_prompt_are_read_together_and_may_be_parted() -> None:
    one, two = list(range(2, 12)), list(range(20, 30))
    batch = as_batch([rollout(one, [2, 3]), rollout(one, [4]), rollout(one, [5, 6]), rollout(two, [2])], 0, 1.0)
    assert batch.group.tolist() == [0, 0, 0, 1]
    assert pack(batch).tokens.shape == (1, 10 + 5 + 11)
    assert [part.tolist() for part in batch.micro(1000)] == [[0, 1, 2, 3]]
    assert sorted(part.tolist() for part in batch.micro(24)) == [[0, 1], [2, 3]]
    assert sorted(part.tolist() for part in batch.micro(5)) == [[0], [1], [2], [3]]
    for part in minibatches(batch, 2, 3, seed=0, step=0):
        assert part.loose
        assert part.group.tolist() == sorted(part.group.tolist())


def test_entropy_and_accuracy_of_the_train_tokens_are_those_of_whole_logits() -> None:
    batch, model = collate(rankings(), 0), tiny("llama", "eager", scorer=False)
    rows, last = torch.arange(len(batch)), batch.last()
    batch.tokens[rows, last] = model(input_ids=batch.tokens).logits[rows, last - 1].argmax(1)  # some that are right
    p = torch.softmax(model(input_ids=batch.tokens).logits.detach().double(), -1)[:, :-1][batch.train[:, 1:]]  # [N, V]
    for kind in ("eager", NAME):
        loss = sft(Outputs(token_outputs(tiny("llama", kind, scorer=False), batch)), batch)
        found = {name: float(value) for name, (value, _) in loss.metrics.items()}
        assert found["entropy"] == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
        assert found["token_accuracy"] == int((p.argmax(1) == batch.tokens[batch.train]).sum()) >= len(batch)
