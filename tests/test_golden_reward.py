"""Losses of reward models against the vectors that tests/golden/reward.py computes in plain numpy."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from accord.data.batch import Batch, Unit
from accord.data.prepare import compared
from accord.objectives import Objective
from accord.objectives.reward import all_pairs, best_of_k, bradley_terry, plackett_luce, regression
from accord.outputs import Outputs, running_mean
from accord.score.training_range import fit_range
from accord.stages.reward_quality import Row, calibration

GOLDEN = Path(__file__).parent / "golden" / "reward.json"
CASES: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())
OBJECTIVES = {
    "bradley_terry": bradley_terry, "all_pairs": all_pairs, "plackett_luce": plackett_luce, "best_of_k": best_of_k,
    "regression": regression,
}  # fmt: skip
LOSSES = [name for name in CASES if name.partition("-")[0] in OBJECTIVES]
UNITS: dict[str, Unit] = {"bradley_terry": "pair", "regression": "row"}


def test_the_script_still_makes_these_vectors() -> None:
    """To ten digits: the last ones are the processor's."""
    made = json.loads(runpy.run_path(str(GOLDEN.with_suffix(".py")))["text"]())
    assert numbers(made) == pytest.approx(numbers(json.loads(GOLDEN.read_text())), rel=1e-9, abs=1e-9)


def numbers(of: object, path: str = "") -> dict[str, object]:
    """Every value of nested tables and lists, by its path."""
    if isinstance(of, dict | list):
        parts = of.items() if isinstance(of, dict) else enumerate(of)
        return {key: value for name, part in parts for key, value in numbers(part, f"{path}/{name}").items()}
    return {path: of}


