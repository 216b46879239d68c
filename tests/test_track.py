"""Metrics in TensorBoard's and Weights & Biases' own files, and in neither where nobody asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from accord.errors import RecipeError
from accord.recipe import Table
from accord.recipe_file import parse
from accord.run import read_rows
from accord.stages import run as run_recipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def table(base: Path, *trackers: str) -> Table:
    sft = {"kind": "sft", "model": str(base), "data": {"source": "accord:demo/chats", "limit": 32}, "eval_data": 0.2,
           "optim": {"steps": 3, "batch_size": 8}}  # fmt: skip
    reward = {"kind": "reward", "model": str(base), "data": {"source": "accord:demo/pairs", "limit": 20}, "ensemble": 2,
              "optim": {"steps": 2, "batch_size": 8}}  # fmt: skip
    machine = {"device": "cpu", "precision": "float32", "threads": 1}
    return cast(
        Table, {"name": "x", "compute": machine, "trackers": list(trackers), "stage": {"sft": sft, "reward": reward}}
    )


def test_tensorboard_reads_what_was_logged(base: Path, tmp_path: Path):
    made = run_recipe(parse(table(base, "tensorboard")), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run/tensorboard").iterdir()} == {
        "sft",
        "reward-member-0",
        "reward-member-1",
    }
    read = EventAccumulator(str(tmp_path / "run/tensorboard/sft"))
    read.Reload()
    logged = [row for row in read_rows(made.stage("sft").path / "metrics.jsonl") if "loss" in row]
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in logged
    ]
    assert [event.step for event in read.Scalars("eval/loss")] == [0, 1, 2, 3]


@pytest.fixture
def wandb() -> Iterator[None]:
    """Weights & Biases as in a process of its own: it reads its environment once."""
    package = pytest.importorskip("wandb", reason="wandb is not installed")
    package.teardown()
    yield
    package.teardown()


def test_weights_and_biases_offline(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: None):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_recipe(parse(table(base, "wandb")), tmp_path / "run")
    files = list((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    assert all(name in content for name in (b"sft/loss", b"sft/eval/loss", b"reward-member-1/accuracy"))


def test_nothing_is_tracked_unasked(base: Path, tmp_path: Path):
    run_recipe(parse(table(base)), tmp_path / "run")
    assert not (tmp_path / "run/tensorboard").exists()
    assert not (tmp_path / "run/wandb").exists()


def test_a_tracker_that_is_not_installed_is_told_before_any_work(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match=r"trackers: wandb cannot be imported .*; pip install wandb"):
        run_recipe(parse(table(base, "wandb")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_wants_a_key_is_told_before_any_work(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: None
):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # where a key would be
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(
        RecipeError, match=r"^trackers: wandb does not begin \(.*\); wandb login, or WANDB_MODE=offline$"
    ):
        run_recipe(parse(table(base, "wandb")), tmp_path / "run")
    assert not (tmp_path / "run" / "sft").exists()
