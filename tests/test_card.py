"""Model cards: what the hub's own reader finds in them, that they tell what was measured, and what they leave alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from huggingface_hub import EvalResult
from huggingface_hub import ModelCard as Stored
from report_fixture import make_run
from test_cli import Accord, accord  # noqa: F401  (a fixture)

from accord.card import ModelCard, Result, Sample, text
from accord.report.model_cards import license_of, write_cards
from accord.report.values import Measure
from accord.run import folder_digest

RECIPE = """
name = "small"
seed = 5
compute = {{ device = "cpu", threads = 1 }}
[stage.sft]
kind = "sft"
model = "{base}"
data = {{ source = "accord:demo/chats", limit = 32 }}
optim = {{ lr = 1e-3, steps = 2, batch_size = 8 }}
[stage.reward]
kind = "reward"
model = "@sft"
data = {{ source = "accord:demo/rankings", limit = 8 }}
eval_data = {{ source = "accord:demo/rankings-held", limit = 8 }}
ensemble = 2
optim = {{ steps = 2, batch_size = 2 }}
[stage.dpo]
kind = "preference"
model = "@sft"
data = {{ source = "accord:demo/pairs", limit = 16 }}
optim = {{ steps = 1, batch_size = 4 }}
lora = {{ r = 4 }}
[stage.evaluate]
kind = "evaluate"
models = {{ sft = "@sft", dpo = "@dpo" }}
data = {{ source = "accord:demo/choose", limit = 6 }}
rewards = {{ "@reward" = 1 }}
sampling = {{ max_new_tokens = 8 }}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A small run with an adapter, an ensemble and an evaluation, on a base that states its licence."""
    from test_cli import accord as _  # noqa: F401

    from accord.cli.commands import run_recipe
    from accord.recipe_file import load

    here = tmp_path_factory.mktemp("card")
    shutil.copytree(base, here / "base")
    (here / "base/README.md").write_text("---\nlicense: apache-2.0\n---\n# a base\n")
    (here / "small.toml").write_text(RECIPE.format(base=here / "base"))
    run_recipe(load(here / "small.toml", []), [], here / "run")
    return here / "run"


def stored(folder: Path) -> Stored:
    return Stored.load(folder / "README.md")


def measured(card: Stored) -> list[EvalResult]:
    return cast(list[EvalResult], vars(card.data)["eval_results"])


def test_every_model_folder_has_a_card_that_the_hub_reads(run: Path):
    folders = sorted(path.parent for path in run.glob("*/model*/README.md"))
    assert [str(path.relative_to(run)) for path in folders] == [
        "dpo/model",
        "reward/model",
        "reward/model-1",
        "sft/model",
    ]
    for folder in folders:
        data = stored(folder).data.to_dict()
        assert data["license"] == "apache-2.0"
        assert data["pipeline_tag"] == ("text-classification" if "reward" in str(folder) else "text-generation")
        assert "base_model" not in data  # a folder is no id of the hub
    assert stored(run / "dpo/model").data.to_dict()["library_name"] == "peft"
    assert stored(run / "dpo/model").data.to_dict()["tags"] == ["accord", "preference", "dpo", "lora"]
    assert "member 1" in (run / "reward/model-1/README.md").read_text()


def test_the_numbers_are_those_of_the_run(run: Path):
    results = json.loads((run / "evaluate/results.json").read_text())["models"]["dpo"]
    found = {(one.dataset_name, one.metric_type): one for one in measured(stored(run / "dpo/model"))}
    assert len(found) == len(results)
    for key, value in results.items():
        suite, _, metric = key.rpartition("/")
        name, _, way = suite.partition("@")
        one = found[f"{name}, {way or 'sampled'}", metric]
        assert one.metric_value == pytest.approx(value["value"], rel=1e-5, abs=1e-9)
        assert one.dataset_type == "accord:demo/choose"
        assert cast(dict[str, float], one.metric_args)["n"] == value["n"]
    record = json.loads((run / "reward/stage.json").read_text())["result"]
    for member, folder in enumerate(("model", "model-1")):
        one = next(one for one in measured(stored(run / "reward" / folder)) if one.metric_type == "accuracy")
        assert one.metric_value == pytest.approx(record["members"][member]["value"], rel=1e-5)


def test_the_words_say_how_it_was_made(run: Path):
    said = (run / "dpo/model/README.md").read_text()
    assert "1. **sft**: supervised fine-tuning on demonstrations" in said
    assert "2. **dpo**: preference optimisation (dpo)" in said
    assert "`lora.r = 4`" in said
    assert "train rows used: 16 of 16" in said
    assert "Not measured: harmful requests, bias and stereotypes, truthfulness, toxicity, people's ratings." in said
    assert "(baseline)" in said
    answers = [json.loads(line) for line in (run / "evaluate/answers.jsonl").read_text().splitlines()]
    first = next(row for row in answers if row["model"] == "dpo" and row["sampling"]["temperature"] > 0)
    assert f"user: {first['prompt'][-1]['content']}" in said
    assert str(run.parent) not in said  # no path of this machine


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # what peft itself calls
@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_what_it_says_of_loading_works(run: Path, stage: str):
    said = (run / stage / "model/README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", said, re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(code.replace("MODEL", str(run / stage / "model")), names)  # the code of the card itself
    if stage == "reward":
        assert cast(torch.Tensor, names["reward"]).isfinite()
    else:
        assert isinstance(names["model"], torch.nn.Module)


def test_a_card_changes_neither_the_model_nor_what_is_done(run: Path, accord: Accord):  # noqa: F811
    folder = run / "sft/model"
    before, said = folder_digest(folder), (folder / "README.md").read_text()
    (folder / "README.md").write_text("mine")
    assert folder_digest(folder) == before
    again = accord("run", run / "recipe.toml", "--out", run)
    assert again.code == 0, again.err
    assert "begins" not in again.err
    assert (folder / "README.md").read_text() == said  # the same words, refreshed


def test_export_takes_the_card_along(run: Path, tmp_path: Path, accord: Accord):  # noqa: F811
    assert accord("export", run / "dpo", "--merge", "--out", tmp_path / "merged").code == 0
    merged = stored(tmp_path / "merged").data.to_dict()
    assert merged["library_name"] == "transformers"
    assert "lora" not in merged["tags"]
    assert merged["model-index"][0]["results"]
    assert accord("export", run / "sft", "--int8", "--out", tmp_path / "int8", "--data", "accord:demo/choose").code == 0
    integers = stored(tmp_path / "int8")
    assert "model-index" not in integers.data.to_dict()  # other weights than those that were measured
    assert "Measured before its weights became 8-bit integers" in integers.text
    assert re.search(r"Perplexity \d+\.\d{4} before and \d+\.\d{4} after", integers.text)


def test_what_was_not_measured_is_absent(tmp_path: Path):
    run = make_run(tmp_path / "run")
    for name in ("base", "dpo"):
        (run / name / "model").mkdir()
        (run / name / "model/config.json").write_text("{}")
    record = json.loads((run / "dpo/stage.json").read_text())
    (run / "dpo/stage.json").write_text(
        json.dumps(record | {"findings": [{"name": "off policy", "severity": "alarm"}]})
    )
    assert [path.parent.parent.name for path in write_cards(run)] == ["base", "dpo"]
    base = stored(run / "base/model")
    assert "model-index" not in base.data.to_dict()
    assert "license" not in base.data.to_dict()
    assert "No evaluation measured this model." in base.text
    assert "Training raised alarms: off policy." in stored(run / "dpo/model").text


def test_hub_ids_stand_in_the_metadata_and_other_names_do_not():
    card = ModelCard(
        "x", "policy", "EleutherAI/pythia-70m", datasets=("trl-lib/ultrafeedback_binarized", "/tmp/x.jsonl")
    )
    data = Stored(text(card)).data.to_dict()
    assert data["base_model"] == "EleutherAI/pythia-70m"
    assert data["datasets"] == ["trl-lib/ultrafeedback_binarized"]
    assert license_of("EleutherAI/no-such-model") == ""


def test_text_of_others_cannot_break_the_card():
    value = Result("a|b", "sampled", "gold", Measure(0.5, 0.1, 9), "x", Measure(0.4, 0.1, 9))
    sample = Sample((("user", "```\n---\n<b>|"),), "````\n# no heading")
    said = text(ModelCard("x: - y", "policy", "b", results=(value,), samples=(sample,), baseline="m|n"))
    card = Stored(said)
    assert measured(card)[0].dataset_name == "a|b, sampled"
    assert vars(card.data)["model_name"] == "x: - y"
    fence = next(line for line in card.text.splitlines() if line.startswith("`````"))
    assert fence == "`````text"
    assert "a\\|b" in card.text
