"""PPO: sample answers, score them, give every token its credit, update policy and critic on them.

The algorithm reads from `rollout_steps` downwards; `examples/ppo.py` is the same on one page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.console import say
from accord.data import prepare
from accord.data.batch import Batch, Group, collate, minibatches, order, step_count
from accord.data.prepare import Asked, Loaded
from accord.data.records import Text
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.engine import Engine, Learner, Part, Progress, seed_all
from accord.errors import RecipeError
from accord.estimate import mean
from accord.model import Roles, load_policy, policy_beside, save_model, scorer_beside
from accord.objectives.advantage import explained_variance, gae, token_rewards, whiten
from accord.objectives.likelihood import sft
from accord.objectives.policy import before, ppo
from accord.recipe import Policy, PpoParams, Rewards
from accord.sampler import Ask, Rollout, as_batch
from accord.sampler.local import LocalSampler
from accord.score import Score, Scorer, combine
from accord.score.model import as_critic, open_reward
from accord.stages.fit import Context, Step, fit, limits_of, note_data, say_kept


@dataclass
class Actors:
    """Everything that takes part in policy optimisation."""

    learner: Learner  # policy and critic
    policy: PreTrainedModel
    critic: PreTrainedModel
    reference: PreTrainedModel
    sampler: LocalSampler
    reward: Scorer  # what is optimised
    judge: Scorer  # what chooses the checkpoint
    tokenizer: PreTrainedTokenizerBase


def run(context: Context, stage: Policy) -> None:
    """Optimise the policy on its rewards; leaves in `model/` the best checkpoint on held-out prompts within the KL budget."""
    engine, params = context.engine, stage.params
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    room = limits_of(stage, path, context).max_tokens - stage.rollout.max_new_tokens
    if room < 1:
        raise RecipeError(
            f"{context.where}.rollout.max_new_tokens", "leaves no room for a prompt in the model's context"
        )
    asked = prepare.prompts(train, tokenizer, room=room, where=f"{context.where}.data")
    held_asked = prepare.prompts(held, tokenizer, room=room, where=f"{context.where}.eval_data") if held else []
    note_data(context, train, len(asked), held, len(held_asked))

    seed_all(context.seed)
    actors = load_actors(context, stage, path, tokenizer)
    progress = engine.load_state(actors.learner, context.folder.state)
    context.folder.cut_back(progress.sizes)
    if held_asked and not stage.eval_rewards:
        say(f"{context.name:<10} eval_rewards is not set: the checkpoint is chosen by the reward that is optimised")

    def evaluate(step: int) -> dict[str, float]:
        numbers = held_out(context, stage, actors, held_asked)
        if stage.checkpoints:
            save_model(actors.policy, actors.tokenizer, context.folder.path / "checkpoints" / str(step))
        keep_best(context, stage, actors, progress, step, numbers)
        return {f"eval/{name}": value for name, value in numbers.items()}

    prompts_per_step = stage.rollout.batch_size // stage.rollout.group_size
    fit(
        context,
        actors.learner,
        rollout_steps(context, stage, actors, asked, progress, mixed(context, stage, path, tokenizer)),
        ppo,
        params={"clip": params.clip, "value_coef": params.value_coef, "value_clip": params.value_clip},
        stage=stage,
        optim=stage.optim,
        total=step_count(len(asked), prompts_per_step, epochs=stage.optim.epochs, steps=stage.optim.steps),
        progress=progress,
        evaluate=evaluate if held_asked else None,
    )
    save_model(actors.critic, tokenizer, context.folder.path / "critic")
    if not held_asked:
        save_model(actors.policy, tokenizer, context.folder.model)
        context.folder.note(result={"step": progress.step, "why": "the last step: no eval_data to choose on"})


# ------------------------------------------------------------------------------------------------------ the algorithm


def rollout_steps(
    context: Context, stage: Policy, actors: Actors, asked: Sequence[Asked], progress: Progress, mix: Sequence[Group]
) -> Iterator[Step]:
    """Rollout batches without end: each becomes `epochs` passes of minibatches over the same answers.

    Beside each minibatch stand rows of `mix`, if there are any.
    """
    params, rollout = stage.params, stage.rollout
    beta = cast(float, progress.memory.setdefault("beta", params.kl))
    prompts = order(len(asked), rollout.batch_size // rollout.group_size, seed=context.seed, start=progress.step)
    for index in prompts:
        # 1. Sample. The number of an answer, with the seed, decides its noise.
        clock = [time.perf_counter()]
        number = progress.step * rollout.batch_size
        asks = [
            Ask(prompt=a.prompt, tokens=a.tokens, number=number + i * rollout.group_size + k, group=i, meta=a.meta)
            for i, a in enumerate(asked[j] for j in index)
            for k in range(rollout.group_size)
        ]
        rollouts = context.engine.generate(
            actors.sampler, asks, max_new_tokens=rollout.max_new_tokens, temperature=rollout.temperature,
            seed=context.seed, version=progress.step,
        )  # fmt: skip
        clock.append(time.perf_counter())
        # 2. Score.
        scores = actors.reward(rollouts)
        clock.append(time.perf_counter())
        # 3. Credit: KL-shaped token rewards, advantages, returns.
        batch, numbers = credit(
            rollouts, scores, actors, context.engine, params, beta=beta, temperature=rollout.temperature,
            micro_tokens=stage.optim.micro_tokens,
        )  # fmt: skip
        # 4. The controller steers beta towards the target (Ziegler et al. 2019, section 2.2).
        if params.kl_target is not None and "kl/mean" in numbers:
            beta *= kl_correction(numbers["kl/mean"], params.kl_target, params.kl_horizon, len(rollouts))
            progress.memory["beta"] = beta
        clock.append(time.perf_counter())
        for name, start, end in zip(("rollout", "score", "prepare"), clock, clock[1:], strict=False):
            numbers[f"time/{name}"] = end - start
        context.folder.sample(shown(rollouts[:4], scores[:4], progress.step + 1))
        # 5. Minibatches. While the critic warms up the policy rests.
        warming = progress.step < params.critic_warmup
        actors.learner.resting = {"policy"} if warming else set()
        batches = minibatches(batch, stage.optim.batch_size, params.epochs, seed=context.seed, step=progress.step)
        beside = [] if warming else mix_parts(context, stage, actors, mix, len(batches), progress.step)
        yield Step(batches, numbers, {"policy_coef": 0.0 if warming else 1.0}, beside)


def mix_parts(
    context: Context, stage: Policy, actors: Actors, groups: Sequence[Group], count: int, step: int
) -> list[Part]:
    """So many batches of the mixed data, one for each update of a step; none where nothing is mixed in."""
    if not stage.mix:
        return []
    batches = order(len(groups), stage.mix.batch_size, seed=context.seed, start=step * count)
    pad = pad_id(actors.tokenizer)
    made = [collate([groups[i] for i in next(batches)], pad) for _ in range(count)]
    return [Part(batch, sft, weight=stage.mix.coef, name="mix") for batch in made]


def credit(
    rollouts: Sequence[Rollout], scores: Sequence[Score], actors: Actors, engine: Engine, params: PpoParams, *,
    beta: float, temperature: float, micro_tokens: int,
) -> tuple[Batch, dict[str, float]]:  # fmt: skip
    """Rollouts as a batch with everything the objective needs, and the numbers to log.

    Whatever couples rows (whitening) happens here, over the whole rollout batch, before it is split.
    """
    batch = as_batch(rollouts, pad_id(actors.tokenizer), temperature)
    value = torch.tensor([score.value for score in scores])  # [B]
    scored = ~value.isnan()
    batch.train &= scored[:, None]  # what could not be scored teaches nothing
    finished = torch.tensor([rollout.finish == "stop" for rollout in rollouts])
    shaped = value.nan_to_num(0.0) - params.missing_eos * (~finished)

    # The trainer's own log-probs, not the sampler's: the ratio must be exactly 1 before the first update.
    old = engine.outputs(actors.learner.roles, batch, ["logp", "score"], micro_tokens=micro_tokens)
    ref = engine.outputs(Roles(policy=actors.reference), batch, ["logp"], micro_tokens=micro_tokens)
    reward = token_rewards(shaped, old.logp, ref.logp, batch.train, kl=beta)
    old_value = before(old.score) * batch.train
    advantage = gae(reward, old_value, batch.train, gamma=params.gamma, lam=params.lam)
    returns = (advantage + old_value) * batch.train
    batch.extra |= {
        "old_logp": old.logp,
        "old_value": old_value,
        "return": returns,
        "advantage": whiten(advantage, batch.train) if params.whiten else advantage,
    }
    kl = ((old.logp - ref.logp) * batch.train).sum(1)  # [B], k1 summed over tokens
    sampled = torch.cat([torch.tensor(rollout.logp) for rollout in rollouts])
    trained = old.logp[answer_mask(rollouts, batch)]
    numbers = {
        "reward/mean": _mean(value),
        **{f"reward/{part}": _mean(torch.tensor([s.parts[part] for s in scores])) for part in scores[0].parts},
        "reward/unscored": float((~scored).sum()),
        "kl/mean": float(kl[scored].mean()),
        "kl/beta": beta,
        "value/explained_variance": explained_variance(old_value[batch.train], returns[batch.train]),
        "rollout/length": float(np.mean([len(rollout.tokens) for rollout in rollouts])),
        "rollout/finished": float(finished.float().mean()),
    }
    if bool(scored.all()):
        numbers["sampler/mismatch"] = float((trained - sampled).abs().mean())
    return batch, {name: number for name, number in numbers.items() if math.isfinite(number)}


def answer_mask(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """Where the sampled tokens stand, [B, T]."""
    mask = torch.zeros_like(batch.train)
    for i, rollout in enumerate(rollouts):
        mask[i, len(rollout.prompt_tokens) : len(rollout.prompt_tokens) + len(rollout.tokens)] = True
    return mask


def kl_correction(kl: float, target: float, horizon: int, rollouts: int) -> float:
    """The factor on beta after a batch: proportional control with the error clipped at 20 % (Ziegler et al. 2019)."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return 1 + error * rollouts / horizon


