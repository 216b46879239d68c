"""The scale of a reward model: what `reward_mean` and `reward_std` in its configuration are measured on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.console import say
from accord.data import prepare
from accord.data.batch import Group, collate
from accord.data.prepare import Limits, Loaded
from accord.data.records import Record
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.errors import RecipeError
from accord.model import context_of, load_config, load_policy
from accord.outputs import Roles
from accord.recipe import Reward
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler
from accord.score.model import rows_of, same_tokens
from accord.score.training_range import TrainingRange, fit_range
from accord.stages.fit import Context, limits_of, room_for, say_kept

MEASURED = 256  # groups of rows, as in openai/lm-human-preferences
RANGED = 1024  # the same, for a covariance
T = TypeVar("T")


def rewards(context: Context, stage: Reward, roles: Roles, groups: Sequence[Group], pad: int) -> list[float]:
    """The raw reward of every row of every group, in order."""
    found: list[float] = []
    for i in range(0, len(groups), 64):
        batch = collate(groups[i : i + 64], pad)
        out = context.engine.outputs(roles, batch, ["reward"], micro_tokens=stage.optim.micro_tokens)
        found += out.reward.tolist()
    return found


def normalise(
    context: Context,
    stage: Reward,
    scorer: PreTrainedModel,
    groups: Sequence[Group],
    measured: Sequence[Group],
    pad: int,
) -> None:
    """Put mean and spread of rewards into the configuration: scores come out near (0, 1) on what they are measured on.

    That is `measured`, or the training rows where it is empty; demonstrations say what 0 is and training rows the spread.
    """
    roles = Roles(scorer=scorer)
    own = rewards(context, stage, roles, groups[:MEASURED], pad) if stage.normalise.on != "samples" else []
    other = rewards(context, stage, roles, measured, pad)
    scorer.config.reward_mean = float(torch.tensor(other or own).mean())
    scorer.config.reward_std = max(float(torch.tensor(own or other).std(correction=0)), 1e-6)


def measured_on(
    context: Context, stage: Reward, tokenizer: PreTrainedTokenizerBase, path: str, records: Sequence[Record]
) -> list[Group]:
    """The rows that rewards are measured on beside those of training; `records` bring the prompts that are answered."""
    limits = Limits(limits_of(stage, path, context).max_tokens)
    if stage.normalise.on == "samples":
        return samples(context, stage, tokenizer, records, limits)
    return demonstrations(context, stage, tokenizer, limits) if stage.normalise.on == "demonstrations" else []


def demonstrations(context: Context, stage: Reward, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> list[Group]:
    """Demonstrations as answers to be scored, whose mean reward becomes 0 (Ouyang et al. 2022, section 3.5)."""
    loaded, _ = prepare.load(stage.normalise.data or [], None, f"{context.where}.normalise")
    groups = prepare.demonstrations(loaded, tokenizer, limits, f"{context.where}.normalise.data", last=True)
    say_kept(context, "normalise", loaded, len(groups))
    return spread_out(groups, MEASURED)


def samples(
    context: Context, stage: Reward, tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], limits: Limits
) -> list[Group]:
    """Answers of a fixed model to training prompts, whose rewards get mean 0 and variance 1 (Ziegler et al. 2019,
    section 2, https://arxiv.org/abs/1909.08593)."""
    said, where = stage.normalise, f"{context.where}.normalise"
    path = context.path(said.policy or stage.model)
    own = load_tokenizer(path, f"{where}.policy")
    longest = min(limits.max_tokens, context_of(load_config(path, f"{where}.policy")))
    room = room_for(said.max_new_tokens, longest, f"{where}.max_new_tokens")
    asked = spread_out(prepare.prompts(Loaded(list(records)), own, room=room, where=f"{context.where}.data"), MEASURED)
    each = math.ceil(MEASURED / len(asked))
    asks = [
        Ask(prompt=a.prompt, tokens=a.tokens, number=k * len(asked) + i, group=i, meta=a.meta)
        for k in range(each)
        for i, a in enumerate(asked)
    ][:MEASURED]
    policy = context.engine.place(load_policy(path, own, f"{where}.policy"))
    rollouts: list[Rollout] = context.engine.generate(
        LocalSampler(policy, own, stop_ids(own, path)), asks, max_new_tokens=said.max_new_tokens,
        temperature=said.temperature, seed=context.seed + 4,
    )  # fmt: skip
    say(f"{context.name:<10} normalise: {len(rollouts)} answers to {len(asked)} training prompts")
    rows = rows_of(rollouts, tokenizer, as_sampled=same_tokens(own, tokenizer))
    if found := [[row] for row in rows if len(row) <= limits.max_tokens]:
        return found
    raise RecipeError(f"{where}.max_new_tokens", "no answer fits into max_tokens of the reward model", "ask for fewer")


def training_range(
    context: Context, stage: Reward, scorer: PreTrainedModel, groups: Sequence[Group], held: Sequence[Group], pad: int
) -> TrainingRange:
    """How the hidden states of training answers are spread; every fifth group is set aside where nothing is held out."""
    own = groups if held or len(groups) == 1 else [group for i, group in enumerate(groups) if i % 5]

    def features(of: Sequence[Group]) -> Tensor:
        batches = [collate(of[i : i + 64], pad) for i in range(0, len(of), 64)]
        outputs = [
            context.engine.outputs(Roles(scorer=scorer), b, ["feature"], micro_tokens=stage.optim.micro_tokens)
            for b in batches
        ]
        return torch.cat([out.feature for out in outputs])

    return fit_range(features(spread_out(own, RANGED)), features(spread_out(held or groups[::5], RANGED)))


def spread_out(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly from first to last."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)
