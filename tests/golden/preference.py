"""Golden values of the DPO family in plain numpy: `python tests/golden/preference.py` writes preference.json beside it.

A case has the columns of a batch, the parameters, and what is expected: the sum of each term, the metrics, and the slope of the
whole loss (terms times their weights) in each token's log-prob, which is one number for all train tokens of a row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Case: TypeAlias = dict[str, dict[str, object]]
LENGTHS = [3, 5, 1, 4, 6, 2, 2, 5]  # of the answers, in tokens


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def rounded(values: object) -> object:
    """Every number to 10 significant digits, arrays as lists."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, bool):
        return values
    if isinstance(values, list | np.ndarray):
        return [rounded(value) for value in np.asarray(values).tolist()]
    return float(f"{values:.10g}")


# ------------------------------------------------------------------------------------------------------------- inputs


def columns(seed: int) -> dict[str, Array]:
    """Log-probs of ragged answers behind prompts of one token, [8, 7], 0 outside them."""
    dice = np.random.default_rng(seed)
    train = np.array([[1.0 if 0 < t <= length else 0.0 for t in range(7)] for length in LENGTHS])
    logp = -np.round(dice.uniform(0.05, 2.5, train.shape), 4) * train
    ref_logp = np.round(logp + dice.normal(size=train.shape), 4).clip(max=-0.01) * train
    return {"train": train, "logp": logp + 0.0, "ref_logp": ref_logp + 0.0}  # no -0.0


def pairs(seed: int, *, soft: bool) -> dict[str, Array]:
    prob, weight = ([0.9, 0.5, 0.0, 0.7], [2.0, 0.5, 1.0, 0.0]) if soft else ([1.0] * 4, [1.0] * 4)
    return columns(seed) | {"prob": np.repeat(prob, 2), "weight": np.repeat(weight, 2)}


def ratings(seed: int, label: list[int], baseline: float) -> dict[str, Array]:
    share = [sum(label) / len(label)] * len(label)
    ours = {"label": label, "baseline": [baseline] * len(label), "good_share": share}
    return columns(seed) | {name: np.array(values, dtype=np.float64) for name, values in ours.items()}


# -------------------------------------------------------------------------------------------------------------- pairs


def loss_of(name: str, h: Array, params: dict[str, float]) -> tuple[Array, Array]:
    """The loss of each difference h and its slope."""
    beta = params["beta"]
    down, up = (softplus(-beta * h), -beta * sigmoid(-beta * h)), (softplus(beta * h), beta * sigmoid(beta * h))
    if name == "hinge":
        return np.maximum(0, 1 - beta * h), np.where(beta * h < 1, -beta, 0.0)
    if name == "ipo":
        return (h - 1 / (2 * beta)) ** 2, 2 * (h - 1 / (2 * beta))
    if name == "simpo":
        return softplus(params["gamma"] - beta * h), -beta * sigmoid(params["gamma"] - beta * h)
    if name in ("cdpo", "robust"):
        eps = params["label_smoothing"]
        keep, turn = (1 - eps, eps) if name == "cdpo" else ((1 - eps) / (1 - 2 * eps), -eps / (1 - 2 * eps))
        return keep * down[0] + turn * up[0], keep * down[1] + turn * up[1]
    return down  # dpo, and the odds ratio of orpo


DEFAULTS = {
    "simpo": {"beta": 2.0, "gamma": 1.0}, "orpo": {"beta": 1.0, "lam": 0.1},
    "cdpo": {"beta": 0.1, "label_smoothing": 0.1}, "robust": {"beta": 0.1, "label_smoothing": 0.1},
}  # fmt: skip


