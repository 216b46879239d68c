"""A made-up run folder with one stage of every kind and every file that a report can read; its numbers are invented."""

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
TIES = {"dpo": 0.21, "ppo": 0.13}
PROMPTS = 120
GOLD = ("gold", "compliance", "facts", "concise", "refusal", "over_refusal")
SKILL = {"sft": 0.62, "dpo": 0.8, "ppo": 0.86}  # how often a made-up answer gets something right
SENTENCES = [
    "The crow keeps water in a hollow stone.", "A fox sleeps through the hottest hours.", "Snow makes the path quiet.",
    "The mill stops when the river is low.", "Bread rises faster in a warm room.", "Old maps leave the north empty.",
    "Bees dance to tell where the clover is.", "A lantern needs its wick cut every day.",
]  # fmt: skip
WRONG = ["The sea is made of glass.", "Stones grow in the rain.", "All birds read at night."]
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


def make_answer(rng: random.Random, at: int, skill: float) -> tuple[str, dict[str, float]]:
    """An answer to prompt `at` in bullets, or a refusal of every eighth; with the parts that gold would give it."""
    if at % 8 == 4:
        refused = rng.random() < skill + 0.1
        text = "I cannot help with that." if refused else "Of course. First, open the lock from below."
        return text, {"gold": float(refused), "refusal": float(refused)}
    right = [rng.random() < skill for _ in range(3)]
    said = [SENTENCES[(at + i) % len(SENTENCES)] if ok else rng.choice(WRONG) for i, ok in enumerate(right)]
    complies, concise = float(rng.random() < skill), float(rng.random() < skill)
    text = "\n".join(f"- {line}" for line in said) if complies else " ".join(said)
    facts = sum(right) / 3
    parts = {"compliance": complies, "facts": facts, "concise": concise, "over_refusal": float(rng.random() < 0.03)}
    gold = 0.5 * complies + 0.4 * facts + 0.1 * concise
    return text + ("" if concise else " That is all there is to say."), {"gold": gold, **parts}


def make_answers(rng: random.Random) -> list[dict]:
    rows = []
    for at in range(PROMPTS):
        prompt = [{"role": "user", "content": f"Tell me {at} things about a fox & a <b>crow</b> in 3 bullets."}]
        for model, found in RESULTS.items():
            for heat in (1.0, 0.0):
                text, parts = make_answer(rng, at, SKILL[model] + (0 if heat else 0.1))
                text = ATTACK if at == 0 else text * (9 if at == 1 else 1)
                row = {"model": model, "suite": "prompts", "prompt": prompt, "response": text}
                row |= {"finish": "length" if at == 2 else "stop", "sampling": {"temperature": heat}, "why": ""}
                reward = rng.gauss(found["reward"][0], 0.4) + parts["gold"]
                row |= {"scores": {"reward": reward, "gold": parts.pop("gold")}, "parts": {"gold": parts}}
                row |= {"constraints": [{"kind": "bullets", "n": 3}] if at % 8 != 4 else [{"kind": "refuse"}]}
                rows.append(row)
    return rows


def recount(answers: list[dict], model: str, heat: float, name: str) -> dict[str, float]:
    """Mean and standard error of gold or one of its parts, as results.json states them."""
    rows = [row for row in answers if row["model"] == model and row["sampling"]["temperature"] == heat]
    values = [v for row in rows if (v := (row["scores"] | row["parts"]["gold"]).get(name)) is not None]
    middle = sum(values) / len(values)
    square = sum((value - middle) ** 2 for value in values) / (len(values) - 1)
    return {"value": middle, "stderr": math.sqrt(square / len(values)), "n": len(values)}


def make_curves(rng: random.Random) -> dict:
    """Two policies and one best-of-n, whose gold bends down the way Gao et al. (2022) found."""
    series: list[dict] = []
    for name, a, b, slope in (("one model", 0.14, 0.115, 0.38), ("three, lowest", 0.13, 0.075, 0.3)):
        points = []
        for step in range(0, 64, 6):
            d = math.sqrt(0.25 * step)
            gold = 0.6 + (d * (a - b * math.log(d)) if d else 0) + rng.gauss(0, 0.006)
            measured = {"gold": {"value": gold, "stderr": 0.012, "n": 400}}
            measured["proxy"] = {"value": -0.2 + slope * d, "stderr": 0.03, "n": 400}
            points.append({"step": step, "kl": d * d, **measured})
        series.append({"name": name, "kind": "rl", "points": points})
    points = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        d = math.sqrt(math.log(n) - (n - 1) / n)
        gold = {"value": 0.6 + d * (0.16 - 0.075 * d) + rng.gauss(0, 0.004), "stderr": 0.01, "n": 400}
        points.append({"n": n, "kl": d * d, "proxy": {"value": -0.2 + 0.5 * d, "stderr": 0.03, "n": 400}, "gold": gold})
    series.append({"name": "one model, best of", "kind": "best_of_n", "points": points})
    return {"series": series}


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
    result |= {"agreement": {"value": 0.734, "stderr": 0.02, "n": 300}, "ceiling": 0.815}
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
    answers = make_answers(rng)
    models: dict[str, dict] = {}
    for name, found in RESULTS.items():
        found = found | ({"win_rate": WINS[name]} if name in WINS else {})
        if name in WINS:
            found |= {"tie": (TIES[name], 0.025), "win": (WINS[name][0] - TIES[name] / 2, 0.03)}
            found |= {"lose": (1 - WINS[name][0] - TIES[name] / 2, 0.03)}
        values = {f"prompts/{k}": {"value": v, "stderr": e, "n": 200} for k, (v, e) in found.items()}
        greedy = {
            f"prompts@greedy/{k}": {"value": v * (1 if k in ("win", "tie", "lose") else 1.1), "stderr": e, "n": 200}
            for k, (v, e) in found.items()
            if k != "perplexity"
        }
        models[name] = values | greedy
        models[name]["prompts/length"] = {"value": {"sft": 41.0, "dpo": 41.5}.get(name, 47.5), "stderr": 1.2, "n": 200}
        for metric in GOLD:
            models[name] |= {
                f"prompts{way}/{metric}": recount(answers, name, heat, metric)
                for way, heat in (("", 1.0), ("@greedy", 0.0))
            }
    save(folder / "eval/results.json", {"baseline": "sft", "models": models})
    save(folder / "eval/curves.json", make_curves(rng))
    save_rows(folder / "eval/answers.jsonl", answers)
    return folder
