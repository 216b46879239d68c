"""Tokenizers are mended where training needs it, and refused with one message where they cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from conftest import tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from accord.data import chat
from accord.data.records import Example
from accord.data.tokenizer import end_id, end_of_turn, load_tokenizer, pad_id, stop_ids
from accord.errors import ModelError
from accord.model import load_policy, save_model

WHERE = "stage.sft.model"


Change = Callable[..., Path]


@pytest.fixture
def change(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Change:
    """Save the tiny tokenizer and model with other settings: `config` into config.json, the rest into the tokenizer's
    (None removes a setting). `extra` adds special tokens; `pads` says whether the vocabulary has a token to pad with."""

    def save(
        *,
        config: dict[str, object] | None = None,
        extra: list[str] | None = None,
        pads: bool = True,
        **settings: object,
    ) -> Path:
        tokenizer.save_pretrained(tmp_path)
        tiny_llama(320 + len(extra or [])).save_pretrained(tmp_path)
        if extra:
            grown = AutoTokenizer.from_pretrained(tmp_path)
            grown.add_special_tokens({"additional_special_tokens": extra})
            grown.save_pretrained(tmp_path)
        if not pads:
            path = tmp_path / "tokenizer.json"
            path.write_text(path.read_text().replace("<|pad|>", "<|zero|>"))
        for name, changes in (("tokenizer_config.json", settings), ("config.json", config or {})):
            table = {**json.loads((tmp_path / name).read_text()), **changes}
            kept = {key: value for key, value in table.items() if value is not None}
            (tmp_path / name).write_text(json.dumps(kept))
        return tmp_path

    return save


def rows_of(layer: nn.Module | None) -> torch.Tensor:
    assert layer
    return cast(torch.Tensor, layer.weight)


def refused(folder: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder, WHERE)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------------- mended


def test_a_sound_tokenizer_is_left_as_it_is(change: Change):
    tokenizer = load_tokenizer(change(), WHERE)
    assert (len(tokenizer), pad_id(tokenizer), end_id(tokenizer)) == (320, 0, 1)
    assert stop_ids(tokenizer) == {1}


@pytest.mark.parametrize("pad", ["<|end|>", None])
def test_a_pad_token_of_its_own_is_added(change: Change, pad: str | None):
    tokenizer = load_tokenizer(change(pad_token=pad, extra=["<|one|>"], pads=False), WHERE)
    assert (tokenizer.pad_token, pad_id(tokenizer), end_id(tokenizer)) == ("<|pad|>", 321, 1)
    assert tokenizer("a<|end|>")["input_ids"][-1] == 1


def test_the_model_gets_a_row_for_the_pad_token(change: Change, tmp_path: Path):
    folder = change(pad_token="<|end|>", pads=False)
    tokenizer = load_tokenizer(folder, WHERE)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    policy = load_policy(folder, tokenizer, WHERE)
    rows = rows_of(policy.get_input_embeddings())
    assert rows.shape[0] == 321 == policy.config.vocab_size
    assert torch.allclose(rows[320], rows[:320].mean(0))
    assert rows_of(policy.get_output_embeddings()) is rows
    assert policy.config.pad_token_id == 320
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.allclose(policy(tokens).logits[..., :320], plain(tokens).logits, atol=1e-6)
        save_model(policy, tokenizer, tmp_path / "saved")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
        assert torch.allclose(again(tokens).logits, policy(tokens).logits, atol=1e-6)
    assert len(load_tokenizer(tmp_path / "saved", WHERE)) == 321


@pytest.mark.parametrize("name", ["<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<|vision_pad|>"])
@pytest.mark.parametrize("pad", ["<|end|>", None])
def test_a_free_token_of_the_vocabulary_is_taken_first(change: Change, name: str, pad: str | None):
    folder = change(pad_token=pad, extra=[name], pads=False)
    tokenizer = load_tokenizer(folder, WHERE)
    assert (tokenizer.pad_token, pad_id(tokenizer), len(tokenizer)) == (name, 320, 321)
    assert rows_of(load_policy(folder, tokenizer, WHERE).get_input_embeddings()).shape[0] == 321


def test_a_pad_token_that_ends_answers_is_replaced(change: Change):
    """As in chat models whose generation stops at a second token, which they also pad with."""
    folder = change(extra=["<|eot|>"], pad_token="<|eot|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 320]}))
    tokenizer = load_tokenizer(folder, WHERE)
    assert (tokenizer.pad_token, pad_id(tokenizer)) == ("<|pad|>", 0)
    assert stop_ids(tokenizer, folder) == {1, 320}


def test_the_end_of_a_turn_ends_answers_too(change: Change):
    template = "{% for m in messages %}{{ m.role + m.content + '<|eot|>' }}{% endfor %}"
    tokenizer = load_tokenizer(change(extra=["<|eot|>"], chat_template=template), WHERE)
    assert (end_of_turn(tokenizer), stop_ids(tokenizer)) == (320, {1, 320})


def test_quantised_weights_with_a_free_row_take_a_pad_token(change: Change):
    config = {"quantization_config": {"quant_method": "x"}, "vocab_size": 384}
    folder = change(pad_token="<|end|>", config=config, pads=False)
    assert pad_id(load_tokenizer(folder, WHERE)) == 320


# -------------------------------------------------------------------------------------------------------------- refused


def test_no_end_token(change: Change):
    folder = change(eos_token=None)
    assert refused(folder) == (
        f"{WHERE}: the tokenizer of {folder} has no end token (eos_token), so answers could never end; "
        "set eos_token in its tokenizer_config.json"
    )


def test_a_pad_token_that_cannot_be_added(change: Change):
    folder = change(pad_token="<|end|>", config={"quantization_config": {"quant_method": "x"}}, pads=False)
    assert refused(folder) == (
        f"{WHERE}: the pad token of {folder} is its end token, and its quantised weights have no free row for another; "
        "set pad_token to an unused token in its tokenizer_config.json, or start from the unquantised model"
    )


def test_no_tokenizer_at_all(tmp_path: Path):
    tiny_llama().save_pretrained(tmp_path)
    fix = "give a model folder or a hub id"
    assert refused(tmp_path) == f"{WHERE}: no tokenizer could be read from {tmp_path}; {fix}"
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    assert refused(tmp_path).startswith(f"{WHERE}: no tokenizer could be read from {tmp_path} (")
    none = tmp_path / "none"
    assert refused(none) == f"{WHERE}: no tokenizer could be read from {none} (there is no such folder); {fix}"


BROKEN = {
    "syntax": "{% for m in messages %}{{ m.role }",
    "filter": "{{ messages | no_such_filter }}",
    "type": "{{ 1 + messages[0].content }}",
}


@pytest.mark.parametrize("template", BROKEN.values(), ids=BROKEN.keys())
def test_a_template_that_does_not_work(change: Change, template: str):
    assert refused(change(chat_template=template)).startswith(f"{WHERE}: the chat template of ")


def test_a_template_that_wants_a_system_turn_is_no_reason_to_refuse(change: Change):
    template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('begin with a system turn') }}{% endif %}"
        "{% for m in messages %}{{ m.role + m.content + eos_token }}{% endfor %}"
    )
    assert end_of_turn(load_tokenizer(change(chat_template=template), WHERE)) == 1


HEAD = "{% for m in messages %}{{ m.role + ': ' }}"
TAIL = "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
NOT_PREFIX = {
    "trims the question once it is answered": HEAD + "{{ m.content | trim if messages[-1].role == 'assistant' "
    "else m.content }}" + TAIL,
    "puts the answer first": "{% for m in messages | sort(attribute='role') %}{{ m.role + ': ' + m.content }}" + TAIL,
    "drops earlier turns": "{% for m in messages[-2:] %}{{ m.role + ': ' + m.content }}" + TAIL,
    "drops the thoughts of earlier answers": HEAD + "{{ '<think></think>' if loop.last and m.role == 'assistant' "
    "else '' }}{{ m.content }}" + TAIL,
}


@pytest.mark.parametrize("template", NOT_PREFIX.values(), ids=NOT_PREFIX.keys())
def test_a_prompt_that_is_no_prefix(change: Change, template: str):
    """The message shows the two texts from where they part, so that the template's doing is seen at once."""
    tokenizer = load_tokenizer(change(chat_template=template), WHERE)
    turns = [("user", " hi "), ("assistant", "hello"), ("user", "more"), ("assistant", "bye")]
    example = Example(messages=[{"role": role, "content": content} for role, content in turns])
    with pytest.raises(ModelError) as caught:
        chat.rows(tokenizer, [example])
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert said.startswith("chat template: a prompt is not a prefix of the conversation that goes on from it; ")
    assert said.endswith("; use a template that renders earlier turns the same whatever follows")
    one, other = re.findall(r"'([^']+)'", said)[:2]
    assert one[0] != other[0], said
