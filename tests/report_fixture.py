"""A made-up run folder with one stage of every kind; all of its numbers are invented."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

HOME = "/home/me"  # nowhere on the page
RECIPE = """
name = "fixture"
seed = 7
[stage.base]
kind = "pretrain"
data = [{ source = "accord:demo/text" }]
[stage.base.shape]
layers = 2
width = 64
[stage.sft]
kind = "sft"
model = "@base"
data = [{ source = "accord:demo/chats" }, { source = "/home/me/projects/data/chats.jsonl" }]
[stage.reward]
kind = "reward"
model = "@sft"
ensemble = 3
folds = 4
[stage.ppo]
kind = "policy"
model = "@sft"
[stage.ppo.rewards."@reward"]
weight = 1.0
[stage.ppo.rewards."/home/me/projects/rewards/mine.py:brevity"]
weight = 0.2
[stage.ppo.params]
kl_budget = 8.0
[stage.dpo]
kind = "preference"
model = "@sft"
objective = "dpo"
[stage.eval]
kind = "evaluate"
models = { sft = "@sft", dpo = "@dpo", ppo = "@ppo" }
baseline = "sft"
"""
RESULTS = {
    "sft": {"reward": (0.312, 0.058), "kl": (0.0, 0.0), "perplexity": (9.41, 0.22)},
    "dpo": {"reward": (0.871, 0.049), "kl": (3.12, 0.11), "perplexity": (9.47, 0.25)},
    "ppo": {"reward": (1.243, 0.052), "kl": (6.28, 0.17), "perplexity": (12.9, 0.41)},
}
WINS = {"dpo": (0.664, 0.033), "ppo": (0.728, 0.031)}
ATTACK = "<script>alert('x')</script> & more"


def save(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def save_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def language_rows(rng: random.Random, steps: int, start: float) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        loss = 1.4 + start * math.exp(-3 * step / steps) + rng.gauss(0, 0.08)
        row = {"step": step, "loss": loss, "lr": 3e-3 * (1 - step / steps), "grad_norm": 1 + rng.random()}
        row["tokens_per_second"] = 5200 + 400 * rng.random()
        if step % max(1, steps // 8) == 0:
            row["eval/loss"] = loss + 0.1
            row["eval/perplexity"] = math.exp(loss + 0.1)
        rows.append(row)
    return rows


def pair_rows(rng: random.Random, steps: int, **more: int) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        done = 1 - math.exp(-3 * step / steps)
        row = {"step": step, **more, "loss": 0.69 - 0.3 * done + rng.gauss(0, 0.03), "lr": 1e-4}
        row |= {"accuracy": 0.5 + 0.25 * done + rng.gauss(0, 0.04), "margin": done + rng.gauss(0, 0.1)}
        row |= {"grad_norm": 1 + rng.random()}
        if step % (steps // 5) == 0:
            row |= {"eval/loss": 0.7 - 0.25 * done, "eval/accuracy": 0.5 + 0.2 * done}
            row |= {"eval/margin": 0.8 * done}
        rows.append(row)
    return rows


def policy_rows(rng: random.Random, steps: int) -> list[dict]:
    rows: list[dict] = []
    for step in range(steps + 1):
        done = step / steps
        row: dict = {"step": step}
        if step:
            row |= {"reward/mean": 0.3 + 1.2 * done + rng.gauss(0, 0.15), "kl/mean": 11 * done**1.3}
            row |= {"reward/reward": 0.4 + 1.2 * done + rng.gauss(0, 0.1), "reward/ended": -0.1 * rng.random()}
            row |= {"kl/beta": 0.05 + 0.02 * done, "policy/loss": rng.gauss(-0.01, 0.01)}
            row |= {"policy/clip_fraction": 0.1 + 0.05 * rng.random(), "policy/entropy": 2.3 - 0.8 * done}
            row |= {"value/loss": 0.4 * math.exp(-3 * done), "value/explained_variance": 0.8 * done}
            row |= {"rollout/length": 40 + 15 * done + rng.gauss(0, 2), "rollout/finished": 0.9 + 0.08 * done}
            row |= {"sampler/mismatch": 1e-6 * rng.random(), "time/rollout": 2 + rng.random()}
            row |= {"time/score": 0.4, "time/prepare": 0.3, "time/update": 1.5 + 0.3 * rng.random()}
        if step % (steps // 8) == 0:
            row |= {"eval/reward": 0.31 + 1.1 * done**0.7, "eval/reward_stderr": 0.06, "eval/kl": 11 * done**1.3}
            row |= {"eval/length": 41 + 14 * done, "eval/finished": 0.91 + 0.07 * done}
        rows.append(row)
    rows[20]["value/explained_variance"] = None
    return rows


def make_stage(folder: Path, kind: str, seconds: float, **more: object) -> None:
    record = {"kind": kind, "fingerprint": "0" * 8, "status": "done", "seconds": seconds}
    save(folder / "stage.json", record | more)


def make_answers(rng: random.Random) -> list[dict]:
    rows = []
    for at in range(40):
        prompt = [{"role": "user", "content": f"Tell me story {at} about a fox & a <b>crow</b>."}]
        for model, found in RESULTS.items():
            for heat in (1.0, 0.0):
                text = f"The {model} fox ran home. " * (40 if at == 1 else 4)
                row = {"model": model, "prompt": prompt, "response": ATTACK if at == 0 else text}
                row |= {"finish": "length" if at == 2 else "stop", "sampling": {"temperature": heat}}
                row |= {"scores": {"reward": rng.gauss(found["reward"][0], 0.7)}, "why": ""}
                rows.append(row)
    return rows


def make_run(folder: Path) -> Path:
    """Write a whole run."""
    rng = random.Random(7)
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    facts = {"versions": {"python": "3.11", "torch": "2.6"}, "seed": 7, "status": "done", "seconds": 4210.0}
    facts |= {"hardware": {"cpu": "fixture", "cores": 2}, "threads": 2, "started": "2025-01-01 00:00"}
    save(folder / "run.json", facts)
    make_stage(folder / "base", "pretrain", 905.0)
    save_rows(folder / "base/metrics.jsonl", language_rows(rng, 400, 2.0))
    dropped = {"identical": {"count": 2, "example": "same <i>twice</i>"}, "too_long": {"count": 48, "example": "a"}}
    dropped["empty_answer"] = {"count": 1, "example": "/home/me/projects/data/pairs.jsonl:7: rejected is empty"}
    train = {"read": 2000, "kept": 1950, "dropped": dropped}
    data = {"train": train, "eval": {"read": 100, "kept": 100, "dropped": {}}}
    make_stage(folder / "sft", "sft", 312.4, data=data)
    save_rows(folder / "sft/metrics.jsonl", language_rows(rng, 24, 0.6))
    folds = {"value": 0.702, "stderr": 0.011, "n": 1200, "each": [0.69, 0.72, 0.71, 0.688]}
    result = {"accuracy": {"value": 0.715, "stderr": 0.026, "n": 300}, "folds": folds}
    make_stage(folder / "reward", "reward", 640.0, result=result)
    rows = [row for member in range(3) for row in pair_rows(rng, 40, member=member)]
    save_rows(folder / "reward/metrics.jsonl", rows + pair_rows(rng, 40, fold=0))
    pairs = [{"chosen": rng.gauss(0.6, 1), "rejected": rng.gauss(-0.3, 1), "source": "a"} for _ in range(300)]
    save_rows(folder / "reward/scores.jsonl", pairs)
    for member in (1, 2):
        others = [row | {side: row[side] + 3 * member for side in ("chosen", "rejected")} for row in pairs]
        save_rows(folder / f"reward/scores-member-{member}.jsonl", others)
    # Written the way a policy stage does: the standard error stands beside its value.
    why = "Highest held-out reward among checkpoints within the KL budget."
    result = {"step": 45, "reward": 1.09, "reward_stderr": 0.06, "kl": 5.97, "kl_budget": 8.0, "why": why}
    make_stage(folder / "ppo", "policy", 1530.0, result=result)
    save_rows(folder / "ppo/metrics.jsonl", policy_rows(rng, 72))
    make_stage(folder / "dpo", "preference", 402.0)
    logps = [
        {"chosen_logp": -40 - row["margin"], "rejected_logp": -42 - 3 * row["margin"]} for row in pair_rows(rng, 80)
    ]
    rows = [row | more for row, more in zip(pair_rows(rng, 80), logps, strict=True)]
    save_rows(folder / "dpo/metrics.jsonl", rows)
    make_stage(folder / "eval", "evaluate", 118.0)
    models: dict[str, dict] = {}
    for name, found in RESULTS.items():
        found = found | ({"win_rate": WINS[name]} if name in WINS else {})
        values = {f"prompts/{k}": {"value": v, "stderr": e, "n": 200} for k, (v, e) in found.items()}
        greedy = {
            f"prompts@greedy/{k}": {"value": v * 1.1, "stderr": e, "n": 200}
            for k, (v, e) in found.items()
            if k != "perplexity"
        }
        models[name] = values | greedy
        models[name]["prompts/length"] = {"value": 47.5, "stderr": 1.2, "n": 200}
    save(folder / "eval/results.json", {"baseline": "sft", "models": models})
    save_rows(folder / "eval/answers.jsonl", make_answers(rng))
    return folder
