"""Recipes of healthy runs, of five kinds. A seed decides the rest."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.pitfalls import world

Table: TypeAlias = dict[str, object]
REWARDS = str(Path(__file__).with_name("rewards.py"))
KINDS = ("sft", "reward", "ppo", "group", "dpo")


@dataclass(frozen=True)
class Made:
    """What runs have in common: models and data in a folder."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        """Where `base`, `start`, `reward` or `judge` lie."""
        return str(self.folder / name / "it/model") if name != "base" else str(self.folder / "base")

    def file(self, name: str, rows: list[world.Row]) -> str:
        """Rows as a file of the folder."""
        return world.write(self.folder / f"{name}.jsonl", rows)


def by(name: str) -> str:
    """A function of rewards.py."""
    return f"{REWARDS}:{name}"


def between(dice: random.Random, low: float, high: float) -> float:
    """Evenly on a logarithmic scale, to two digits."""
    return float(f"{low * (high / low) ** dice.random():.2g}")


def asked(made: Made, seed: int, dice: random.Random) -> str:
    """Prompts to train on."""
    return made.file(f"prompts-{seed}", [{"prompt": world.ask(text)} for text in dice.sample(world.TRAIN, 40)])


def held(made: Made) -> str:
    """Prompts that choose the checkpoint."""
    dice = random.Random(1)
    texts = [*world.HELD, *(world.OPINION.format(t, world.claim(t, dice)) for t in world.THINGS)]
    return made.file("held", [{"prompt": world.ask(text)} for text in texts])


def measured(made: Made, rewards: Table, curves: bool = False) -> dict[str, Table]:
    """Two comparisons with the start: of gold and reward, and of what should stay as it was."""
    facts = made.file("report", [{"prompt": world.ask(text)} for text in world.ASKED])
    dice = random.Random(0)
    opinions = [world.OPINION.format(t, world.claim(t, dice)) for t in world.THINGS for _ in range(4)]
    known = [world.demonstration(world.COLOUR.format(t), f"the {t} is {world.COLOUR_OF[t]}.") for t in world.THINGS]
    common: Table = {
        "kind": "evaluate", "models": {"start": made.start, "it": "@it"}, "sampling": {"max_new_tokens": 24},
    }  # fmt: skip
    told = made.file("opinions", [{"prompt": world.ask(text)} for text in opinions])
    found: dict[str, Table] = {
        "facts": {**common, "data": facts, "suites": [by("facts")], "rewards": rewards},
        "kept": {**common, "data": [made.file("known", known), told], "suites": [by("sycophancy")]},
    }
    if curves:
        found["facts"]["curves"] = {"it": "@it"}
    return found


def sft(made: Made, seed: int, dice: random.Random, **more: object) -> dict[str, Table]:
    """Demonstrations: from random weights, or on and on."""
    fresh = dice.random() < 0.5
    rows = list(world.chats(dice, 6))
    dice.shuffle(rows)
    optim: Table = {
        "lr": between(dice, 1e-3, 5e-3) if fresh else between(dice, 1e-4, 5e-4),
        "batch_size": 16,
        "epochs": 2,
    }
    it: Table = {
        "kind": "sft", "model": made.base if fresh else made.start, "data": made.file(f"chats-{seed}", rows[:400]),
        "eval_data": 0.15, "optim": optim, **more,
    }  # fmt: skip
    return {"it": it} if fresh else {"it": it, "kept": measured(made, {})["kept"]}


def reward(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """A reward model on labels of which some are wrong."""
    data = made.file(f"pairs-{seed}", dice.sample(made_pairs(made, dice, noise=0.1), 220))
    optim: Table = {"lr": between(dice, 3e-4, 2e-3), "batch_size": 16, "epochs": dice.choice([1, 2])}
    return {"it": {"kind": "reward", "model": made.start, "data": data, "eval_data": 0.25, "optim": optim}}


def policy(
    made: Made, seed: int, dice: random.Random, *, group: int = 1, rewards: Table | None = None, judge: str = "",
    params: Table | None = None, lr: float = 0.0, steps: int = 16, curves: bool = False,
) -> dict[str, Table]:  # fmt: skip
    """PPO, or with groups of answers GRPO or RLOO, on a reward model, with another to choose the checkpoint."""
    rewards = rewards or {made.reward: 1.0}
    objective = "ppo" if group == 1 else dice.choice(["grpo", "rloo"])
    given: Table = {"kl": between(dice, 0.05, 0.15), "missing_eos": 1.0}
    given |= {"critic_lr": between(dice, 2e-3, 5e-3), "critic_warmup": 1, "epochs": 2} if group == 1 else {}
    own = between(dice, 1.5e-4, 5e-4)
    it: Table = {
        "kind": "policy", "model": made.start, "data": asked(made, seed, dice), "eval_data": held(made), "eval": 4,
        "rewards": rewards, "eval_rewards": {judge or made.judge: 1.0}, "objective": objective,
        "params": given | (params or {}), "rollout": {"batch_size": 48, "group_size": group, "max_new_tokens": 24},
        "optim": {"lr": lr or own, "batch_size": 24, "steps": steps}, "checkpoints": curves,
    }  # fmt: skip
    return {"it": it, **measured(made, rewards, curves)}


def ppo(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """PPO, every other time with curves over its checkpoints."""
    return policy(made, seed, dice, curves=seed % 2 == 0)


def group(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """GRPO or RLOO."""
    return policy(made, seed, dice, group=4)


def dpo(made: Made, seed: int, dice: random.Random, data: str = "", **optim: object) -> dict[str, Table]:
    """DPO on the model's own answers, with the chosen ones' loss beside it or without."""
    data = data or made.file(f"pairs-{seed}", dice.sample(made_pairs(made, dice, noise=0.05), 220))
    given: Table = {"lr": between(dice, 1e-4, 5e-4), "batch_size": 16, "epochs": dice.choice([1, 2]), **optim}
    params: Table = {"beta": 0.1, "sft": dice.choice([0.0, 1.0])}
    it: Table = {
        "kind": "preference",
        "model": made.start,
        "data": data,
        "eval_data": 0.2,
        "params": params,
        "optim": given,
    }
    return {"it": it, **measured(made, {made.reward: 1.0})}


def made_pairs(made: Made, dice: random.Random, *, noise: float) -> list[world.Row]:
    """Comparisons of answers that the start has sampled for all runs, labelled for this one."""
    return world.pairs(world.sampled(made.folder / "sampled.jsonl"), world.EACH, dice, noise=noise)


Recipe: TypeAlias = Callable[[Made, int, random.Random], dict[str, Table]]
HEALTHY: dict[str, Recipe] = {"sft": sft, "reward": reward, "ppo": ppo, "group": group, "dpo": dpo}
