"""Golden vectors of policy optimisation, in plain numpy: `python tests/golden/policy.py` writes policy.json.

Every value is written out token by token. Where public systems differ, each variant is a case under the system's name:
openai/lm-human-preferences cbfd210 (oai2019), vwxyzjn/summarize_from_feedback_details ee77a9a (nplus), TRL f2cd577 (trl).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

SPANS = [(2, 6), (1, 3), (3, 8), (2, 7)]  # of the answers: first token, one past the last
ENDED = [True, False, True, False]
WIDTH = 9  # room for a place after every end token
GROUP = [0, 0, 1, 1]
Columns = dict[str, np.ndarray]


def mask(*, after: bool = False) -> np.ndarray:
    """Where the answers stand, with `after` also the place behind an end token."""
    found = np.zeros((len(SPANS), WIDTH))
    for row, (start, end) in enumerate(SPANS):
        found[row, start : end + (after and ENDED[row])] = 1
    return found


def columns(seed: int) -> Columns:
    """Random log-probs, values and scores, 0 outside the answers."""
    draw, train = np.random.default_rng(seed), mask()
    old = -draw.gamma(2.0, 0.5, train.shape)
    return {
        "logp": (old + 0.3 * draw.normal(size=train.shape)) * train,
        "old_logp": old * train,
        "ref_logp": (old + 0.5 * draw.normal(size=train.shape)) * train,
        "value": draw.normal(size=train.shape) * mask(after=True),  # before each token
        "new_value": draw.normal(size=train.shape) * mask(after=True),
        "advantage": draw.normal(size=train.shape) * train,
        "return": draw.normal(size=train.shape) * mask(after=True),
        "score": draw.normal(size=len(SPANS)),
        "entropy": draw.gamma(2.0, 0.5, train.shape) * train,
    }


def kl_estimate(log_ratio: float, estimator: str) -> float:
    """Schulman 2020: k1, k2, k3 of log pi - log pi_ref."""
    return {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": math.exp(-log_ratio) - 1 + log_ratio}[estimator]


def token_rewards(c: Columns, kl: float, estimator: str, *, after: bool) -> np.ndarray:
    """The price of each token, and the score at the last place that counts."""
    found = np.zeros((len(SPANS), WIDTH))
    for row, (start, end) in enumerate(SPANS):
        for t in range(start, end):
            found[row, t] = -kl * kl_estimate(c["old_logp"][row, t] - c["ref_logp"][row, t], estimator)
        found[row, end if after and ENDED[row] else end - 1] += c["score"][row]
    return found


def gae(reward: np.ndarray, value: np.ndarray, gamma: float, lam: float, *, after: bool) -> np.ndarray:
    """The double sum of Schulman et al. 2016, eq. 16."""
    found = np.zeros_like(reward)
    for row, (start, end) in enumerate(SPANS):
        stop = end + (after and ENDED[row])
        v = [*value[row, start:stop], 0.0]
        delta = [reward[row, start + i] + gamma * v[i + 1] - v[i] for i in range(stop - start)]
        for i in range(stop - start):
            found[row, start + i] = sum((gamma * lam) ** (j - i) * delta[j] for j in range(i, stop - start))
    return found


def whiten(values: np.ndarray, where: np.ndarray, *, shift: bool, bessel: bool) -> np.ndarray:
    """(x - mean) / sqrt(var + 1e-8), the mean added back unless `shift`."""
    kept = values[where > 0]
    scaled = (values - kept.mean()) / math.sqrt(kept.var(ddof=int(bessel)) + 1e-8)
    return (scaled if shift else scaled + kept.mean()) * where


def shape(score: np.ndarray, *, how: str, missing: float, length_penalty: float) -> np.ndarray:
    """What answers earn."""
    lengths = [end - start for start, end in SPANS]
    cut = [x - missing if how == "subtract" else -missing for x in score]
    return np.array([(x if e else y) - length_penalty * n
                     for x, y, e, n in zip(score, cut, ENDED, lengths, strict=True)])  # fmt: skip


def leave_one_out(reward: np.ndarray, group: list[int]) -> np.ndarray:
    """Less the mean of the others."""
    return np.array([r - np.mean([reward[j] for j in range(len(reward)) if group[j] == group[i] and j != i])
                     for i, r in enumerate(reward)])  # fmt: skip


def group_relative(reward: np.ndarray, group: list[int], *, std: bool) -> np.ndarray:
    """Less the mean of all, over their deviation (n - 1) + 1e-4."""
    found = np.zeros_like(reward)
    for i, r in enumerate(reward):
        own = reward[[j for j in range(len(reward)) if group[j] == group[i]]]
        found[i] = (r - own.mean()) / (own.std(ddof=1) + 1e-4 if std else 1.0)
    return found


def surrogate(advantage: float, log_ratio: float, clip: float) -> float:
    """Schulman et al. 2017, eq. 7."""
    ratio = math.exp(log_ratio)
    return min(advantage * ratio, advantage * min(max(ratio, 1 - clip), 1 + clip))


def ppo(c: Columns, clip: float, value_clip: float, *, after: bool) -> dict[str, float]:
    """Means over tokens, and over the places with a value."""
    policy, value = [], []
    for row, (start, end) in enumerate(SPANS):
        for t in range(start, end):
            policy.append(-surrogate(c["advantage"][row, t], c["logp"][row, t] - c["old_logp"][row, t], clip))
        for t in range(start, end + (after and ENDED[row])):
            new, old, target = c["new_value"][row, t], c["value"][row, t], c["return"][row, t]
            near = old + min(max(new - old, -value_clip), value_clip)
            value.append(0.5 * max((new - target) ** 2, (near - target) ** 2))
    return {"policy/loss": float(np.mean(policy)), "value/loss": float(np.mean(value))}


def in_loss(c: Columns, estimator: str, level: str, weights: list[float], per: float) -> float:
    """KL as a term of the loss, of `logp` now: answers weighted, over `per`."""
    total = 0.0
    for (row, (start, end)), weight in zip(enumerate(SPANS), weights, strict=True):
        steps = [c["logp"][row, t] - c["ref_logp"][row, t] for t in range(start, end)]
        whole = (
            kl_estimate(sum(steps), estimator) if level == "answer" else sum(kl_estimate(x, estimator) for x in steps)
        )
        total += weight * whole
    return total / per


def grpo(c: Columns, clip: float, length: str, estimator: str, level: str, longest: int) -> dict[str, float]:
    """Means as `length` has them; each answer's advantage is that of its first token."""
    tokens = sum(end - start for start, end in SPANS)
    per = tokens if length == "token" else len(SPANS)
    weights = [{"answer": 1 / (end - start), "token": 1.0, "constant": 1 / longest}[length] for start, end in SPANS]
    total = 0.0
    for (row, (start, end)), weight in zip(enumerate(SPANS), weights, strict=True):
        log_ratios = [c["logp"][row, t] - c["old_logp"][row, t] for t in range(start, end)]
        total -= weight * sum(surrogate(c["advantage"][row, start], x, clip) for x in log_ratios)
    return {"policy/loss": total / per, "kl/loss": in_loss(c, estimator, level, weights, per)}


