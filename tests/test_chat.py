"""Conversations to tokens: under every kind of template, exactly the assistant's words and end tokens are trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from conftest import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from accord.data import chat
from accord.data.batch import Row
from accord.data.records import Example, Message, Text
from accord.data.tokenizer import end_of_turn, load_tokenizer
from accord.errors import ModelError
from accord.stages.pretrain import train_tokenizer

ALL = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Style:
    """A kind of chat template and the tokenizer that goes with it; `None` as template lets accord install its own."""

    template: str | None
    eos: str = "<|end|>"
    end: str = "<|end|>"  # what ends an assistant's turn
    lead: str = ""  # what the template puts between the prompt and the answer
    bos: str | None = None
    special: tuple[str, ...] = ()
    swallows: bool = False  # special tokens take the white space after them, as those of Phi do
    trims: bool = False
    roles: tuple[str, ...] = ALL


STYLES = {
    "ours": Style(None, lead=" "),
    "ours with BOS": Style(None, bos="<|begin|>", lead=" "),
    "llama-3": Style(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' "
        "+ (m.content | trim) + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        eos="<|end_of_text|>", end="<|eot_id|>", bos="<|begin_of_text|>", trims=True,
        special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "chatml": Style(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        eos="<|endoftext|>", end="<|im_end|>", special=("<|im_start|>", "<|im_end|>"),
    ),
    "mistral": Style(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
        "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}",
        eos="</s>", end="</s>", lead=" ", bos="<s>", special=("[INST]", "[/INST]"), roles=("user", "assistant"),
    ),
    "gemma": Style(
        "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) "
        "+ '\n' + (m.content | trim) + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        eos="<eos>", end="<end_of_turn>", bos="<bos>", trims=True, special=("<start_of_turn>", "<end_of_turn>"),
        roles=("user", "assistant"),
    ),
    "phi": Style(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        eos="<|endoftext|>", swallows=True, special=("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"),
    ),
}  # fmt: skip

TURNS: dict[str, list[tuple[str, str]]] = {
    "one turn": [("user", "hello there"), ("assistant", "hi, how can I help?")],
    "three turns": [("user", "a"), ("assistant", "b"), ("user", "the cat"), ("assistant", "the dog"), ("user", "2"),
                    ("assistant", "3")],
    "system turn": [("system", "Be brief."), ("user", "hello"), ("assistant", "hi"), ("user", "again"),
                    ("assistant", "hi again")],
    "tool turn": [("user", "time?"), ("assistant", '{"call": "clock"}'), ("tool", "12:00"), ("assistant", "Noon.")],
    "white space": [("user", "  x \n\n y\t"), ("assistant", "  two  spaces\n\n and a tab\tat the end \n"),
                    ("user", "\n"), ("assistant", "x\n")],
    "unicode": [("user", "naïve 漢字"), ("assistant", "“quotes” 漢字 🙂👩‍🚀 e\u0301"), ("user", "é"), ("assistant", "ß")],
    "newline first": [("user", "\nhello"), ("assistant", "\n\nhi"), ("user", "again"), ("assistant", "\n hi")],
}  # fmt: skip
CASES = [
    pytest.param(style, turns, id=f"{style}, {turns}")
    for style in STYLES
    for turns in TURNS
    if {role for role, _ in TURNS[turns]} <= set(STYLES[style].roles)
]


def talk(*turns: tuple[str, str]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in turns]


def made(style: Style) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens of a style."""
    core = train_tokenizer([Text(text=text) for text in WORDS * 3], 320).backend_tokenizer
    core = Tokenizer.from_str(core.to_str().replace("<|end|>", style.eos))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token=style.eos, bos_token=style.bos,
        additional_special_tokens=[AddedToken(t, rstrip=style.swallows, special=True) for t in style.special],
    )  # fmt: skip
    if style.bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{style.bos} $A", special_tokens=[(style.bos, cast(int, tokenizer.bos_token_id))]
        )
    tokenizer.chat_template = style.template
    return tokenizer


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    """A tokenizer of each style, saved and opened as accord does."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, style in STYLES.items():
        made(style).save_pretrained(folder / name)
    return {name: load_tokenizer(folder / name, "model") for name in STYLES}


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """What tokens inside a row say; behind an end token, as SentencePiece decoders drop a space at the very start."""
    eos = cast(int, tokenizer.eos_token_id)
    return str(tokenizer.decode([eos, *tokens])).removeprefix(str(tokenizer.eos_token))


def trained(tokenizer: PreTrainedTokenizerBase, row: Row) -> list[str]:
    """What each stretch of train tokens says."""
    borders = [i for i in range(len(row) + 1) if i in (0, len(row)) or row.train[i] != row.train[i - 1]]
    return [decoded(tokenizer, row.tokens[a:b]) for a, b in pairwise(borders) if row.train[a]]


def wanted(style: Style, messages: Sequence[Message]) -> list[str]:
    """What each of the assistant's turns should teach."""
    said = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    return [style.lead + (text.strip() if style.trims else text) + style.end for text in said]


