"""Models with random weights, a tokenizer of made-up words, rows of wanted lengths: from fixed seeds, nothing fetched."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from accord.data.records import Text
from accord.data.tokenizer import end_id, pad_id, token_lists
from accord.model import score_head
from accord.stages.pretrain import train_tokenizer
from benchmarks.works import GROUP, SEED, Size, Work

TEMPLATE_TOKENS = 2  # of a prompt: the tokens that open the user's turn and the answer
KINDS = {
    "llama": (LlamaForCausalLM, LlamaForSequenceClassification),
    "gpt2": (GPT2LMHeadModel, GPT2ForSequenceClassification),
    "qwen2": (Qwen2ForCausalLM, Qwen2ForSequenceClassification),
}
OUTPUTS = ("o_proj.weight", "down_proj.weight", "c_proj.weight")  # what layers write with


def prepare(size: Size, works: Sequence[Work], folder: Path, *, steps: dict[str, int]) -> None:
    """Everything that workers read, into `folder`: models once, rows for so many steps of each work."""
    folder.mkdir(parents=True, exist_ok=True)
    language = Language.of(size, folder / "tokenizer")
    for name in sorted({name for work in works for name in models_of(work)}):
        if not (folder / name / "config.json").exists():
            save(made(size, name, language), language.tokenizer, folder / name)
    for work in works:
        lines = (json.dumps(row) + "\n" for row in rows(work, size, language, steps[work.name]))
        (folder / f"{work.name}.jsonl").write_text("".join(lines), encoding="utf-8")


def models_of(work: Work) -> list[str]:
    """The models that a work takes."""
    if work.method == "sample":
        return ["actor" if work.answer[0] == work.answer[1] else "chain"]
    if work.method in {"sft", "dpo", "reward"}:
        return ["reward" if work.method == "reward" else "policy"]
    return ["actor", *(["reward"] if work.judge == "model" else [])]


# ------------------------------------------------------------------------------------------------------------- language


@dataclass(frozen=True)
class Language:
    """A tokenizer, and words that are one token each (with a space in front)."""

    tokenizer: PreTrainedTokenizerFast
    words: list[str]
    ids: set[int]

    @classmethod
    def of(cls, size: Size, folder: Path) -> Language:
        """Byte-pair tokens learnt from words made of syllables; kept in `folder`, for large ones take a while."""
        words = made_up(size.vocab * 3 // 2)
        if folder.exists():
            tokenizer = cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(folder))
        else:
            lines = [Text(text=" ".join(words[i : i + 1000])) for i in range(0, len(words), 1000)]
            tokenizer = train_tokenizer(lines, size.vocab)
            tokenizer.save_pretrained(folder)
        tokens = token_lists(tokenizer, [f" {word}" for word in words])
        whole = {word: found[0] for word, found in zip(words, tokens, strict=True) if len(found) == 1}
        return cls(tokenizer, list(whole), set(whole.values()))

    def text(self, tokens: int, draw: random.Random) -> str:
        """Words that come to exactly so many tokens."""
        first = draw.choice(self.words)
        used = len(token_lists(self.tokenizer, [first])[0])  # without a space in front it may be several
        return " ".join([first, *draw.choices(self.words, k=tokens - used)])


def made_up(count: int) -> list[str]:
    """So many words of one to four syllables."""
    draw, found = random.Random(SEED), set[str]()
    while len(found) < count:
        syllables = (draw.choice("bcdfghjklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))
        found.add("".join(syllables) + draw.choice(["", "n", "r", "s", "t", "k"]))
    return sorted(found)


# ----------------------------------------------------------------------------------------------------------------- rows


def rows(work: Work, size: Size, language: Language, steps: int) -> Iterator[dict[str, object]]:
    """Rows for so many steps, in TRL's form, which accord reads as well; to sample from, token ids."""
    draw = random.Random(f"{SEED} {work.name}")
    if work.method == "sample":
        yield from asks(work, size, language, draw)
        return
    count = work.batch * steps // (GROUP if work.method in {"grpo", "rloo"} else 1)
    for _ in range(count):
        prompt = said("user", language.text(draw.randint(*work.prompt) - TEMPLATE_TOKENS, draw))
        if work.method == "sft":
            yield {"prompt": prompt, "completion": answer(work, language, draw)}
        elif work.method in {"reward", "dpo"}:
            first, second = answer(work, language, draw), answer(work, language, draw)
            yield {"prompt": prompt, "chosen": first, "rejected": second}
        else:
            yield {"prompt": prompt}


def said(role: str, content: str) -> list[dict[str, str]]:
    """One turn."""
    return [{"role": role, "content": content}]