def whole_answers(c: Columns, clip: float | None) -> dict[str, float]:
    """RLOO with a clip, REINFORCE without a ratio: means over answers."""
    total = 0.0
    for row, (start, end) in enumerate(SPANS):
        advantage = c["advantage"][row, start]
        new, old = c["logp"][row, start:end].sum(), c["old_logp"][row, start:end].sum()
        total -= advantage * new if clip is None else surrogate(advantage, new - old, clip)
    return {"policy/loss": total / len(SPANS)}


def cases() -> dict[str, dict[str, object]]:
    """Every case: inputs, params, expected."""
    found: dict[str, dict[str, object]] = {}

    def add(name: str, inputs: Columns, params: dict[str, object], expected: dict[str, object]) -> None:
        found[name] = {"inputs": inputs, "params": params, "expected": expected}

    c = columns(0)
    for estimator in ("k1", "k2", "k3"):
        for after in (False, True):
            reward = token_rewards(c, 0.3, estimator, after=after)
            used = {name: c[name] for name in ("old_logp", "ref_logp", "score")}
            add(f"token_rewards/{estimator}/{'after' if after else 'last'}", used,
                {"kl": 0.3, "estimator": estimator, "after": after}, {"reward": reward})  # fmt: skip
    reward = token_rewards(c, 0.3, "k1", after=False)
    for gamma, lam in ((1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)):
        add(f"gae/{gamma}/{lam}", {"reward": reward, "value": c["value"] * mask()}, {"gamma": gamma, "lam": lam},
            {"advantage": gae(reward, c["value"] * mask(), gamma, lam, after=False)})  # fmt: skip
    for name, shift, bessel in (
        ("oai2019/rewards", False, False), ("oai2019/advantages", True, False), ("nplus/advantages", True, False),
        ("trl/advantages", True, True), ("trl/rewards", False, True),
    ):  # fmt: skip
        add(f"whiten/{name}", {"values": c["advantage"]}, {"shift": shift, "bessel": bessel},
            {"values": whiten(c["advantage"], mask(), shift=shift, bessel=bessel)})  # fmt: skip
    for name, how in (("oai2019", "replace"), ("nplus", "replace"), ("trl", "subtract")):
        add(f"shape/{name}", {"score": c["score"]}, {"how": how, "missing": 1.0, "length_penalty": 0.0},
            {"score": shape(c["score"], how=how, missing=1.0, length_penalty=0.0)})  # fmt: skip
    add("shape/length", {"score": c["score"]}, {"how": "subtract", "missing": 0.5, "length_penalty": 0.1},
        {"score": shape(c["score"], how="subtract", missing=0.5, length_penalty=0.1)})  # fmt: skip
    for name, estimator, after, rewards, bessel in (
        ("oai2019", "k1", False, True, False), ("nplus", "k1", True, False, False), ("trl", "k1", True, False, True),
        ("k3", "k3", False, False, False),
    ):  # fmt: skip
        where = mask(after=after)
        earned = token_rewards(c, 0.3, estimator, after=after)
        earned = whiten(earned, where, shift=False, bessel=bessel) if rewards else earned
        value = c["value"] * where
        advantage = gae(earned, value, 1.0, 0.95, after=after)
        add(f"assign/{name}", {key: c[key] for key in ("old_logp", "ref_logp", "score", "value")},
            {"kl": 0.3, "kl_estimator": estimator, "after": after, "whiten_rewards": rewards, "bessel": bessel},
            {"return": advantage + value,
             "advantage": whiten(advantage * mask(), mask(), shift=True, bessel=bessel)})  # fmt: skip
    # A critic that knows nothing: one place later, every token earns one lambda less.
    only = {**c, "ref_logp": c["old_logp"], "value": c["value"] * 0}
    for after in (False, True):
        advantage = gae(token_rewards(only, 0.0, "k1", after=after), only["value"], 1.0, 0.95, after=after)
        add(f"assign/lambda/{'after' if after else 'last'}",
            {key: only[key] for key in ("old_logp", "ref_logp", "score", "value")},
            {"kl": 0.0, "kl_estimator": "k1", "after": after, "whiten": False},
            {"advantage": advantage * mask()})  # fmt: skip
    score = np.random.default_rng(1).normal(size=6)
    group = [0, 0, 0, 1, 1, 1]
    add("leave_one_out", {"reward": score}, {"group": group}, {"advantage": leave_one_out(score, group)})
    for std in (True, False):
        add(f"group_relative/{'std' if std else 'plain'}", {"reward": score}, {"group": group, "std": std},
            {"advantage": group_relative(score, group, std=std)})  # fmt: skip

    c = columns(2)
    for after in (False, True):
        names = ("logp", "old_logp", "ref_logp", "new_value", "value", "advantage", "return")
        add(f"ppo/{'after' if after else 'last'}", {key: c[key] for key in names},
            {"clip": 0.2, "value_clip": 0.2, "after": after}, ppo(c, 0.2, 0.2, after=after))  # fmt: skip
    c["advantage"] = np.repeat(np.random.default_rng(3).normal(size=(len(SPANS), 1)), WIDTH, 1) * mask()
    used = {key: c[key] for key in ("logp", "old_logp", "ref_logp", "advantage")}
    for length in ("answer", "token", "constant"):
        for estimator, level in (("k3", "token"), ("k2", "token"), ("k2", "answer"), ("k1", "answer")):
            add(f"grpo/{length}/{estimator}/{level}", used,
                {"clip": 0.2, "length": length, "kl_estimator": estimator, "kl_level": level, "max_new_tokens": 8},
                grpo(c, 0.2, length, estimator, level, 8))  # fmt: skip
    add("rloo", used, {"clip": 0.2}, whole_answers(c, 0.2))
    add("reinforce", used, {}, whole_answers(c, None))
    return found


def as_json() -> str:
    """All cases with ten significant digits."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, np.ndarray | list):
            return [plain(item) for item in value]
        return float(f"{float(value):.10g}") if isinstance(value, float | np.floating) else value

    return (
        "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(plain(case))}" for name, case in cases().items()) + "\n}\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".json").write_text(as_json(), encoding="utf-8")
