"""Next-token prediction on plain text: a small Llama with its own byte-pair tokenizer from scratch, or more of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from accord.data import prepare
from accord.data.records import Record, Text
from accord.data.tokenizer import load_tokenizer
from accord.engine import seed_all
from accord.model import context_of, load_config, save_model
from accord.recipe import Pretrain, Shape
from accord.stages.fit import Context, note_data
from accord.stages.sft import fit_likelihood

# One token opens a turn, the end token closes an answer.
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + (eos_token if message['role'] == 'assistant' else '') }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def run(context: Context, stage: Pretrain) -> None:
    """Train on plain text; leaves a base model that follows no requests yet."""
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    start = context.path(stage.model) if stage.model else str(context.folder.path / "start")
    if not stage.model and not Path(start).exists():
        seed_all(context.seed)
        save_model(fresh_model(stage.shape), train_tokenizer(train.records, stage.shape.vocab), Path(start))
    tokenizer = load_tokenizer(start, context.where)
    length = min(stage.shape.context, context_of(load_config(start, context.where)))
    groups = prepare.texts(train, tokenizer, length, f"{context.where}.data")
    held_groups = prepare.texts(held, tokenizer, length, f"{context.where}.eval_data") if held else []
    note_data(context, train, train.kept, held, held.kept if held else 0)
    fit_likelihood(context, stage, start, tokenizer, groups, held_groups)


def train_tokenizer(records: Sequence[Record], vocab: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of exactly the wanted size, with pad, end and role tokens of its own and a template that uses them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((record.text for record in records if isinstance(record, Text)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=TEMPLATE
    )


def fresh_model(shape: Shape) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights."""
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        dtype=torch.float32,
    )
    return LlamaForCausalLM(config)
