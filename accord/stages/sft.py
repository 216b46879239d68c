"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from accord.data import prepare
from accord.data.chat import answer_start
from accord.data.rows import Group, Row, Rows
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.engine import seed_all
from accord.model import load_policy, save_model
from accord.objectives.likelihood import sft
from accord.outputs import Roles
from accord.recipe import Pretrain, Sft
from accord.sampler import Ask
from accord.sampler.local import LocalSampler
from accord.stages.fit import Context, fit_groups, limits_of, note_data


def run(context: Context, stage: Sft) -> None:
    """Train on the assistant's tokens; leaves `model/`, held-out loss and perplexity, and a few greedy answers."""
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    groups, held_groups = read(context, stage, tokenizer, path)
    fit_likelihood(context, stage, path, tokenizer, groups, held_groups)
    context.engine.release()
    policy = context.engine.place(load_policy(context.folder.model, tokenizer, context.where))
    sampler = LocalSampler(policy, tokenizer, stop_ids(tokenizer, path))
    longest = limits_of(stage, path, context).max_tokens
    context.folder.sample(answers(sampler, [group[0] for group in (held_groups or groups)[:8]], longest))


def read(context: Context, stage: Sft, tokenizer: PreTrainedTokenizerBase, path: str) -> tuple[Rows, Sequence[Group]]:
    """The rows to learn from, and those held out."""
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    limits = limits_of(stage, path, context)
    groups = prepare.demonstrations(train, tokenizer, limits, f"{context.where}.data")
    held_groups = prepare.demonstrations(held, tokenizer, limits, f"{context.where}.eval_data") if held else []
    note_data(context, train, len(groups), held, len(held_groups))
    return groups, held_groups


def answers(sampler: LocalSampler, rows: Sequence[Row], longest: int) -> list[dict[str, object]]:
    """What the model says, greedily, where the rows have their last answer: rows of samples.jsonl."""
    asks = [Ask(prompt=[], tokens=row.tokens[: answer_start(row)], number=i) for i, row in enumerate(rows)]
    room = max(1, longest - max(len(ask.tokens) for ask in asks))
    rollouts = sampler.generate(asks, max_new_tokens=min(128, room), temperature=0, seed=0)
    return [
        {"prompt": str(sampler.tokenizer.decode(r.prompt_tokens)), "response": r.text, "finish": r.finish}
        for r in rollouts
    ]


def fit_likelihood(
    context: Context,
    stage: Sft | Pretrain,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[Group],
    held: Sequence[Group],
) -> None:
    """Fit a language model to the train tokens of `groups` and save it."""
    seed_all(context.seed)
    train = stage.lora if isinstance(stage, Sft) else None
    policy = load_policy(path, tokenizer, f"{context.where}.model", train=train, seed=context.seed)
    result = fit_groups(
        context, stage, Roles(policy=policy), sft, groups, held, pad=pad_id(tokenizer), seed=context.seed
    )
    context.folder.note(result=result)
    save_model(policy, tokenizer, context.folder.model)