def answer(work: Work, language: Language, draw: random.Random) -> list[dict[str, str]]:
    """An answer that has the wanted length with its end token."""
    return said("assistant", language.text(draw.randint(*work.answer) - 1, draw))


def asks(work: Work, size: Size, language: Language, draw: random.Random) -> Iterator[dict[str, object]]:
    """Prompts to sample from. Where lengths vary the last token of the prompt says how long the model `chain` goes on."""
    low, high = work.answer
    ids = sorted(language.ids)
    lengths = [round(low * (high / low) ** (i / (work.batch - 1))) for i in range(work.batch)]
    draw.shuffle(lengths)
    for length in lengths:
        tokens = draw.choices(ids, k=draw.randint(*work.prompt))
        yield {"tokens": tokens if low == high else [*tokens[:-1], size.vocab - length], "length": length}


# --------------------------------------------------------------------------------------------------------------- models


def made(size: Size, name: str, language: Language) -> PreTrainedModel:
    """A model by its name: `policy`, `actor`, `reward` or `chain`."""
    torch.manual_seed(SEED + 1 * (name == "reward"))
    policy, scorer = KINDS[size.kind]
    end, pad = end_id(language.tokenizer), pad_id(language.tokenizer)
    config = configuration(size, end, pad, tied=name != "chain")
    if name == "reward":
        config.num_labels = 1
        model = scorer(config)
        with torch.no_grad():
            score_head(model).weight.normal_(0, (size.width + 1) ** -0.5)
        return model
    model = policy(config)
    if name == "actor":
        asking = token_lists(language.tokenizer, ["<|assistant|>"])[0]  # the last token of every prompt
        mute(model, sorted(set(range(size.vocab)) - language.ids - set(asking)))
    elif name == "chain":
        link(model, end)
    return model


def configuration(size: Size, end: int, pad: int, *, tied: bool) -> PretrainedConfig:
    """The shape as transformers has it, without dropout."""
    if size.kind == "gpt2":
        return GPT2Config(
            vocab_size=size.vocab, n_positions=size.context, n_embd=size.width, n_layer=size.layers, n_head=size.heads,
            n_inner=size.feed_forward, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None,
            eos_token_id=end, pad_token_id=pad, tie_word_embeddings=tied,
        )  # fmt: skip
    kind = LlamaConfig if size.kind == "llama" else Qwen2Config
    return kind(
        vocab_size=size.vocab, hidden_size=size.width, intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.kv_heads,
        max_position_embeddings=size.context, bos_token_id=None, eos_token_id=end, pad_token_id=pad,
        tie_word_embeddings=tied,
    )  # fmt: skip


@torch.no_grad()
def mute(model: PreTrainedModel, tokens: Sequence[int]) -> None:
    """Make tokens as good as impossible: answers then have the wanted length, and read back as the tokens they were.

    The first number of the last hidden state is made about 1 everywhere (but after a token that is mute itself), and their
    rows of the tied LM head are set against it.
    """
    rows = cast(torch.Tensor, model.get_input_embeddings().weight)
    weights = dict(model.named_parameters())
    if "transformer.ln_f.bias" in weights:  # GPT-2: the last norm has a bias to do it
        weights["transformer.ln_f.weight"][0] = 0.0
        weights["transformer.ln_f.bias"][0] = 1.0
        rows[:, 0] = 0.0
    else:
        deep = model(torch.arange(64)[None], output_hidden_states=True).hidden_states[-2]
        for name, weight in weights.items():
            if name.endswith(OUTPUTS):
                weight[0] = 0.0  # no layer writes there, so that the embedding's number arrives
        rows[:, 0] = deep.square().mean().sqrt()
    rows[tokens, 0] = -30.0


@torch.no_grad()
def link(model: PreTrainedModel, end: int) -> None:
    """Make each token be followed by the next in the vocabulary, and the last by the end token.

    Layers compute as always but write zeros, and the row of the LM head that belongs to the next token points to where
    the token is. Sampled or greedy, every sampler then says the same.
    """
    for name, weight in model.named_parameters():
        if name.endswith((*OUTPUTS, "wpe.weight")):
            weight.zero_()
    rows = cast(torch.Tensor, model.get_input_embeddings().weight)
    head = cast(torch.Tensor, cast(torch.nn.Module, model.get_output_embeddings()).weight)
    towards = (
        90 * rows / rows.norm(dim=1, keepdim=True) / rows.shape[1] ** 0.5
    )  # logits of 90, and at most 30 elsewhere
    head[1:] = towards[:-1]
    head[end] = towards[-1]


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """As a folder that both sides open."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
