"""PPO and its relatives: sample answers, score them, give every token its credit, update the policy on them.

The algorithm reads from `rollout_steps` downwards; `examples/ppo.py` is the same on one page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import astuple, replace
from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from accord.console import say
from accord.data import prepare
from accord.data.batch import collate, minibatches, order, step_count
from accord.data.prepare import Asked
from accord.data.rows import Rows
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import Part, Progress, seed_all
from accord.estimate import mean
from accord.model import save_model
from accord.objectives import Objective, check_params, keywords, resolve
from accord.objectives.kl import adapted, multiplied, scheduled
from accord.objectives.likelihood import sft
from accord.objectives.policy import OBJECTIVES
from accord.recipe import Policy, PolicyParams, PpoParams
from accord.sampler import Rollout, as_batch, asks_of
from accord.score import Score
from accord.stages.actors import Actors, load_actors
from accord.stages.credit import Moments, credit
from accord.stages.fit import Context, Step, fit, limits_of, note_data, room_for, say_kept


def run(context: Context, stage: Policy) -> None:
    """Optimise the policy on its rewards; leaves in `model/` the best checkpoint on held-out prompts within the KL budget."""
    engine = context.engine
    objective = open_objective(stage, context.where)
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    asked, held_asked = read(context, stage, tokenizer, path)
    seed_all(context.seed)
    actors = load_actors(context, stage, path, tokenizer)
    progress = engine.load_state(actors.learner, context.folder.state)
    context.folder.cut_back(progress.sizes)
    if let_go(stage.params):
        said = f"{stage.params.kl_estimator} in the {stage.params.kl_in} does not hold the policy as KL does"
        say(f"{context.name:<10} {said}: docs/methods/kl.md says where it leads")
    if held_asked and not stage.eval_rewards:
        say(f"{context.name:<10} eval_rewards is not set: the checkpoint is chosen by the reward that is optimised")

    def evaluate(step: int) -> dict[str, float]:
        numbers = held_out(context, stage, actors, held_asked)
        if stage.checkpoints:
            save_model(actors.policy, actors.tokenizer, context.folder.path / "checkpoints" / str(step))
        keep_best(context, stage, actors, progress, step, numbers)
        return {f"eval/{name}": value for name, value in numbers.items()}

    def done() -> bool:
        return stage.patience is not None and cast(int, progress.memory.get("stale", 0)) >= stage.patience

    prompts_per_step = stage.rollout.batch_size // stage.rollout.group_size
    total = step_count(len(asked), prompts_per_step, epochs=stage.optim.epochs, steps=stage.optim.steps)
    mix = mixed(context, stage, path, tokenizer)
    fit(
        context,
        actors.learner,
        rollout_steps(context, stage, actors, asked, progress, mix, total=total, takes=keywords(objective).keys()),
        objective,
        params=loss_params(objective, stage),
        stage=stage,
        optim=stage.optim,
        total=total,
        progress=progress,
        evaluate=evaluate if held_asked else None,
        done=done,
    )
    if done():
        say(
            f"{context.name:<10} stopped at step {progress.step}: {stage.patience} evaluations without a better checkpoint"
        )
    if actors.critic is not None:
        save_model(actors.critic, tokenizer, context.folder.path / "critic")
    if not held_asked:
        save_model(actors.policy, tokenizer, context.folder.model)
        context.folder.note(result={"step": progress.step, "why": "the last step: no eval_data to choose on"})


def read(
    context: Context, stage: Policy, tokenizer: PreTrainedTokenizerBase, path: str
) -> tuple[list[Asked], list[Asked]]:
    """The prompts to learn on, and those held out."""
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    longest = limits_of(stage, path, context).max_tokens
    room = room_for(stage.rollout.max_new_tokens, longest, f"{context.where}.rollout.max_new_tokens")
    asked = prepare.prompts(train, tokenizer, room=room, where=f"{context.where}.data")
    held_asked = prepare.prompts(held, tokenizer, room=room, where=f"{context.where}.eval_data") if held else []
    note_data(context, train, len(asked), held, len(held_asked))
    return asked, held_asked


def open_objective(stage: Policy, where: str) -> Objective:
    """The objective, with the entropy's gradient where it is rewarded."""
    objective = resolve(stage.objective, OBJECTIVES, f"{where}.objective")
    check_params(objective, loss_params(objective, stage), f"{where}.params")
    return replace(objective, outputs=[*objective.outputs, "entropy_grad"]) if stage.params.entropy else objective


def let_go(params: PolicyParams) -> bool:
    """Whether the KL has an estimator whose gradient is not that of the KL: k1 in the loss, k2 or k3 in the reward."""
    return params.kl > 0 and (params.kl_in == "loss") == (params.kl_estimator == "k1")


def loss_params(objective: Objective, stage: Policy) -> dict[str, object]:
    """The params that the loss itself reads; the KL comes step by step, where it is in the loss."""
    known = {**stage.params.model_dump(), "max_new_tokens": stage.rollout.max_new_tokens}
    del known["kl"]
    own = stage.params.model_extra or {}
    return {name: value for name, value in known.items() if name in keywords(objective) or name in own}


# ------------------------------------------------------------------------------------------------------ the algorithm


