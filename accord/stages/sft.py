"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from accord.console import say
from accord.data import prepare
from accord.data.batch import Group, collate, order, step_count
from accord.data.prepare import Limits, Loaded
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.engine import seed_all
from accord.model import Roles, context_of, load_config, load_policy, save_model
from accord.objectives.likelihood import sft
from accord.recipe import Pretrain, Sft, Trained
from accord.sampler import Ask
from accord.sampler.local import LocalSampler
from accord.stages.fit import Context, Step, fit, state_folder


def run(context: Context, stage: Sft) -> None:
    """Train on the assistant's tokens; leaves `model/`, held-out loss and perplexity, and a few greedy answers."""
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    limits = limits_of(stage, path, context)
    groups = prepare.demonstrations(train, tokenizer, limits, f"{context.where}.data")
    held_groups = prepare.demonstrations(held, tokenizer, limits, f"{context.where}.eval_data") if held else []
    note_data(context, train, len(groups), held, len(held_groups))
    fit_likelihood(context, stage, path, tokenizer, groups, held_groups)
    policy = load_policy(context.folder.model, tokenizer, context.where)
    sampler = LocalSampler(context.engine.place(policy), tokenizer, stop_ids(tokenizer, path))
    asked = prepare.prompts(Loaded((held or train).records[:8]), tokenizer, room=limits.max_tokens, where=context.where)
    asks = [Ask(prompt=a.prompt, tokens=a.tokens, number=i) for i, a in enumerate(asked)]
    room = max(1, limits.max_tokens - max(len(ask.tokens) for ask in asks))
    rollouts = sampler.generate(asks, max_new_tokens=min(128, room), temperature=0, seed=context.seed)
    context.folder.sample([{"prompt": r.prompt, "response": r.text, "finish": r.finish} for r in rollouts])


def fit_likelihood(
    context: Context,
    stage: Sft | Pretrain,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[Group],
    held: Sequence[Group],
) -> None:
    """Fit a language model to the train tokens of `groups` and save it."""
    engine, optim = context.engine, stage.optim
    seed_all(context.seed)
    policy = load_policy(path, tokenizer, f"{context.where}.model")
    learner = engine.learner(Roles(policy=policy), optim)
    progress = engine.load_state(learner, state_folder(context))
    context.folder.cut_back(progress.sizes)
    pad = pad_id(tokenizer)
    batches = [collate(held[i : i + 64], pad) for i in range(0, len(held), 64)]

    def evaluate(_: int) -> dict[str, float]:
        loss = engine.evaluate(learner.roles, batches, sft, {}, micro_tokens=optim.micro_tokens)["nll"]
        found = {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700))}
        context.folder.note(result={"loss": loss, "perplexity": found["eval/perplexity"]})
        return found

    fit(
        context,
        learner,
        steps(groups, pad, optim.batch_size, seed=context.seed, start=progress.step),
        sft,
        params={},
        stage=stage,
        optim=optim,
        total=step_count(len(groups), optim.batch_size, epochs=optim.epochs, steps=optim.steps),
        progress=progress,
        evaluate=evaluate if held else None,
    )
    save_model(policy, tokenizer, context.folder.model)


def steps(groups: Sequence[Group], pad: int, batch_size: int, *, seed: int, start: int) -> Iterator[Step]:
    """Batches of groups without end, from step `start` on."""
    for index in order(len(groups), batch_size, seed=seed, start=start):
        yield Step([collate([groups[i] for i in index], pad)])


def limits_of(stage: Trained, path: str, context: Context) -> Limits:
    """How long a row may be: as the stage says, at most what the model takes."""
    longest = context_of(load_config(path, f"{context.where}.model"))
    return Limits(min(stage.max_tokens or longest, longest), stage.truncate == "cut")


def note_data(context: Context, train: Loaded, kept: int, held: Loaded | None, held_kept: int) -> None:
    """Write down, and say, how many records a stage uses and what was left out."""
    report = {"train": train.report(kept)} | ({"eval": held.report(held_kept)} if held else {})
    context.folder.note(data=report)
    for name, loaded, count in (("data", train, kept), ("eval_data", held, held_kept)):
        if loaded is None:
            continue
        say(f"{context.name:<10} {name}: {count} kept of {count + loaded.dropped.total}")
        for reason, dropped in loaded.dropped.reasons.items():
            say(f"{'':<10}   left out, {reason}: {dropped.count}, as {dropped.example}")
