"""A sweep does what is common once, changes what it says, and draws it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_cli import Accord, accord  # noqa: F401  (a fixture)

from accord.cli.sweep import expand
from accord.errors import RecipeError
from accord.recipe import Policy
from accord.report.sweep import Cell, frontier, spread
from accord.report.words import MINUS
from accord.run import read_json, read_rows

RECIPE = """
name = "small"
seed = 5
compute = {{ device = "cpu", threads = 1 }}

[stage.sft]
kind = "sft"
model = "{base}"
data = {{ source = "accord:demo/chats", limit = 32 }}
optim = {{ lr = 1e-3, steps = 2, batch_size = 8 }}

[stage.ppo]
kind = "policy"
model = "@sft"
data = {{ source = "accord:demo/prompts", limit = 16 }}
eval_data = {{ source = "accord:demo/choose", limit = 4 }}
eval = 1
rewards = {{ "{here}/mine.py:length" = 1 }}
rollout = {{ batch_size = 8, max_new_tokens = 8 }}
optim = {{ lr = 1e-3, steps = 2, batch_size = 8 }}

[stage.evaluate]
kind = "evaluate"
models = {{ sft = "@sft", ppo = "@ppo" }}
data = {{ source = "accord:demo/choose", limit = 4 }}
rewards = {{ "{here}/mine.py:length" = 1 }}
sampling = {{ max_new_tokens = 8 }}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    here = tmp_path_factory.mktemp("sweep")
    (here / "mine.py").write_text("def length(rollout):\n    return -len(rollout.text) / 10\n")
    (here / "small.toml").write_text(RECIPE.format(base=base, here=here))
    return here / "small.toml"


def test_variants_are_all_combinations_and_only_what_changes_gets_seeds(recipe: Path):
    sweeps = ["stage.ppo.params.kl=0.01,0.1", "stage.ppo.optim.betas=[0.9, 0.95],[0.9, 0.99]"]
    whole, changed, variants = expand(recipe, ["stage.ppo.params.lam=0.9"], sweeps, 3)
    assert changed == ["ppo", "evaluate"]
    assert len(variants) == 12
    assert len({variant.label for variant in variants}) == 12
    assert variants[0].label == "kl=0.01_betas=_0.9_0.95_-seed-0"
    found: list[tuple[float, tuple[float, float], int | None, float]] = []
    for variant in variants:
        ppo = variant.recipe.stage["ppo"]
        assert isinstance(ppo, Policy)
        assert variant.recipe.stage["sft"] == whole.stage["sft"]
        found.append((ppo.params.kl, ppo.optim.betas, ppo.seed, ppo.params.lam))
    assert found == [(kl, (0.9, b), s, 0.9) for kl in (0.01, 0.1) for b in (0.95, 0.99) for s in (5, 6, 7)]


NONE = ["kl=1,2", "stage.pp.params.kl=1", "stage.ppo=1", "stage.ppo.params.kl=", "compute.threads=1,2"]


@pytest.mark.parametrize("sweep", NONE)
def test_a_sweep_that_names_no_setting_is_refused(recipe: Path, sweep: str):
    with pytest.raises(RecipeError, match="names no setting of a stage with its values"):
        expand(recipe, [], [sweep], 1)


def test_a_value_that_is_wrong_is_told_before_any_work(recipe: Path, tmp_path: Path, accord: Accord):  # noqa: F811
    said = accord("run", recipe, "--sweep", "stage.ppo.params.kl=0.1,-1", "--out", tmp_path / "out")
    assert said.code == 2
    assert "stage.ppo.params.kl" in said.err
    assert not (tmp_path / "out").exists()


def test_a_sweep_runs_and_reports(recipe: Path, tmp_path: Path, accord: Accord):  # noqa: F811
    arguments = ("run", recipe, "--sweep", "stage.ppo.params.kl=0.0,0.5", "--seeds", "2", "--out", tmp_path / "out")
    said = accord(*arguments)
    assert said.code == 0, said.err
    out = tmp_path / "out"
    labels = [f"kl={kl}-seed-{seed}" for kl in ("0.0", "0.5") for seed in (0, 1)]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["common", *labels]
    for label in labels:
        assert os.readlink(out / label / "sft") == "../common/sft"
        assert read_json(out / label / "run.json")["status"] == "done"
    logs = [[row.get("eval/reward") for row in read_rows(out / label / "ppo/metrics.jsonl")] for label in labels]
    assert logs[0] != logs[1]  # seeds differ
    page = (out / "report.html").read_text()
    assert "ppo: held-out reward against KL" in page
    assert all(text in page for text in ("kl=0.0", "kl=0.5", "ppo reward greedy", "2 seeds each"))
    assert page.count("<svg") == 1
    assert "http" not in page.replace("http://www.w3.org", "")

    again = accord(*arguments)
    assert again.code == 0
    assert "begins" not in again.err


def test_means_and_bands_are_over_seeds():
    assert spread([1.0, 2.0, 3.0]) == Cell("2.000", "± 0.577")
    assert spread([-1.5]) == Cell(f"{MINUS}1.500")
    assert frontier([]) == []