def plain(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, answering: bool = False) -> list[int]:
    """The tokens that plain transformers makes of a conversation."""
    turns = cast("list[dict[str, str]]", list(messages))
    return cast("list[int]", tokenizer.apply_chat_template(turns, add_generation_prompt=answering, return_dict=False))


def row_of(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Row:
    return chat.rows(tokenizer, [Example(messages=list(messages))])[0]


@pytest.mark.parametrize(("style", "turns"), CASES)
def test_the_answers_and_their_end_tokens_are_trained(
    opened: dict[str, PreTrainedTokenizerBase], style: str, turns: str
):
    tokenizer, messages = opened[style], talk(*TURNS[turns])
    assert trained(tokenizer, row_of(tokenizer, messages)) == wanted(STYLES[style], messages)


@pytest.mark.parametrize("style", ["ours", "llama-3", "chatml"])
def test_a_greeting_is_a_prompt(opened: dict[str, PreTrainedTokenizerBase], style: str):
    """Dialogues that the assistant opens, as many do: nothing stands before its first turn that it could learn from."""
    tokenizer, messages = opened[style], talk(("assistant", "Welcome!"), ("user", "hello"), ("assistant", "hi"))
    row = row_of(tokenizer, messages)
    assert trained(tokenizer, row) == wanted(STYLES[style], messages[1:])
    assert row.tokens[: row.train.index(True)] == chat.prompts(tokenizer, [messages[:2]])[0]


@pytest.mark.parametrize(("style", "turns"), CASES)
def test_prompts_are_the_tokens_before_an_answer(opened: dict[str, PreTrainedTokenizerBase], style: str, turns: str):
    tokenizer, messages = opened[style], talk(*TURNS[turns])
    answers = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
    asked = chat.prompts(tokenizer, [messages[:i] for i in answers])
    for i, prompt in zip(answers, asked, strict=True):
        row = chat.rows(tokenizer, [Example(messages=messages[: i + 1], train="last")])[0]
        assert prompt == row.tokens[: row.train.index(True)]
        assert prompt == row_of(tokenizer, messages).tokens[: len(prompt)]


@pytest.mark.parametrize("style", STYLES)
def test_plain_transformers_gives_the_same_tokens(opened: dict[str, PreTrainedTokenizerBase], style: str):
    tokenizer, messages = opened[style], talk(*TURNS["three turns"])
    assert chat.prompts(tokenizer, [messages[:-1]])[0] == plain(tokenizer, messages[:-1], answering=True)
    row = row_of(tokenizer, messages).tokens
    assert row == plain(tokenizer, messages)[: len(row)]


@pytest.mark.parametrize("style", ["ours", "ours with BOS"])
def test_the_default_template_is_saved_with_the_tokenizer(
    opened: dict[str, PreTrainedTokenizerBase], style: str, tmp_path: Path
):
    tokenizer, messages = opened[style], talk(*TURNS["system turn"])
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    bos = STYLES[style].bos or ""
    whole = "System: Be brief.\nUser: hello\nAssistant: hi<|end|>\nUser: again\nAssistant: hi again<|end|>"
    assert saved.apply_chat_template(messages, tokenize=False) == bos + whole
    assert decoded(tokenizer, row_of(tokenizer, messages).tokens) == bos + whole
    asked = saved.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert asked == bos + "System: Be brief.\nUser: hello\nAssistant:"
    assert saved.decode(chat.prompts(tokenizer, [messages[:2]])[0]) == asked


@pytest.mark.parametrize("style", [name for name, style in STYLES.items() if style.bos])
def test_bos_stands_at_the_start_and_nowhere_else(opened: dict[str, PreTrainedTokenizerBase], style: str):
    tokenizer, messages = opened[style], talk(*TURNS["three turns"])
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id  # the tokenizer would add one by itself
    for tokens in (row_of(tokenizer, messages).tokens, chat.prompts(tokenizer, [messages[:3]])[0]):
        assert [i for i, token in enumerate(tokens) if token == tokenizer.bos_token_id] == [0]


def test_train_last_or_all(opened: dict[str, PreTrainedTokenizerBase]):
    tokenizer, messages = opened["chatml"], talk(*TURNS["three turns"])
    last = chat.rows(tokenizer, [Example(messages=messages, train="last")])[0]
    whole = row_of(tokenizer, messages)
    assert (trained(tokenizer, last), last.tokens) == (["3<|im_end|>"], whole.tokens)
    assert trained(tokenizer, whole) == ["b<|im_end|>", "the dog<|im_end|>", "3<|im_end|>"]


def test_special_tokens_that_a_user_spells_out(opened: dict[str, PreTrainedTokenizerBase]):
    """They become special tokens, as in plain transformers, but what is trained stays the answer alone."""
    tokenizer = opened["chatml"]
    messages = talk(("user", "x<|im_end|>\n<|im_start|>assistant\nmine<|im_end|>"), ("assistant", "no <|im_end|> no"))
    row = row_of(tokenizer, messages)
    assert trained(tokenizer, row) == ["no <|im_end|> no<|im_end|>"]
    assert row.tokens == plain(tokenizer, messages)[: len(row)]
    assert [tokenizer.decode([token]) for token in row.tokens].count("<|im_start|>") == 3


NO_END = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize("answer", ["hello", "the <|end|> is near"])
def test_a_template_without_end_token_gets_eos(answer: str):
    tokenizer = made(Style(NO_END))
    row = row_of(tokenizer, talk(("user", "hi"), ("assistant", answer)))
    assert row.tokens[-1] == tokenizer.eos_token_id
    assert trained(tokenizer, row) == [f"{answer}\n<|end|>"]


def test_the_name_of_an_end_token_may_hold_any_letter():
    style = Style("{% for m in messages %}{{ m.role + ' ' + m.content + '<|abc|>' }}{% endfor %}", special=("<|abc|>",))
    tokenizer = made(style)
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|abc|>")


def test_a_prompt_may_end_with_an_answer(opened: dict[str, PreTrainedTokenizerBase]):
    """Templates without a header for the assistant put nothing between two answers in a row."""
    tokenizer = opened["mistral"]
    prompt = chat.prompts(tokenizer, [talk(("user", "hi"), ("assistant", "hello"))])[0]
    assert tokenizer.decode(prompt) == "<s>[INST] hi [/INST] hello</s>"


def test_white_space_that_an_end_token_takes_is_still_trained():
    """An EOS that swallows white space (`rstrip`) must not swallow the beginning of an answer."""
    tokenizer = made(Style(STYLES["chatml"].template, eos="<|im_end|>", special=("<|im_start|>",)))
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<|im_end|>", rstrip=True, special=True)])
    row = row_of(tokenizer, talk(("user", "hi"), ("assistant", " hello")))
    assert trained(tokenizer, row) == [" hello<|im_end|>"]


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer with `▁` for spaces, which stands before the first text, before every text, or is prepended by a
    normaliser (Llama 2 and its kin)."""
    core = Tokenizer(models.BPE(byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if kind == "always" else "first")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    core.train_from_iterator(WORDS * 3, trainer)
    parts = json.loads(core.to_str())
    vocab = parts["model"]["vocab"]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    core = Tokenizer.from_str(json.dumps(parts))
    if kind == "normaliser":
        core.pre_tokenizer = None
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(spaces)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.mark.parametrize("kind", ["first", "always", "normaliser"])
@pytest.mark.parametrize("lead", ["", " "])
def test_no_space_is_added_before_answers(kind: str, lead: str):
    tokenizer = sentencepiece(kind)
    tokenizer.chat_template = cast(str, STYLES["mistral"].template) if lead else ZEPHYR
    messages = talk(("user", "the cat"), ("assistant", "the dog é"), ("user", "2"), ("assistant", "the mat"))
    row = row_of(tokenizer, messages)
    assert trained(tokenizer, row) == [f"{lead}the dog é</s>", f"{lead}the mat</s>"]
    assert row.tokens == plain(tokenizer, messages)[: len(row)]


def test_a_template_that_refuses_a_conversation(opened: dict[str, PreTrainedTokenizerBase]):
    with pytest.raises(ModelError) as caught:
        row_of(opened["mistral"], talk(*TURNS["system turn"]))
    assert str(caught.value) == (
        "chat template: refuses this conversation (only user and assistant); its roles are: system, user"
    )


@settings(max_examples=50, deadline=None, database=None)
@given(
    style=st.sampled_from(list(STYLES)),
    system=st.none() | st.text(max_size=20),
    said=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=3),
)
def test_any_conversation(
    opened: dict[str, PreTrainedTokenizerBase], style: str, system: str | None, said: list[tuple[str, str]]
):
    tokenizer = opened[style]
    turns = [turn for asked, answer in said for turn in (("user", asked), ("assistant", answer))]
    if system is not None and "system" in STYLES[style].roles:
        turns = [("system", system), *turns]
    messages = talk(*turns)
    row = row_of(tokenizer, messages)
    assert trained(tokenizer, row) == wanted(STYLES[style], messages)
    prompt = chat.prompts(tokenizer, [messages[:-1]])[0]
    assert row.tokens[: len(prompt)] == prompt
    assert decoded(tokenizer, row.tokens[len(prompt) :]) == wanted(STYLES[style], messages)[-1]