def rollout_steps(
    context: Context, stage: Policy, actors: Actors, asked: Sequence[Asked], progress: Progress, mix: Rows | None,
    *, total: int, takes: Set[str],
) -> Iterator[Step]:  # fmt: skip
    """Rollout batches without end: each becomes `epochs` passes of minibatches over the same answers.

    Beside each minibatch stand rows of `mix`, if there are any. Of what changes from step to step the objective gets what it
    `takes`.
    """
    params, rollout = stage.params, stage.rollout
    beta = cast(float, progress.memory.setdefault("beta", params.kl))
    moments = Moments(*cast(list[float], progress.memory.get("moments", [])))
    limit = params.kl_stop
    enough = None if limit is None else lambda numbers: numbers["policy/approx_kl"] > limit
    prompts = order(len(asked), rollout.batch_size // rollout.group_size, seed=context.seed, start=progress.step)
    for index in prompts:
        # 1. Sample. The number of an answer, with the seed, decides its noise.
        clock = [time.perf_counter()]
        chosen = [asked[j] for j in index]
        asks = asks_of(chosen, each=rollout.group_size, start=progress.step * rollout.batch_size)
        rollouts = context.engine.generate(
            actors.sampler, asks, max_new_tokens=rollout.max_new_tokens, temperature=rollout.temperature,
            seed=context.seed, version=progress.step,
        )  # fmt: skip
        clock.append(time.perf_counter())
        # 2. Score.
        scores = actors.reward(rollouts)
        clock.append(time.perf_counter())
        # 3. Credit: what answers earn, KL-shaped token rewards, advantages, returns.
        if params.reward_norm:
            moments = moments.add([score.value for score in scores if not math.isnan(score.value)])
            progress.memory["moments"] = list(astuple(moments))
        batch, numbers = credit(
            rollouts, scores, actors, context.engine, params, rollout=rollout, beta=beta, moments=moments,
            micro_tokens=stage.optim.micro_tokens, once=once(stage),
        )  # fmt: skip
        of_step: dict[str, object] = {"kl": beta} if params.kl_in == "loss" else {}
        # 4. What steers beta: a schedule, a controller, a multiplier.
        done = (progress.step + 1) / total
        beta = steered(beta, numbers.get("kl/mean"), params, rollouts=len(rollouts), done=done)
        progress.memory["beta"] = beta
        clock.append(time.perf_counter())
        for name, start, end in zip(("rollout", "score", "prepare"), clock, clock[1:], strict=False):
            numbers[f"time/{name}"] = end - start
        context.folder.sample(shown(rollouts[:4], scores[:4], progress.step + 1))
        # 5. Minibatches. While the critic warms up the policy rests.
        warming = isinstance(params, PpoParams) and progress.step < params.critic_warmup
        actors.learner.resting = {"policy"} if warming else set()
        of_step |= {"policy_coef": 0.0} if warming else {}
        batches = minibatches(batch, stage.optim.batch_size, params.epochs, seed=context.seed, step=progress.step)
        beside = [] if warming else mix_parts(context, stage, actors, mix, len(batches), progress.step)
        yield Step(batches, numbers, {name: of_step[name] for name in takes & of_step.keys()}, beside, enough)


def mix_parts(context: Context, stage: Policy, actors: Actors, rows: Rows | None, count: int, step: int) -> list[Part]:
    """So many batches of the mixed data, one for each update of a step; none where nothing is mixed in."""
    if not stage.mix or rows is None:
        return []
    batches = order(len(rows), stage.mix.batch_size, seed=context.seed, start=step * count)
    pad = pad_id(actors.tokenizer)
    made = [collate(rows.select(next(batches)), pad) for _ in range(count)]
    return [Part(batch, sft, weight=stage.mix.coef, name="mix") for batch in made]


def once(stage: Policy) -> bool:
    """Whether answers are updated on but once, and nothing before the update asks the trainer how likely they were.

    For the KL in the reward the sampler's log-probs do, as long as they are of the temperature that is learned at.
    """
    params = stage.params
    alone = params.epochs == 1 and stage.optim.batch_size >= stage.rollout.batch_size
    said = params.kl_in == "loss" or params.logp_temperature or stage.rollout.temperature == 1
    return alone and said and not isinstance(params, PpoParams) and params.kl_target is None


def steered(beta: float, kl: float | None, params: PolicyParams, *, rollouts: int, done: float) -> float:
    """The weight of the KL after a batch whose answers, if known, are `kl` nats from the reference; `done` is the part of the
    run."""
    if params.kl_end is not None:
        return scheduled(params.kl, params.kl_end, done)
    if params.kl_target is None or kl is None:
        return beta
    if params.kl_control == "constraint":
        return multiplied(beta, kl, target=params.kl_target, rate=params.kl_rate)
    return adapted(beta, kl, target=params.kl_target, horizon=params.kl_horizon, rollouts=rollouts)


# ------------------------------------------------------------------------------------------------- held-out prompts


def held_out(context: Context, stage: Policy, actors: Actors, asked: Sequence[Asked]) -> dict[str, float]:
    """Reward, exact KL, length and finish of sampled answers to the held-out prompts (the same noise at every step)."""
    rollouts = context.engine.generate(
        actors.sampler, asks_of(asked), max_new_tokens=stage.rollout.max_new_tokens, temperature=stage.rollout.temperature,
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
        progress.memory["stale"] = cast(int, progress.memory.get("stale", 0)) + 1
        return
    progress.memory |= {"best": numbers["reward"], "stale": 0}
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


def mixed(context: Context, stage: Policy, path: str, tokenizer: PreTrainedTokenizerBase) -> Rows | None:
    """The rows of `mix`: demonstrations, plain text, or both."""
    if not stage.mix:
        return None
    where, limits = f"{context.where}.mix", limits_of(stage, path, context)
    loaded, _ = prepare.load(stage.mix.data, None, where)
    rows = prepare.mixed(loaded, tokenizer, limits, f"{where}.data")
    say_kept(context, "mix", loaded, loaded.kept)
    return rows