def _mean(values: Tensor) -> float:
    return float(values[~values.isnan()].mean())


# ------------------------------------------------------------------------------------------------- held-out prompts


def held_out(context: Context, stage: Policy, actors: Actors, asked: Sequence[Asked]) -> dict[str, float]:
    """Reward, exact KL, length and finish of sampled answers to the held-out prompts (the same noise at every step)."""
    asks = [Ask(prompt=a.prompt, tokens=a.tokens, number=i, group=i, meta=a.meta) for i, a in enumerate(asked)]
    rollouts = context.engine.generate(
        actors.sampler, asks, max_new_tokens=stage.rollout.max_new_tokens, temperature=stage.rollout.temperature,
        seed=context.seed + 1,
    )  # fmt: skip
    reward = mean([score.value for score in actors.judge(rollouts)])
    batch = as_batch(rollouts, pad_id(actors.tokenizer), stage.rollout.temperature)
    kl = context.engine.kl(actors.policy, actors.reference, batch, micro_tokens=stage.optim.micro_tokens)
    found = {
        "kl": float(kl.sum(1).mean()),
        "length": float(np.mean([len(r.tokens) for r in rollouts])),
        "finished": float(np.mean([r.finish == "stop" for r in rollouts])),
    }
    return found | ({"reward": reward.value, "reward_stderr": reward.stderr} if reward else {})


