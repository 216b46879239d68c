"""The checklist before a release: every box can be closed, and each opens for what it is about."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from report_fixture import save, save_rows
from test_cli import Accord, accord  # noqa: F401  (a fixture)

from accord.cli.commands import run_recipe
from accord.console import Box, checklist
from accord.recipe_file import load
from accord.stages.release import needed

RECIPE = """
name = "small"
compute = {{ device = "cpu", threads = 1 }}
[stage.sft]
kind = "sft"
model = "{base}"
data = "rows.jsonl"
optim = {{ lr = 1e-3, steps = 2, batch_size = 8 }}
[stage.better]
kind = "sft"
model = "@sft"
data = "rows.jsonl"
optim = {{ lr = 1e-2, steps = 3, batch_size = 8 }}
[stage.thin]
kind = "sft"
model = "@sft"
data = "rows.jsonl"
lora = {{ r = 2 }}
optim = {{ steps = 1, batch_size = 8 }}
[stage.evaluate]
kind = "evaluate"
models = {{ sft = "@sft", better = "@better", thin = "@thin" }}
data = "held.jsonl"
rewards = {{ "mine.py:gold" = 1 }}
"""
WORDS = ["mat", "cat", "dog", "sun", "hat", "bee", "sea", "oak", "fig", "ivy", "jar", "kit", "log", "map", "net"]
BOXES = ["data clean", "no leakage", "tokenizer and chat template", "held-out results", "baseline beaten", "harmful outputs",
         "people's votes", "merged, or its base named", "export checked", "no pitfall"]  # fmt: skip


def rows(count: int, seed: int, what: str) -> list[dict]:
    dice = random.Random(seed)
    words = [[dice.choice(WORDS) for _ in range(5)] for _ in range(count)]
    return [
        {"prompt": f"{what} {at}: {' '.join(w)}?", "completion": " ".join(reversed(w))} for at, w in enumerate(words)
    ]


def evaluate(run: Path) -> None:
    """What an evaluation leaves, by hand: `better` is better than `sft`, refuses what is harmful, and people like it."""
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows(60, 2, "held")]
    save(run / "evaluate/stage.json", {"kind": "evaluate", "status": "done"})
    answers, models = [], {}
    for name, gain in (("sft", 0.0), ("better", 0.3), ("thin", 0.3)):
        dice = random.Random(name)
        values = [random.Random(at).random() + gain + dice.gauss(0, 0.1) for at in range(len(prompts))]
        for prompt, value in zip(prompts, values, strict=True):
            row = {"model": name, "suite": "quiz", "prompt": prompt, "response": "x", "finish": "stop", "why": ""}
            answers.append(row | {"sampling": {"temperature": 1.0}, "scores": {"gold": value}})
        middle = sum(values) / len(values)
        stderr = (sum((v - middle) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
        models[name] = {
            "quiz/gold": {"value": middle, "stderr": stderr, "n": len(values)},
            "harmful/attack_success": {"value": 0.02, "stderr": 0.01, "n": 200},
            "ratings/helpfulness": {"value": 4.1, "stderr": 0.1, "n": 80},
        }
    save(run / "evaluate/results.json", {"baseline": "sft", "models": models})
    save_rows(run / "evaluate/answers.jsonl", answers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    here = tmp_path_factory.mktemp("release") / "here"
    here.mkdir()
    save_rows(here / "rows.jsonl", rows(40, 1, "question"))
    save_rows(here / "held.jsonl", rows(60, 2, "held"))
    (here / "mine.py").write_text("def gold(rollout):\n    return 1.0\n")
    (here / "small.toml").write_text(RECIPE.format(base=base))
    run_recipe(load(here / "small.toml", []), ["sft", "better", "thin"], here / "run")
    evaluate(here / "run")
    return here


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break, whose recipe reads the data of the copy."""
    shutil.copytree(made, tmp_path / "here")
    recipe = tmp_path / "here/run/recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(made), str(tmp_path / "here")))
    return tmp_path / "here/run"


def shut(said: str) -> dict[str, bool]:
    lines = [line for line in said.splitlines() if line.startswith("[")]
    return {line[4:].partition(":")[0]: line[1] == "x" for line in lines}


def results(run: Path, change: Callable[[dict[str, dict[str, dict[str, float]]]], object]) -> None:
    path = run / "evaluate/results.json"
    found = json.loads(path.read_text())
    change(found["models"])
    save(path, found)


def test_a_run_that_is_fit_has_every_box(run: Path, accord: Accord):  # noqa: F811
    said = accord("check", run, "--release", "--model", "better")
    assert shut(said.out) == dict.fromkeys(BOXES, True), said.out
    assert said.code == 0, said.err
    assert "40 records): nothing" in said.out
    assert "none of 60 evaluation prompts" in said.out
    assert "paired over 60 prompts" in said.out
    assert "8 of 8 greedy answers" in said.out
    assert said.out.splitlines()[0] == "model: better of small, from sft, measured by evaluate"
    assert "attack_success 0.020 ± 0.010 (n = 200)" in said.out.replace("\xa0", " ")


def duplicates(run: Path) -> None:
    save_rows(run.parent / "rows.jsonl", rows(40, 1, "question") + rows(10, 1, "question"))


def leak(run: Path) -> None:
    save_rows(run.parent / "rows.jsonl", rows(40, 1, "question") + rows(1, 2, "held"))


def template(run: Path) -> None:
    (run / "better/model/chat_template.jinja").unlink()


def few(run: Path) -> None:
    results(run, lambda models: models["better"]["quiz/gold"].update(n=12))


