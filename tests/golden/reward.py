"""Golden vectors of reward models in plain numpy: `python tests/golden/reward.py` writes reward.json beside this file.

Each loss is written out over Python lists as its paper has it; gradients are central differences in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Case = dict[str, dict[str, object]]
RANKS = [[2, 1, 3, 4], [1, 2], [1, 1, 2], [3, 2, 1, 1, 2], [1, 1]]  # of any size, ties among them, one a tie of two


def log_sigmoid(x: float) -> float:
    return float(-np.log1p(np.exp(-x)))


def gradient(loss: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Central differences."""
    found = np.zeros_like(at)
    for i in range(len(at)):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        found[i] = (loss(up) - loss(down)) / (2 * step)
    return found


def pairs(seed: int, *, label_smoothing: float, margin: bool, centre: float) -> Case:
    """Bradley-Terry on pairs, a mean over pairs: soft labels, weights, margins, and the square of the sum."""
    draw = np.random.default_rng(seed)
    reward = draw.normal(0, 1.5, 12)  # chosen and rejected in turn
    prob = np.array([1.0, 0.7, 0.25, 1.0, 0.5, 0.0])
    weight = np.array([1.0, 2.0, 0.5, 0.0, 1.5, 3.0])
    least = draw.choice([0.0, 1 / 3, 2 / 3, 1.0], 6)

    def loss(values: Array) -> float:
        total = 0.0
        for i in range(6):
            chosen, rejected = values[2 * i], values[2 * i + 1]
            m = least[i] if margin else 0.0
            p = (1 - label_smoothing) * prob[i] + label_smoothing * (1 - prob[i])
            total -= weight[i] * p * log_sigmoid(chosen - rejected - m)
            total -= weight[i] * (1 - p) * log_sigmoid(rejected - chosen - m)
            total += weight[i] * centre * (chosen + rejected) ** 2
        return total / 6

    return {
        "inputs": {"reward": reward, "prob": prob, "weight": weight, "margin": least},
        "params": {"label_smoothing": label_smoothing, "margin": margin, "centre": centre},
        "expected": {"loss": loss(reward), "gradient": gradient(loss, reward)},
    }


def rankings(seed: int, of_one: Callable[[Sequence[float], Sequence[int]], float], **params: object) -> Case:
    """A loss of one ranking, a mean over rankings; that of one rank only is left out where ties say nothing."""
    ranks = RANKS if params.get("ties") or of_one is plackett_luce else RANKS[:-1]
    reward = np.random.default_rng(seed).normal(0, 1.5, sum(map(len, ranks)))
    ends = np.cumsum([len(each) for each in ranks])[:-1]

    def loss(values: Array) -> float:
        each = np.split(values, ends)
        return float(np.mean([of_one(list(one), rank) for one, rank in zip(each, ranks, strict=True)]))

    return {
        "inputs": {"reward": reward, "ranks": ranks},
        "params": params,
        "expected": {"loss": loss(reward), "gradient": gradient(loss, reward)},
    }


def all_pairs(
    reward: Sequence[float], rank: Sequence[int], *, label_smoothing: float, centre: float, ties: bool
) -> float:
    """The mean over the comparisons of one ranking (Ouyang et al. 2022, eq. 1), a tie with the label 1/2."""
    losses: list[float] = []
    for i, j in combinations(range(len(rank)), 2):
        better, worse = (i, j) if rank[i] <= rank[j] else (j, i)
        if rank[i] == rank[j] and not ties:
            continue
        p = 0.5 if rank[i] == rank[j] else 1.0
        p = (1 - label_smoothing) * p + label_smoothing * (1 - p)
        apart = reward[better] - reward[worse]
        loss = -p * log_sigmoid(apart) - (1 - p) * log_sigmoid(-apart)
        losses.append(loss + centre * (reward[i] + reward[j]) ** 2)
    return sum(losses) / len(losses)


def plackett_luce(reward: Sequence[float], rank: Sequence[int]) -> float:
    """Rank by rank: prod exp(r) of the tied over (sum of exp(r) of the tied and all worse)^size, Breslow 1974.

    The mean over choices; one among a single answer is none.
    """
    log_likelihood, choices = 0.0, 0
    for level in sorted(set(rank)):
        tied = [r for r, of in zip(reward, rank, strict=True) if of == level]
        left = [r for r, of in zip(reward, rank, strict=True) if of >= level]
        log_likelihood += sum(tied) - len(tied) * float(np.log(np.exp(left).sum()))
        choices += len(tied) if len(left) > 1 else 0
    return -log_likelihood / choices


def best_of_k(reward: Sequence[float], rank: Sequence[int]) -> float:
    """-log softmax of the best answer (Ziegler et al. 2019, eq. 1), a mean over answers that are equally good."""
    total = float(np.log(np.exp(reward).sum()))
    return float(np.mean([total - r for r, of in zip(reward, rank, strict=True) if of == min(rank)]))


