"""The DPO family against golden values, which tests/golden/preference.py computes in plain numpy."""

from __future__ import annotations

import importlib.util
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from accord.data.batch import Batch
from accord.objectives.preference import OBJECTIVES
from accord.outputs import Outputs
from accord.recipe import PREFERENCE_PARAMS

GOLDEN = Path(__file__).parent / "golden" / "preference.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_script_makes_these_very_values() -> None:
    spec = importlib.util.spec_from_file_location("golden_preference", GOLDEN.with_suffix(".py"))
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.cases() == CASES


@pytest.mark.parametrize("name", CASES)
def test_values_and_slopes_are_golden(name: str) -> None:
    objective, expected = OBJECTIVES[name.partition("/")[0]], CASES[name]["expected"]
    columns = {key: torch.tensor(values, dtype=torch.float64) for key, values in CASES[name]["inputs"].items()}
    train = columns.pop("train").bool()
    logp = columns.pop("logp").requires_grad_()
    read = {key: columns[key] for key in objective.needed(CASES[name]["params"])}  # what is not needed is not there
    batch = Batch(torch.ones(train.shape).long(), torch.ones_like(train), train, torch.arange(8), read)
    loss = objective(Outputs({"logp": logp}), batch, **CASES[name]["params"])
    assert {key: value.item() for key, (value, _, _) in loss.terms.items()} == pytest.approx(
        expected["terms"], rel=1e-9
    )
    assert {key: value.item() for key, (value, _) in loss.metrics.items()} == pytest.approx(
        expected["metrics"], rel=1e-6
    )
    unit = "row" if name.startswith("kto") else "pair"
    assert {of for _, of, *_ in [*loss.terms.values(), *loss.metrics.values()]} == {unit}
    sum(weight * value for value, _, weight in loss.terms.values()).backward()
    slopes = np.array(expected["gradient"])[:, None].repeat(train.shape[1], 1)
    np.testing.assert_allclose(logp.grad.numpy()[train], slopes[train], rtol=1e-8, atol=1e-12)


def test_every_objective_and_every_kink_has_golden_values() -> None:
    assert {name.partition("/")[0] for name in CASES} == set(OBJECTIVES)
    slopes = [slope for name in CASES if name.startswith("hinge") for slope in CASES[name]["expected"]["gradient"]]
    assert 0 < sum(slope == 0 for slope in slopes) < len(slopes)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_recipes_and_objectives_agree_on_params(name: str) -> None:
    given = inspect.signature(OBJECTIVES[name].function).parameters.values()
    defaults = {each.name: each.default for each in given if each.kind is inspect.Parameter.KEYWORD_ONLY}
    assert PREFERENCE_PARAMS[name]().model_dump() == defaults


def test_recipes_and_objectives_have_the_same_names() -> None:
    assert set(PREFERENCE_PARAMS) == set(OBJECTIVES)


def test_the_odds_of_a_certain_answer_are_finite() -> None:
    train = torch.tensor([[False, True, True]] * 4)
    # A probability of one: certain, and a hair under it.
    logp = torch.tensor(
        [[0.0, 0.0, 0.0], [0.0, -1.0, -2.0], [0.0, -60.0, -90.0], [0.0, -1e-8, 0.0]], requires_grad=True
    )
    columns = {"prob": torch.ones(4), "weight": torch.ones(4)}
    batch = Batch(torch.ones(4, 3).long(), torch.ones_like(train), train, torch.arange(4), columns)
    loss = OBJECTIVES["orpo"](Outputs({"logp": logp}), batch)
    (loss.terms["odds_ratio"][0] + loss.terms["sft"][0]).backward()
    # The chance next to 1, 1 - 2^-23, has log odds of 15.9424, e^-1.5 has -1.2475, e^-75 has -75.
    assert float(loss.metrics["margin"][0]) == pytest.approx((15.9424 + 1.2475) + (-75 - 15.9424), rel=1e-4)
    assert logp.grad.isfinite().all()