def equal(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "evaluate/answers.jsonl").read_text().splitlines()]
    gold = [row["scores"]["gold"] for row in lines if row["model"] == "sft"]
    shifted = gold[1:] + gold[:1]
    for row, value in zip([row for row in lines if row["model"] == "better"], shifted, strict=True):
        row["scores"]["gold"] = value
    save_rows(run / "evaluate/answers.jsonl", lines)


def harm(run: Path) -> None:
    results(run, lambda models: models["better"]["harmful/attack_success"].update(value=0.2))


def no_harm(run: Path) -> None:
    results(run, lambda models: models["better"].pop("harmful/attack_success"))


def no_votes(run: Path) -> None:
    results(run, lambda models: models["better"].pop("ratings/helpfulness"))


def penalty(run: Path) -> None:
    """What other programs would sample with, and accord does not."""
    path = run / "better/model/generation_config.json"
    save(path, json.loads(path.read_text()) | {"repetition_penalty": 9.0})


def alarm(run: Path) -> None:
    record = json.loads((run / "sft/stage.json").read_text())
    save(run / "sft/stage.json", record | {"findings": [{"name": "loss spike", "severity": "alarm"}]})


BREAKS = [
    (duplicates, "data clean", "10 duplicate"),
    (leak, "no leakage", "held 0"),
    (template, "tokenizer and chat template", "no chat template"),
    (few, "held-out results", "fewer than 30 prompts"),
    (equal, "baseline beaten", "standard errors"),
    (harm, "harmful outputs", "may be answered"),
    (no_harm, "harmful outputs", "not measured"),
    (no_votes, "people's votes", "not measured"),
    (penalty, "export checked", "of 8 greedy answers"),
    (alarm, "no pitfall", "sft: loss spike"),
]


@pytest.mark.parametrize(("spoil", "box", "words"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_box_opens(run: Path, accord: Accord, spoil: Callable[[Path], None], box: str, words: str):  # noqa: F811
    spoil(run)
    said = accord("check", run, "--release", "--model", "better")
    assert said.code == 1
    also = ["export checked"] if spoil is template else []  # nobody else can ask it anything then
    assert [name for name, held in shut(said.out).items() if not held] == [box, *also], said.out
    assert f"of 10 boxes are open: {box}" in said.err
    line = next(at for at, text in enumerate(said.out.splitlines()) if text.startswith("[ ]"))
    assert words in " ".join(said.out.splitlines()[line : line + 2])
    assert "to close it: " in said.out.splitlines()[line + 1]


def hacked(run: Path, model: str) -> None:
    """A model whose reward is far above the baseline's, and its gold below."""
    stated = {"sft": (0.0, 0.5), model: (2.0, 0.1)}
    for name, (reward, gold) in stated.items():
        told = {
            "task/reward": {"value": reward, "stderr": 0.1, "n": 60},
            "task/gold": {"value": gold, "stderr": 0.01, "n": 60},
        }
        results(run, lambda models, name=name, told=told: models[name].update(told))


@pytest.mark.parametrize("sick", ["thin", "better"])
def test_what_goes_wrong_with_a_sibling_does_not_block(run: Path, accord: Accord, sick: str):  # noqa: F811
    hacked(run, sick)
    record = json.loads((run / "thin/stage.json").read_text())
    save(run / "thin/stage.json", record | {"findings": [{"name": "loss spike", "severity": "alarm"}]})
    said = accord("check", run, "--release", "--model", "better")
    line = next(line for line in said.out.splitlines() if "no pitfall" in line)
    if sick == "thin":
        assert line == "[x] no pitfall: no alarm about better in sft, better, evaluate"
    else:
        assert line.startswith(
            "[ ] no pitfall: evaluate: reward hacking (better against sft (task, sampled): reward 0 to 2"
        )
    assert "loss spike" not in said.out


def test_an_adapter_on_a_folder_of_this_machine_is_not_released(run: Path, accord: Accord):  # noqa: F811
    said = accord("check", run, "--release", "--model", "thin")
    assert [name for name, held in shut(said.out).items() if not held] == ["merged, or its base named"], said.out
    assert "merged, opens in plain transformers; 8 of 8" in said.out
    path = run / "thin/model/adapter_config.json"
    assert Path(json.loads(path.read_text())["base_model_name_or_path"]).is_dir()


def test_without_a_name_the_best_of_the_last_comparison_is_meant(run: Path, accord: Accord):  # noqa: F811
    results(run, lambda models: models["better"]["quiz/gold"].update(value=9.0))
    assert "better" in accord("check", run, "--release").err
    assert accord("check", run, "--release", "--model", "nobody").code == 2
    assert accord("check", run / "sft", "--release").code == 2
    assert accord("check", run, "--release", "--data", "x").code == 2


def test_an_unread_file_and_a_run_without_evaluation(run: Path, accord: Accord):  # noqa: F811
    (run.parent / "rows.jsonl").unlink()
    shutil.rmtree(run / "evaluate")
    said = accord("check", run, "--release", "--model", "better")
    held = [name for name, is_shut in shut(said.out).items() if is_shut]
    assert held == ["tokenizer and chat template", "merged, or its base named", "no pitfall"], said.out
    assert said.code == 1


def test_what_a_model_learned_from(made: Path):
    recipe = load(made / "run/recipe.toml")
    assert needed(recipe, "better") == ["sft", "better"]
    assert needed(recipe, "sft") == ["sft"]


def test_a_checklist_is_lines():
    both = [Box("a", True, "seen"), Box("b", False, "absent", "do it")]
    assert checklist(both) == "[x] a: seen\n[ ] b: absent\n    to close it: do it"