def ratings(seed: int) -> Case:
    draw = np.random.default_rng(seed)
    reward, label = draw.normal(0, 1.5, 8), np.array([0.0, 1.0, 1.0, 0.0, 4.5, 2.0, -1.0, 0.5])

    def loss(values: Array) -> float:
        return float(((values - label) ** 2).mean())

    expected = {"loss": loss(reward), "gradient": 2 * (reward - label) / 8}
    return {"inputs": {"reward": reward, "label": label}, "params": {}, "expected": expected}


def pooling(seed: int) -> Case:
    """The mean of the head over the answer's tokens up to each place, 0 before the first of them."""
    draw = np.random.default_rng(seed)
    score, spans = draw.normal(0, 1, (4, 7)), [(2, 7), (1, 4), (3, 4), (0, 0)]  # where each row's answer stands
    found = np.zeros((4, 7))
    for row, (start, end) in enumerate(spans):
        for at in range(7):
            seen = [float(score[row, t]) for t in range(start, min(end, at + 1))]
            found[row, at] = sum(seen) / len(seen) if seen else 0.0
    return {"inputs": {"score": score, "spans": spans}, "params": {}, "expected": {"mean": found}}


def calibration(seed: int) -> Case:
    """Guo et al. 2017, eq. 3: of the answer with the higher reward, how sure the model is and how often it is right.

    Ten bins of equal width over confidences from 1/2 to 1; a soft label is right by its probability.
    """
    draw = np.random.default_rng(seed)
    apart = np.append(draw.normal(0.8, 1.5, 59), 0.0)
    prob = np.where(draw.random(60) < 0.5, 1.0, draw.choice([0.6, 0.7, 0.8, 0.9], 60))
    sure = [1 / (1 + np.exp(-abs(m))) for m in apart]
    right = [0.5 if m == 0 else p if m > 0 else 1 - p for m, p in zip(apart, prob, strict=True)]
    error, points = 0.0, []
    for low in np.arange(10) / 20 + 0.5:
        inside = [i for i in range(60) if low <= sure[i] < low + 0.05]
        if inside:
            confidence, hits = np.mean([sure[i] for i in inside]), np.mean([right[i] for i in inside])
            points.append([float(confidence), float(hits), len(inside)])
            error += len(inside) / 60 * abs(hits - confidence)
    expected = {"ece": float(error), "points": points}
    return {"inputs": {"margin": apart, "prob": prob}, "params": {}, "expected": expected}


def training_range(seed: int) -> Case:
    """Mahalanobis distances under a covariance shrunk by OAS (Chen et al. 2010, eq. 23), and the 99 % quantile of others."""
    draw = np.random.default_rng(seed)
    mixed = draw.normal(0, 1, (6, 6))
    features, others, asked = (draw.normal(0, 1, (n, 6)) @ mixed + 3 for n in (14, 9, 4))
    n, p = features.shape
    s = np.cov(features.T, bias=True)
    t1, t2 = np.trace(s), np.trace(s @ s)
    rho = min(1.0, ((1 - 2 / p) * t2 + t1**2) / ((n + 1 - 2 / p) * (t2 - t1**2 / p)))
    inverse = np.linalg.inv((1 - rho) * s + rho * t1 / p * np.eye(p))

    def distance(x: Array) -> float:
        return float(np.sqrt((x - features.mean(0)) @ inverse @ (x - features.mean(0))))

    expected = {
        "limit": float(np.quantile([distance(x) for x in others], 0.99)),
        "distance": [distance(x) for x in asked],
    }
    return {"inputs": {"features": features, "others": others, "asked": asked}, "params": {}, "expected": expected}


def cases() -> dict[str, Case]:
    """Every case by its name; what stands before the dash is the objective."""
    ranked = {"label_smoothing": 0.0, "centre": 0.0, "ties": False}
    smooth = {"label_smoothing": 0.1, "centre": 0.02, "ties": True}
    return {
        "bradley_terry": pairs(0, label_smoothing=0.0, margin=False, centre=0.0),
        "bradley_terry-margin": pairs(1, label_smoothing=0.0, margin=True, centre=0.0),
        "bradley_terry-all": pairs(2, label_smoothing=0.15, margin=True, centre=0.01),
        "all_pairs": rankings(3, lambda r, k: all_pairs(r, k, **ranked), **ranked),
        "all_pairs-all": rankings(4, lambda r, k: all_pairs(r, k, **smooth), **smooth),
        "plackett_luce": rankings(5, plackett_luce),
        "best_of_k": rankings(6, best_of_k),
        "regression": ratings(7),
        "pooling": pooling(8),
        "calibration": calibration(9),
        "training_range": training_range(10),
    }


def rounded(value: object) -> object:
    """Numbers to ten significant digits, arrays as lists."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [rounded(inner) for inner in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def text() -> str:
    """What reward.json holds."""
    lines = [f" {json.dumps(name)}: {json.dumps(rounded(case))}" for name, case in cases().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".json").write_text(text())