def keep_best(
    context: Context, stage: Policy, actors: Actors, progress: Progress, step: int, numbers: dict[str, float]
) -> None:
    """Keep the policy in `model/` if no earlier one within the KL budget had a higher held-out reward."""
    budget = stage.params.kl_budget
    best = cast(float, progress.memory.get("best", -math.inf))
    if numbers.get("reward", -math.inf) <= best or (budget is not None and numbers["kl"] > budget):
        return
    progress.memory["best"] = numbers["reward"]
    save_model(actors.policy, actors.tokenizer, context.folder.model)
    why = "highest reward on held-out prompts" + ("" if budget is None else f" with at most {budget} nats of KL")
    limit = {} if budget is None else {"kl_budget": budget}
    context.folder.note(result={"step": step, **numbers, **limit, "why": why})


def shown(rollouts: Sequence[Rollout], scores: Sequence[Score], step: int) -> list[dict[str, object]]:
    """Rollouts as rows of samples.jsonl."""
    return [
        {"step": step, "prompt": r.prompt, "response": r.text, "finish": r.finish,
         "score": None if math.isnan(s.value) else s.value}
        for r, s in zip(rollouts, scores, strict=True)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ loading


def mixed(context: Context, stage: Policy, path: str, tokenizer: PreTrainedTokenizerBase) -> list[Group]:
    """The rows of `mix`: demonstrations, plain text, or both."""
    if not stage.mix:
        return []
    where, limits = f"{context.where}.mix", limits_of(stage, path, context)
    loaded, _ = prepare.load(stage.mix.data, None, where)
    texts = Loaded([record for record in loaded.records if isinstance(record, Text)])
    others = Loaded([record for record in loaded.records if not isinstance(record, Text)], loaded.dropped)
    groups = prepare.demonstrations(others, tokenizer, limits, f"{where}.data") if others.records else []
    say_kept(context, "mix", loaded, len(groups) + len(texts.records))
    return groups + (prepare.texts(texts, tokenizer, limits.max_tokens, f"{where}.data") if texts.records else [])


def load_actors(context: Context, stage: Policy, path: str, tokenizer: PreTrainedTokenizerBase) -> Actors:
    """Policy and critic in one learner; the reference; the sampler on the policy's own weights."""
    engine, optim, params = context.engine, stage.optim, stage.params
    policy = load_policy(path, tokenizer, f"{context.where}.model", train=stage.lora, seed=context.seed)
    start = context.path(stage.reference or stage.model)
    reference = policy_beside(policy, start, tokenizer, f"{context.where}.reference")
    critic = load_critic(context, stage, tokenizer, policy)
    reward = open_rewards(context, stage.rewards, tokenizer, optim.micro_tokens, beside=policy)
    chosen_by = stage.eval_rewards
    judge = open_rewards(context, chosen_by, tokenizer, optim.micro_tokens, beside=policy) if chosen_by else reward
    peaks = {"policy": optim.lr, "scorer": params.critic_lr or optim.lr}
    return Actors(
        learner=engine.learner(Roles(policy=policy, scorer=critic), optim, peaks=peaks),
        policy=policy,
        critic=critic,
        reference=engine.place(reference),
        sampler=LocalSampler(policy, tokenizer, stop_ids(tokenizer, path)),
        reward=reward,
        judge=judge,
        tokenizer=tokenizer,
    )


def load_critic(
    context: Context, stage: Policy, tokenizer: PreTrainedTokenizerBase, policy: PreTrainedModel
) -> PreTrainedModel:
    """The critic: from the first reward model that reads the policy's tokens, else from the policy with a head at 0.

    A reward model's head is divided by its `reward_std`, so that values begin on the scale of the rewards.
    """
    where = f"{context.where}.params.critic"
    models = [context.path(name) for name in stage.rewards if ".py:" not in name]
    path = context.path(stage.model if stage.params.critic in {"reward", "policy"} else stage.params.critic)
    if stage.params.critic == "reward" and models:
        same = load_tokenizer(models[0], where).get_vocab() == tokenizer.get_vocab()
        path = models[0] if same else path
    critic = scorer_beside(policy, path, tokenizer, where, train=stage.lora)
    as_critic(critic)
    return critic


def open_rewards(
    context: Context, rewards: Rewards, tokenizer: PreTrainedTokenizerBase, micro_tokens: int, *,
    beside: PreTrainedModel | None = None,
) -> Scorer:  # fmt: skip
    """The rewards of a recipe as one scorer; reward models that are adapters share the trunk of `beside` where they can."""
    where = f"{context.where}.rewards"
    return combine(
        rewards,
        lambda name, term: open_reward(
            context.members(name), term, context.engine, micro_tokens=micro_tokens, where=f"{where}.{name}",
            tokenizer=tokenizer, beside=beside,
        ),
        where,
    )  # fmt: skip
