"""Policy objectives, advantages and KL estimators against golden vectors from plain numpy (tests/golden/policy.py)."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from accord.data.batch import Batch
from accord.objectives import Objective
from accord.objectives.advantage import gae, group_relative, leave_one_out, token_rewards, whiten
from accord.objectives.policy import OBJECTIVES
from accord.outputs import Outputs
from accord.recipe import PpoParams
from accord.stages.credit import Moments, assign, shape

GOLDEN = Path(__file__).parent / "golden/policy"
CASES = json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))
SPANS = ((2, 6), (1, 3), (3, 8), (2, 7))
ENDED = torch.tensor([True, False, True, False])


def cases(prefix: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Every case whose name begins so."""
    names = [name for name in CASES if name.split("/")[0] == prefix]
    assert names
    return pytest.mark.parametrize("name", names)


def case(name: str) -> tuple[dict[str, Tensor], dict[str, object], dict[str, Tensor]]:
    """Inputs, params and expected values, in float64."""
    found = CASES[name]
    double = [{key: torch.tensor(found[part][key], dtype=torch.float64) for key in found[part]}
              for part in ("inputs", "expected")]  # fmt: skip
    return double[0], dict(found["params"]), double[1]


def stretch(*, after: bool = False) -> Tensor:
    """Where the answers stand, [4, 9]; with `after` also the place behind an end token."""
    found = torch.zeros(len(SPANS), 9, dtype=torch.bool)
    for row, (start, end) in enumerate(SPANS):
        found[row, start : end + int(after and bool(ENDED[row]))] = True
    return found


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_the_script_makes_the_vectors() -> None:
    assert runpy.run_path(str(GOLDEN.with_suffix(".py")))["as_json"]() == GOLDEN.with_suffix(".json").read_text()


@cases("token_rewards")
def test_token_rewards(name: str) -> None:
    given, params, expected = case(name)
    after = bool(params.pop("after"))
    found = token_rewards(
        given["score"], given["old_logp"], given["ref_logp"], stretch(), valued=stretch(after=after), **params
    )
    same(found, expected["reward"])


@cases("gae")
def test_gae(name: str) -> None:
    given, params, expected = case(name)
    same(gae(given["reward"], given["value"], stretch(), **params), expected["advantage"])


@cases("whiten")
def test_whiten(name: str) -> None:
    given, params, expected = case(name)
    same(whiten(given["values"], stretch(), **params), expected["values"])


@cases("shape")
def test_shape(name: str) -> None:
    given, params, expected = case(name)
    settings = PpoParams(
        missing_eos_how=params["how"], missing_eos=params["missing"], length_penalty=params["length_penalty"]
    )
    lengths = torch.tensor([float(end - start) for start, end in SPANS], dtype=torch.float64)
    same(shape(given["score"], ENDED, lengths, settings, Moments()), expected["score"])


@cases("assign")
def test_assign(name: str) -> None:
    given, params, expected = case(name)
    valued = stretch(after=bool(params.pop("after")))
    batch = batch_of({**given, "valued": valued.double(), "old_value": given["value"] * valued})
    found = assign(batch, given["score"], torch.arange(4), PpoParams(**params), beta=float(params["kl"]))
    for key, value in expected.items():
        same(found[key], value)


@cases("leave_one_out")
def test_leave_one_out(name: str) -> None:
    given, params, expected = case(name)
    same(leave_one_out(given["reward"], torch.tensor(params["group"])), expected["advantage"])


@cases("group_relative")
def test_group_relative(name: str) -> None:
    given, params, expected = case(name)
    found = group_relative(given["reward"], torch.tensor(params["group"]), std=bool(params["std"]))
    same(found, expected["advantage"])


def batch_of(columns: dict[str, Tensor]) -> Batch:
    return Batch(torch.ones(4, 9).long(), torch.ones(4, 9).bool(), stretch(), torch.arange(4), columns)


def means(objective: Objective, given: dict[str, Tensor], params: dict[str, object]) -> dict[str, Tensor]:
    """Every term of a loss, averaged over its units."""
    entropy = torch.zeros_like(given["logp"])
    out = {"logp": given["logp"], "entropy": entropy}
    if "new_value" in given:
        out["value"] = given["new_value"]
    batch = batch_of(given)
    loss, counts = objective(Outputs(out), batch, **params), batch.counts()
    return {key: total / counts[unit] for key, (total, unit, _) in loss.terms.items()}


@cases("ppo")
def test_ppo(name: str) -> None:
    given, params, expected = case(name)
    valued = stretch(after=bool(params.pop("after")))
    found = means(OBJECTIVES["ppo"], {**given, "valued": valued.double(), "old_value": given["value"]}, params)
    for key, value in expected.items():
        same(found[key], value)


@cases("grpo")
def test_grpo(name: str) -> None:
    given, params, expected = case(name)
    found = means(OBJECTIVES["grpo"], given, {**params, "kl": 0.1})
    for key, value in expected.items():
        same(found[key], value)


@pytest.mark.parametrize("name", ["rloo", "reinforce"])
def test_whole_answers(name: str) -> None:
    given, params, expected = case(name)
    same(means(OBJECTIVES[name], given, params)["policy/loss"], expected["policy/loss"])


def test_one_place_later_costs_one_lambda() -> None:
    """Where the score has a place of its own after the end token, a critic at 0 gives every token 0.95 of its credit."""
    _, _, last = case("assign/lambda/last")
    _, _, after = case("assign/lambda/after")
    same(after["advantage"][ENDED], 0.95 * last["advantage"][ENDED])
    same(after["advantage"][~ENDED], last["advantage"][~ENDED])
