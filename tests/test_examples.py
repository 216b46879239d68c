"""The two doors lead to the same place: the loops in examples/ make the weights that the stages make."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from accord.recipe import Policy as PolicyStage
from accord.recipe import PpoParams, Preference, RolloutParams, Table
from accord.recipe_file import parse
from accord.run import StageFolder, read_rows
from accord.stages import run

EXAMPLES = Path(__file__).parents[1] / "examples"
ANIMALS = ["cat", "dog", "hen", "cow", "pig"]
PLACES = ["mat", "hat", "bed", "sun", "shed"]

pytestmark = pytest.mark.usefixtures("fresh")  # a fresh accelerator for each test, as a process of its own would have


def example(name: str) -> Callable[[list[str]], None]:
    """The main function of a file in examples/."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return cast(Callable[[list[str]], None], module.main)


def flags(settings: dict[str, object]) -> list[str]:
    """Settings as a command line."""
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def stage_of(tmp_path: Path, name: str, settings: dict[str, object], *, seed: int) -> StageFolder:
    """A recipe of one stage, run through."""
    table = cast(
        Table,
        {"name": "two-doors", "seed": seed, "compute": {"device": "cpu", "threads": 1}, "stage": {name: settings}},
    )
    return run(parse(table), tmp_path / "run").stage(name)


def difference(ours: Path, theirs: Path) -> float:
    """The largest difference of any weight in two model folders."""
    left, right = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert left.keys() == right.keys()
    assert len(left) > 5
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def moved(before: Path, after: Path) -> float:
    """How far training went, without the rows that a mended tokenizer adds."""
    left, right = (load_file(folder / "model.safetensors") for folder in (before, after))
    return max(float((left[name] - right[name]).abs().max()) for name in left if left[name].shape == right[name].shape)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Rows as a .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Seventy-five pairs of unlike length, some of them soft, one that cannot be learned from."""
    rows: list[dict[str, object]] = [
        {"prompt": [{"role": "user", "content": f"where is the {animal}{' now' * i}?"}],
         "chosen": f"the {animal} sat on the {place}" + " and looked" * (i % 3), "rejected": f"it is {place}" * (1 + i),
         "prob": 1.0 if i else 0.8}
        for animal in ANIMALS for place in PLACES for i in range(3)
    ]  # fmt: skip
    same: dict[str, object] = {"prompt": rows[0]["prompt"], "chosen": "here", "rejected": "here "}
    return write(tmp_path / "pairs.jsonl", [*rows, same])


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Questions of unlike length."""
    rows: list[dict[str, object]] = [
        {"prompt": [{"role": "user", "content": f"where is the {animal}{' and the dog' * i}?"}]}
        for animal in ANIMALS for i in range(3)
    ]  # fmt: skip
    return write(tmp_path / "prompts.jsonl", rows)


@pytest.fixture
def reward(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A reward model with random weights and a normalisation of its own."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        initializer_range=0.3,
    )  # fmt: skip
    config.update({"num_labels": 1, "reward_mean": 0.4, "reward_std": 1.7})
    folder = tmp_path / "reward"
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_dpo_is_the_preference_stage(base: Path, pairs: Path, tmp_path: Path) -> None:
    settings: dict[str, object] = {"lr": 3e-3, "batch_size": 16, "epochs": 1.5}
    stage = stage_of(
        tmp_path, "dpo", seed=3,
        settings={"kind": "preference", "model": str(base), "data": str(pairs), "params": {"beta": 0.3}, "optim": settings},
    )  # fmt: skip
    out = tmp_path / "example"
    example("dpo")(
        [str(base), *flags({"data": pairs, "out": out, "seed": 3, "beta": 0.3, "device": "cpu", **settings})]
    )

    assert len(read_rows(stage.path / "metrics.jsonl")) == 8  # 5 of the first pass, 3 of the second
    assert moved(base, stage.model) > 1e-3
    assert difference(stage.model, out / "model") <= 1e-6


def test_ppo_is_the_policy_stage(base: Path, prompts: Path, reward: Path, tmp_path: Path) -> None:
    steps, rollouts = 4, 4  # the stage keeps the first four samples of every step
    stage = stage_of(
        tmp_path, "ppo", seed=5,
        settings={
            "kind": "policy", "model": str(base), "data": str(prompts), "rewards": {str(reward): 1.0},
            "params": {"kl": 0.1, "lam": 0.9, "gamma": 0.99, "clip": 0.1, "value_coef": 0.5, "critic_lr": 2e-3,
                       "missing_eos": 0.5, "value_clip": 0.3, "epochs": 3},
            "rollout": {"batch_size": rollouts, "max_new_tokens": 12, "temperature": 0.7},
            "optim": {"lr": 1e-3, "batch_size": 3, "steps": steps},
        },
    )  # fmt: skip
    out = tmp_path / "example"
    settings: dict[str, object] = {
        "reward": reward, "data": prompts, "out": out, "seed": 5, "device": "cpu", "kl": 0.1, "lam": 0.9, "gamma": 0.99,
        "clip": 0.1, "value_coef": 0.5, "critic_lr": 2e-3, "missing_eos": 0.5, "value_clip": 0.3, "passes": 3,
        "rollouts": rollouts, "max_new_tokens": 12, "temperature": 0.7, "lr": 1e-3, "batch_size": 3, "steps": steps,
    }  # fmt: skip
    example("ppo")([str(base), *flags(settings)])

    theirs, ours = (read_rows(folder / "samples.jsonl") for folder in (stage.path, out))
    assert len(theirs) == len(ours) == 15  # of 15 prompts, the last step has three
    for name in ("step", "prompt", "response", "score"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    assert len({str(row["response"]) for row in ours}) > steps
    assert moved(base, stage.model) > 1e-3
    assert moved(reward, stage.path / "critic") > 1e-3
    assert difference(stage.model, out / "model") <= 1e-6
    assert difference(stage.path / "critic", out / "critic") <= 1e-6


def test_defaults_are_those_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dpo", "ppo"):
        main = example(name)
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        assert "--lr" in capsys.readouterr().out

    dpo = sys.modules["example_dpo"].arguments(["model"])
    preference = Preference(model="model", data=["a/b"])
    assert dpo.beta == preference.params["beta"]
    for name in ("lr", "batch_size", "epochs", "steps"):
        assert getattr(dpo, name) == getattr(preference.optim, name)

    ppo = sys.modules["example_ppo"].arguments(["model", "--reward", "reward"])
    optim, params, rollout = PolicyStage.model_fields["optim"].default, PpoParams(), RolloutParams()
    for name in ("lr", "batch_size", "epochs", "steps"):
        assert getattr(ppo, name) == getattr(optim, name)
    for name in ("kl", "clip", "gamma", "lam", "value_coef", "value_clip", "critic_lr", "missing_eos"):
        assert getattr(ppo, name) == getattr(params, name)
    assert ppo.passes == params.epochs
    assert ppo.rollouts == rollout.batch_size
    assert (ppo.max_new_tokens, ppo.temperature) == (rollout.max_new_tokens, rollout.temperature)


@pytest.mark.parametrize("name", ["dpo", "ppo"])
def test_examples_stand_without_the_stages(name: str) -> None:
    assert "accord.stages" not in (EXAMPLES / f"{name}.py").read_text()