def batch_of(inputs: dict[str, Any], *, ties: bool) -> Batch:
    """The inputs of a case as a batch of rows of one token, whose score is the reward."""
    rows = len(inputs["reward"])
    columns: dict[str, list[float]] = {}
    for name in ("prob", "weight", "margin"):  # of pairs: both rows carry them
        if name in inputs:
            columns[name] = [value for value in inputs[name] for _ in range(2)]
    if "label" in inputs:
        columns["label"] = inputs["label"]
    group = [row // 2 if "prob" in inputs else row for row in range(rows)]
    if "ranks" in inputs:
        ranks = inputs["ranks"]
        group = [i for i, of in enumerate(ranks) for _ in of]
        columns["rank"] = [rank for of in ranks for rank in of]
        columns["share"] = [1 / len(compared(of, ties=ties)) for of in ranks for _ in of]
    extra = {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}
    ones = torch.ones(rows, 1, dtype=torch.bool)
    return Batch(ones.long(), ones, ones, torch.tensor(group), extra)


def mean_loss(objective: Objective, reward: Tensor, batch: Batch, params: dict[str, Any]) -> Tensor:
    """The loss as the engine makes it: each term over its units, times its weight."""
    loss = objective(Outputs({"reward": reward[:, None]}), batch, **params)
    counts = batch.counts()
    return torch.stack([weight * value / counts[unit] for value, unit, weight in loss.terms.values()]).sum()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_the_golden_ones(name: str) -> None:
    case = CASES[name]
    kind = name.partition("-")[0]
    batch = batch_of(case["inputs"], ties=kind == "plackett_luce" or bool(case["params"].get("ties")))
    reward = torch.tensor(case["inputs"]["reward"], dtype=torch.float64, requires_grad=True)
    loss = mean_loss(OBJECTIVES[kind], reward, batch, case["params"])
    assert loss.item() == pytest.approx(case["expected"]["loss"], rel=1e-7)
    loss.backward()
    assert reward.grad is not None
    assert reward.grad.tolist() == pytest.approx(case["expected"]["gradient"], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_averaged_over_its_own_unit(name: str) -> None:
    case = CASES[name]
    kind = name.partition("-")[0]
    batch = batch_of(case["inputs"], ties=kind == "plackett_luce" or bool(case["params"].get("ties")))
    score = torch.tensor(case["inputs"]["reward"])[:, None]
    loss = OBJECTIVES[kind](Outputs({"reward": score}), batch, **case["params"])
    assert {unit for _, unit, _ in loss.terms.values()} == {UNITS.get(kind, "group")}
    assert ("centre" in loss.terms) == bool(case["params"].get("centre"))


def test_mean_pooling_is_the_golden_one() -> None:
    case = CASES["pooling"]
    score = torch.tensor(case["inputs"]["score"], dtype=torch.float64)
    mask = torch.tensor([[start <= at < end for at in range(7)] for start, end in case["inputs"]["spans"]])
    expected = torch.tensor(case["expected"]["mean"], dtype=torch.float64)
    torch.testing.assert_close(running_mean(score, mask), expected, rtol=0, atol=1e-9)


def test_the_calibration_error_and_its_curve_are_the_golden_ones() -> None:
    case = CASES["calibration"]
    inputs = zip(case["inputs"]["margin"], case["inputs"]["prob"], strict=True)
    rows: list[Row] = [{"chosen": m + 2, "rejected": 2, "prob": p, "cluster": i} for i, (m, p) in enumerate(inputs)]
    found: dict[str, Any] = calibration(rows)
    assert (found["ece"]["value"], found["ece"]["n"]) == (pytest.approx(case["expected"]["ece"]), 60)
    points = [(point["confidence"], point["value"], point["n"]) for point in found["reliability"]]
    assert points == [pytest.approx(tuple(point)) for point in case["expected"]["points"]]


def test_distances_from_the_training_answers_are_the_golden_ones() -> None:
    case = CASES["training_range"]
    features, others, asked = (torch.tensor(case["inputs"][name]) for name in ("features", "others", "asked"))
    found = fit_range(features, others)
    assert found.limit == pytest.approx(case["expected"]["limit"], rel=1e-4)
    assert found.distance(asked).tolist() == pytest.approx(case["expected"]["distance"], rel=1e-4)
    assert found.outside(asked).tolist() == [float(d > case["expected"]["limit"]) for d in case["expected"]["distance"]]


def ranked(rank: list[int]) -> Batch:
    return batch_of({"reward": [0.0] * len(rank), "ranks": [rank]}, ties=True)


def test_a_ranking_of_two_is_bradley_terry_and_a_tie_of_two_its_soft_label_of_a_half() -> None:
    """Breslow's likelihood of a tie of two is the soft label's twice: one factor for each; its mean over choices is one."""
    reward = torch.tensor([0.7, -1.1])
    score = Outputs({"reward": reward[:, None]})
    breslow = torch.log(reward.exp().prod() / reward.exp().sum() ** 2)
    for prob, rank in ((1.0, [1, 2]), (0.5, [1, 1])):
        columns = {"prob": [prob], "weight": [1.0]}
        pair = batch_of({"reward": [0.0, 0.0], **columns}, ties=False)
        soft = bradley_terry(score, pair).terms["bradley_terry"][0].item()
        assert plackett_luce(score, ranked(rank)).terms["plackett_luce"][0].item() == pytest.approx(soft, rel=1e-6)
        assert all_pairs(score, ranked(rank), ties=True).terms["bradley_terry"][0].item() == pytest.approx(
            soft, rel=1e-6
        )
        if rank == [1, 1]:
            assert 2 * soft == pytest.approx(-breslow.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("rank", "reward", "accuracy", "margin"),
    [([2, 1, 3], [0.1, 2.0, -1.0], 1.0, 1.9), ([2, 1, 3], [2.0, 0.5, -1.0], 0.0, -1.5),
     ([1, 1, 2], [3.0, 1.0, 2.0], 1.0, 0.0), ([1, 2, 2], [2.0, 2.0, 2.0], 1 / 3, 0.0)],
)  # fmt: skip
def test_best_of_k_asks_for_the_best_alone(
    rank: list[int], reward: list[float], accuracy: float, margin: float
) -> None:
    metrics = best_of_k(Outputs({"reward": torch.tensor(reward)[:, None]}), ranked(rank)).metrics
    assert metrics["accuracy"][0].item() == pytest.approx(accuracy)
    assert metrics["margin"][0].item() == pytest.approx(margin, abs=1e-6)


def test_a_tied_comparison_is_half_right_and_has_no_margin() -> None:
    metrics = all_pairs(Outputs({"reward": torch.tensor([[3.0], [1.0], [0.0]])}), ranked([1, 1, 2]), ties=True).metrics
    assert metrics["accuracy"][0].item() == pytest.approx((0.5 + 1 + 1) / 3)
    assert metrics["margin"][0].item() == pytest.approx((0 + 3 + 1) / 3)