def pairwise(name: str, batch: dict[str, Array], **given: float) -> Case:
    """A case of an objective on pairs; what is not given is the default that the papers have."""
    params = DEFAULTS.get(name, {"beta": 0.1}) | given
    free = name in ("simpo", "orpo")
    length, logp = batch["train"].sum(1), batch["logp"].sum(1)
    value = logp - (0 if free or params.get("reference_free") else batch["ref_logp"].sum(1))
    by_logp = np.ones(8)  # the slope of a row's value in its log-prob
    if free or params.get("average"):
        value, by_logp = value / length, 1 / length
    if name == "orpo":
        chance = np.exp(value)
        value, by_logp = np.log(chance / (1 - chance)), by_logp / (1 - chance)

    h = value[0::2] - value[1::2]
    prob, weight = batch["prob"][0::2], batch["weight"][0::2]
    (kept, kept_slope), (turned, turned_slope) = loss_of(name, h, params), loss_of(name, -h, params)
    term, coef, sft = ("odds_ratio", params["lam"], 1.0) if name == "orpo" else (name, 1.0, params.get("sft", 0.0))
    terms = {term: (weight * (prob * kept + (1 - prob) * turned)).sum()}
    slope = coef * weight * (prob * kept_slope - (1 - prob) * turned_slope)  # in h
    gradient = np.stack([slope, -slope], 1).ravel() * by_logp
    if sft:
        share = np.stack([weight * prob, weight * (1 - prob)], 1).ravel()
        terms["sft"] = (-share * logp / length).sum()
        gradient = gradient - sft * share / length
    metrics = {
        "accuracy": (h > 0).sum(), "margin": params["beta"] * h.sum(),
        "chosen_logp": logp[0::2].sum(), "rejected_logp": logp[1::2].sum(),
    }  # fmt: skip
    return {"inputs": batch, "params": given, "expected": {"terms": terms, "metrics": metrics, "gradient": gradient}}


# ------------------------------------------------------------------------------------------------------------- ratings


def kto(batch: dict[str, Array], **params: float) -> Case:
    """A case of KTO, row by row."""
    beta, desirable, undesirable = (params.get(key, default) for key, default in
                                    (("beta", 0.1), ("desirable", 1.0), ("undesirable", 1.0)))  # fmt: skip
    length, logp = batch["train"].sum(1), batch["logp"].sum(1)
    ratio = logp - batch["ref_logp"].sum(1)
    total = right = nll = 0.0
    gradient = []
    good = [i for i in range(8) if batch["label"][i] == 1]
    bad = [i for i in range(8) if batch["label"][i] == 0]
    for i in range(8):
        sign, weight = (1, desirable) if i in good else (-1, undesirable)
        gain = float(sigmoid(sign * beta * (ratio[i] - batch["baseline"][i])))
        total += weight - weight * gain
        right += gain > 0.5
        gradient.append(-weight * gain * (1 - gain) * sign * beta)
        if i in good:
            nll -= logp[i] / length[i]
            gradient[i] -= params.get("sft", 0.0) / length[i]
    terms = {"kto": total} | ({"sft": nll} if params.get("sft") else {})
    metrics = {"accuracy": right, "baseline": batch["baseline"].sum()}
    if good and bad:  # 8 rows times the mean over those of a kind
        metrics["margin"] = 8 * beta * (ratio[good].mean() - ratio[bad].mean())
        metrics |= {"chosen_logp": 8 * logp[good].mean(), "rejected_logp": 8 * logp[bad].mean()}
    expected = {"terms": terms, "metrics": metrics, "gradient": gradient}
    return {"inputs": batch, "params": params, "expected": expected}


# --------------------------------------------------------------------------------------------------------------- cases


def cases() -> object:
    """All cases by name, `<objective>` or `<objective>/<what is special>`."""
    found: dict[str, Case] = {}
    for seed, name in enumerate(("dpo", "hinge", "ipo", "cdpo", "robust")):
        found[name] = pairwise(name, pairs(seed, soft=False))
        found[f"{name}/soft"] = pairwise(name, pairs(seed + 10, soft=True), beta=0.4, sft=0.3)
        found[f"{name}/average"] = pairwise(name, pairs(seed + 20, soft=False), beta=1.5, average=True)
        found[f"{name}/reference_free"] = pairwise(name, pairs(seed + 30, soft=True), beta=0.2, reference_free=True)
    for name in ("cdpo", "robust"):
        found[f"{name}/smoother"] = pairwise(name, pairs(5, soft=True), beta=0.3, label_smoothing=0.35)
    for name, more in (("simpo", {"beta": 2.5, "gamma": 0.25, "sft": 0.2}), ("orpo", {"lam": 0.25})):
        found[name] = pairwise(name, pairs(6, soft=False))
        found[f"{name}/soft"] = pairwise(name, pairs(7, soft=True), **more)
    mixed = ratings(8, [1, 0, 0, 1, 0, 0, 0, 1], 0.8)
    found["kto"] = kto(mixed)
    found["kto/weighted"] = kto(mixed, beta=0.5, desirable=1.5, undesirable=0.75, sft=0.4)
    found["kto/all_good"] = kto(ratings(9, [1] * 8, 0.0))
    found["kto/all_bad"] = kto(ratings(9, [0] * 8, 0.3), sft=0.4)
    return rounded(found)


if __name__ == "__main__":
    Path(__file__).with_suffix(".json").write_text(json.dumps(cases(), separators=(",", ":")) + "\n", encoding="utf-8")
