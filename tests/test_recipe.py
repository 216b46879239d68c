"""Recipes: every mistake answered at once and by name, overrides, paths, and a list of options that changes on purpose."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, JsonValue

from accord.errors import RecipeError
from accord.recipe import KINDS, PARAMS, Compute, Evaluate, Policy, Recipe, Sft
from accord.recipe_file import dump, load, parse

TEXT = """
name = "everything"
seed = 7
compute = { device = "cpu", threads = 1 }

[stage.base]
kind = "pretrain"
data = "texts.txt"
shape = { layers = 1, width = 8, heads = 2 }

[stage.sft]
kind = "sft"
model = "@base"
data = ["org/chats", { source = "rows.jsonl", map = { prompt = "question" }, limit = 10, part = "0:80" }]
eval_data = 0.1
optim = { lr = 1e-3, betas = [0.9, 0.95], steps = 4 }

[stage.reward]
kind = "reward"
model = "@sft"
data = "org/pairs"
eval_data = { source = "org/pairs", split = "test" }

[stage.ppo]
kind = "policy"
model = "@sft"
data = "org/prompts"
rewards = { "@reward" = { combine = "min" }, "mine.py:brevity" = 0.5 }
params = { kl = 0.1, critic = "@reward" }
rollout = { batch_size = 8, group_size = 4 }

[stage.dpo]
kind = "preference"
model = "@sft"
reference = "@base"
data = "org/pairs"
params = { beta = 0.2 }

[stage.ev]
kind = "evaluate"
models = { sft = "@sft", ppo = "@ppo" }
data = "org/prompts"
rewards = { "@reward" = 1 }
"""


def changed(key: str, value: object) -> dict[str, JsonValue]:
    """The recipe with one key (parts separated by spaces) set, or removed where the value is `...`."""
    found: dict[str, Any] = tomllib.loads(TEXT)
    *parents, last = key.split()
    inner = found
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value
    if value is ...:
        del inner[last]
    return found


def said(recipe: dict[str, JsonValue]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(recipe)
    assert caught.value.exit_code == 2
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ mistakes

KINDS_KNOWN = "known: pretrain, sft, reward, preference, policy, select, evaluate"
NO_ANSWER = ": '@reward' is a reward model and cannot answer; give a stage that makes a policy"
TARGETS = '.targets: this must be "all-linear", or a list of names as in ["q_proj", "v_proj"]'
LATER = "is not made before this stage; move it up in the file"
# What is set, to what, and the message after the key.
MISTAKES: list[tuple[str, object, str]] = [
    # Unknown keys are answered with the nearest.
    ("sede", 1, ": unknown key 'sede'; did you mean 'seed'?; known: name, seed, compute, trackers, stage"),
    ("compute thread", 1, ": unknown key 'thread'; did you mean 'threads'?; known: device, precision, threads, processes"),
    ("stage sft modle", "x", ": unknown key 'modle'; did you mean 'model'?; known: "),
    ("stage sft optim xyz", 1, ": unknown key 'xyz'; known: name, lr, "),
    ("stage sft optim batchsize", 1, ": unknown key 'batchsize'; did you mean 'batch_size'?; known: name, lr, "),
    ("stage base shape with", 8, ": unknown key 'with'; did you mean 'width'?; known: layers, "),
    ("stage sft data", {"source": "a", "splt": 1}, ".0.splt: unknown key 'splt'; did you mean 'split'?; known: source, "),
    ("stage sft data", ["a", {"source": "b", "prt": 1}], ".1.prt: unknown key 'prt'; did you mean 'part'?; known: "),
    ("stage sft eval_data", {"sorce": "a"}, ".0.sorce: unknown key 'sorce'; did you mean 'source'?; known: source, "),
    ("stage base eval_data", ["a", {"sorce": "a"}], ".1.sorce: unknown key 'sorce'; did you mean 'source'?; known: "),
    ("stage ppo rewards", {"@reward": {"weigth": 1}},
     ".@reward.weigth: unknown key 'weigth'; did you mean 'weight'?; known: weight, combine, penalty, outside"),
    ("stage ppo eval_rewards", {"f.py:g": {"combin": 1}},
     ".f.py:g.combin: unknown key 'combin'; did you mean 'combine'?; known: weight, combine, penalty, outside"),
    ("stage ppo params cilp", 1, ": unknown key 'cilp'; did you mean 'clip'?; known: preset, kl, "),
    ("stage ppo rollout max_tokens", 1, ": unknown key 'max_tokens'; did you mean 'max_new_tokens'?; known: batch_size, "),
    # Log-probs of a truncated distribution would not be the trainer's.
    ("stage ppo rollout top_p", 0.9, ": unknown key 'top_p'; known: batch_size, group_size, "),
    ("stage dpo params bta", 1, ": unknown key 'bta'; did you mean 'beta'?; known: beta"),
    ("stage reward params center", 1, ": unknown key 'center'; did you mean 'centre'?; known: label_smoothing, margin, "),
    ("stage ev sampling temprature", 1, ": unknown key 'temprature'; did you mean 'temperature'?; known: "),
    ("stage sft kind", "stf", f": unknown kind 'stf'; did you mean 'sft'?; {KINDS_KNOWN}"),
    ("stage sft kind", "ppo", f": unknown kind 'ppo'; {KINDS_KNOWN}"),
    ("stage sft kind", 3, f": unknown kind '3'; {KINDS_KNOWN}"),
    ("stage sft kind", ..., f": kind is missing; {KINDS_KNOWN}"),
    # Values that cannot be.
    ("name", "a b", ": this must be letters, digits and _ . - with a letter, a digit or _ in front (given: 'a b')"),
    ("name", "..", ": this must be letters, digits and _ . - with a letter, a digit or _ in front (given: '..')"),
    ("seed", -1, ": input should be greater than or equal to 0 (given: -1)"),
    ("compute threads", 10**6, ": input should be less than or equal to 1024 (given: 1000000)"),
    ("stage sft model", "", ": this must not be empty (given: '')"),
    ("stage sft optim betas", [0.9, 1.5], ".1: input should be less than 1 (given: 1.5)"),
    ("stage sft data", {"source": "a", "part": "9-3"},
     """.0.part: this must be a range in percent, as in "0:80" (given: '9-3')"""),
    ("stage dpo objective", "dpp",
     """: unknown objective 'dpp'; did you mean 'dpo'?; known: dpo, hinge, ipo, cdpo, robust, simpo, orpo, kto """
     """or a function of yours, "file.py:fn" (given: 'dpp')"""),
    ("stage ev baseline", "ppp", ": unknown model 'ppp'; did you mean 'ppo'?; known: sft, ppo (given: 'ppp')"),
    ("stage sft lora", {"targets": "q_proj"}, f"{TARGETS} (given: 'q_proj')"),
    ("stage sft lora", {"targets": []}, TARGETS),
    ("stage ev sampling stop", [""], ".0: this must not be empty (given: '')"),
    ("stage ev sampling top_p", 0, ": input should be greater than 0 (given: 0)"),
    ("stage base shape vocab", 100, ": input should be greater than or equal to 261 (given: 100)"),
    ("stage base shape context", 1, ": input should be greater than or equal to 2 (given: 1)"),
    ("stage ev suites", [], ": this must not be empty"),
    ("stage sft model", ..., ": is missing; add it to the recipe"),
    ("stage sft data", {}, ".0.source: is missing; add it to the recipe"),
    ("stage sft optim lr", 0, ": input should be greater than 0 (given: 0)"),
    ("stage sft optim lr", -1e-3, ": input should be greater than 0 (given: -0.001)"),
    ("stage sft optim", {"epochs": 1, "steps": 1}, ": epochs and steps are both given; keep one of them"),
    ("stage sft eval_data", 1.5, ": input should be less than 1 (given: 1.5)"),
    ("stage sft eval_data", 0, ": input should be greater than 0 (given: 0)"),
    ("stage sft eval_data", {"source": "a", "limit": 0}, ".0.limit: input should be greater than 0 (given: 0)"),
    ("stage sft data", {"source": "a", "limit": 0}, ".0.limit: input should be greater than 0 (given: 0)"),
    ("stage sft truncate", "cat", ": input should be 'drop' or 'cut' (given: 'cat')"),
    ("stage base shape", {"width": 8, "heads": 3}, ": width 8 must be an even multiple of heads 3"),
    ("stage reward folds", 1, ": 1 fold would leave nothing to train on; use 0 or at least 2 (given: 1)"),
    ("stage reward objective", "bradley", ": unknown objective 'bradley'; did you mean 'bradley_terry'?; known: bradley_terry, "
     "plackett_luce, best_of_k, regression or a function of yours, \"file.py:fn\" (given: 'bradley')"),
    ("stage reward params label_smoothing", 0.5, ": input should be less than 0.5 (given: 0.5)"),
    ("stage reward params", {"margin": 2},
     ".margin: input should be a valid boolean, unable to interpret input (given: 2)"),
    ("stage reward learning_curve", [0.5, 0.25], ": shares must grow, as in [0.125, 0.25, 0.5]"),
    ("stage reward learning_curve", [0.5, 1], ".1: input should be less than 1 (given: 1)"),
    ("stage reward normalise", {"on": "demonstrations"},
     ': on = "demonstrations" and their data go together: give both or neither'),
    ("stage reward normalise", {"data": "a/b"}, ': on = "demonstrations" and their data go together: give both or neither'),
    ("stage reward normalise", {"policy": "a/b"}, ': a policy answers for on = "samples" alone'),
    ("stage reward normalise", {"on": "samples", "policy": "@ppo"}, f".policy: '@ppo' {LATER}"),
    ("stage ppo rollout", {"batch_size": 10, "group_size": 4}, ": batch_size 10 is not a multiple of group_size 4"),
    ("stage dpo params beta", -1, ": input should be greater than 0 (given: -1)"),
    ("stage dpo params gamma", 1, ": unknown key 'gamma'; known: beta, average, reference_free, sft"),
    ("stage dpo objective", "kdo", ": unknown objective 'kdo'; did you mean 'kto'?; known: dpo, hinge, "),
    # References to stages.
    ("stage sft model", "@stf", ": unknown stage 'stf'; known: base"),
    ("stage reward model", "@stf", ": unknown stage 'stf'; did you mean 'sft'?; known: base, sft"),
    ("stage sft model", "@ppo", f": '@ppo' {LATER}"),
    ("stage sft model", "@sft", f": '@sft' {LATER}"),
    ("stage ppo eval_rewards", {"@dpo": 1}, f".@dpo: '@dpo' {LATER}"),
    ("stage ppo rewards", {"@rewrd": 1},
     ".@rewrd: unknown stage 'rewrd'; did you mean 'reward'?; known: base, sft, reward"),
    ("stage ppo rewards", {"@sft": 1}, ".@sft: '@sft' is a stage of kind 'sft'; give a reward stage"),
    ("stage ppo params critic", "@nope", ": unknown stage 'nope'; known: base, sft, reward"),
    ("stage ppo model", "@reward", NO_ANSWER),
    ("stage dpo model", "@reward", NO_ANSWER),
    ("stage dpo reference", "@reward", NO_ANSWER),
    ("stage ev models", {"a": "@reward"}, f".a{NO_ANSWER}"),
    ("stage z", {"kind": "sft", "model": "@ev", "data": "a"},
     ".model: '@ev' is a stage of kind 'evaluate'; give a stage that makes a model"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), MISTAKES, ids=[f"{key}={value}" for key, value, _ in MISTAKES])
def test_mistakes(key: str, value: object, message: str):
    """Told with the key as the recipe has it; lists of all that is known may go on."""
    expected, found = key.replace(" ", ".") + message, said(changed(key, value))
    assert found.startswith(expected) if "; known: " in expected else found == expected


@pytest.mark.parametrize("name", ["..", "/home", "a/b", "recipe.toml", ".state", ""])
def test_a_stage_is_a_folder_inside_the_run_folder(name: str):
    """What lies elsewhere, or belongs to the run, is never taken for what an earlier run of the stage has left."""
    recipe = changed("stage", {name: {"kind": "pretrain", "data": "a/b"}})
    form = "letters, digits and _ - with a letter, a digit or _ in front"
    assert said(recipe) == f"stage.{name}: this must be {form} (given: {name!r})"


def test_a_misspelled_key_is_named_rather_than_the_one_it_leaves_missing():
    recipe = changed("stage sft", {"kind": "sft", "modle": "x", "data": "a/b"})
    assert said(recipe).startswith(
        "stage.sft.modle: unknown key 'modle'; did you mean 'model'?; known: seed, save, eval, model"
    )


def test_a_reference_in_the_first_stage_is_not_likened_to_nothing():
    recipe = changed("stage", {"sft": {"kind": "sft", "model": "@nope", "data": "a/b"}})
    assert said(recipe) == "stage.sft.model: unknown stage 'nope'; known: (none)"


def test_a_learning_curve_needs_something_to_be_judged_by():
    stage = {"kind": "reward", "model": "@sft", "data": "a/b", "learning_curve": [0.5]}
    assert (
        said(changed("stage reward", stage))
        == "stage.reward.learning_curve: needs eval_data, which every share is judged by"
    )


def test_a_reward_model_cannot_answer_for_the_scale_of_another():
    again = {"kind": "reward", "model": "@reward", "data": "a/b", "normalise": "samples"}
    assert said(changed("stage again", again)) == f"stage.again.normalise.policy{NO_ANSWER}"
    again["normalise"] = {"on": "samples", "policy": "@sft"}
    assert parse(changed("stage again", again)).stage["again"].kind == "reward"


def test_an_objective_of_a_reward_stage_knows_its_params_and_what_it_cannot_split():
    whole = {"kind": "reward", "model": "@sft", "data": "a/b", "objective": "best_of_k"}
    message = said(changed("stage reward", {**whole, "params": {"ties": True}}))
    assert message == "stage.reward.params.ties: unknown key 'ties'; known: (none)"
    message = said(changed("stage reward", {**whole, "split_rankings": True}))
    assert message == (
        "stage.reward.split_rankings: best_of_k reads whole rankings; leave split_rankings out, or use bradley_terry "
        "(given: True)"
    )


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("key", ["stage sft optim lr", "stage ppo rollout temperature"])
def test_numbers_are_finite(key: str, value: float):
    assert said(changed(key, value)).startswith(key.replace(" ", ".") + ": ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("stage", {}), ("stage sft", 3), ("stage sft optim", 3), ("stage ppo rewards", {}), ("stage sft data", []),
     ("stage sft eval_data", [])],
)  # fmt: skip
def test_tables_and_lists_are_called_so(key: str, value: object):
    message = said(changed(key, value))
    assert message.startswith(f"{key.replace(' ', '.')}: ")
    assert not [word for word in ("dictionary", "instance of", "extract fields", "validation") if word in message]


def test_a_reward_stage_may_go_on_from_another():
    again = {"kind": "reward", "model": "@reward", "data": "a/b"}
    assert parse(changed("stage again", again)).stage["again"].kind == "reward"


# ----------------------------------------------------------------------------------------------------- files, overrides


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe in a folder of its own; the working directory is another."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "recipes" / "all.toml"
    path.write_text(TEXT)
    return path


def refused(file: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(file, list(overrides))
    return str(caught.value)


def test_files_that_cannot_be_read(file: Path):
    none = file.with_name("none.toml")
    assert refused(none) == f"{none}: No such file or directory; give the path of a recipe (.toml)"
    assert refused(file.parent) == f"{file.parent}: Is a directory; give the path of a recipe (.toml)"
    file.write_text("name = \n")
    assert refused(file) == f"{file}: is not TOML: Invalid value (at line 1, column 8); mend that line"
    file.write_bytes(b'name = "\xff"\n')
    assert refused(file).startswith(f"{file}: ")


def test_a_byte_order_mark_is_no_mistake(file: Path):
    file.write_text("\ufeff" + TEXT, encoding="utf-8")
    assert load(file).name == "everything"


def test_overrides_have_types(file: Path):
    recipe = load(
        file,
        ["name=other", "seed=3", "compute.precision='float32'", "stage.sft.optim.lr=3e-6", "stage.sft.eval_data=0.25",
         "stage.sft.optim.betas=[0.5, 0.75]", 'stage.ppo.rewards={"@reward"=2, "mine.py:f"={weight=3}}',
         "stage.ppo.params.whiten=false", "stage.ppo.params.critic=policy", "stage.ev.sampling.temperature=0.5",
         "stage.ev.sampling.stop=User:",
         "stage.sft.data=a=b/c", "stage.more.kind=sft", "stage.more.model=@sft", "stage.more.data=a/b"],
    )  # fmt: skip
    sft, ppo, ev = recipe.stage["sft"], recipe.stage["ppo"], recipe.stage["ev"]
    assert isinstance(sft, Sft)
    assert isinstance(ppo, Policy)
    assert isinstance(ev, Evaluate)
    assert (recipe.name, recipe.seed, recipe.compute.precision, recipe.compute.device) == ("other", 3, "float32", "cpu")
    assert (sft.optim.lr, sft.optim.betas, sft.optim.steps, sft.eval_data) == (3e-6, (0.5, 0.75), 4, 0.25)
    assert {name: term.weight for name, term in ppo.rewards.items()} == {"@reward": 2, f"{Path.cwd()}/mine.py:f": 3}
    assert (ppo.params.whiten, ppo.params.critic, ppo.params.kl) == (False, "policy", 0.1)
    assert (ev.sampling.temperature, ev.sampling.stop, sft.data[0].source) == (0.5, ("User:",), "a=b/c")
    assert list(recipe.stage)[-1] == "more"


@pytest.mark.parametrize("key", ["@reward", '"@reward"', f'"{"mine.py:brevity"}"'])
def test_overrides_of_one_reward(file: Path, key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    ppo = load(file, [f"stage.ppo.rewards.{key}=4"]).stage["ppo"]
    assert isinstance(ppo, Policy)
    assert len(ppo.rewards) == 2
    assert [term.weight for name, term in ppo.rewards.items() if name.endswith(key.strip('"'))] == [4]


FORM = "write key=value, as in stage.ppo.optim.lr=3e-6"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", f"seed: is not an override; {FORM}"),
        ("=3", f"=3: is not an override; {FORM}"),
        ("stage..sft=3", f"stage..sft=3: is not an override; {FORM}"),
        ("stage.sft.model.name=x", "stage.sft.model.name: 'model' is a value, not a table; give it whole, as in "),
        ("stage.sft.optm.lr=1", "stage.sft.optm: unknown key 'optm'; did you mean 'optim'?; known: "),
        ("stage.sft.optim.lr=fast", "stage.sft.optim.lr: input should be a valid number, unable to parse string as a "
                                    "number (given: 'fast')"),
    ],
)  # fmt: skip
def test_malformed_overrides(file: Path, override: str, message: str):
    assert refused(file, override).startswith(message)


def test_paths_start_at_the_recipe_and_those_of_overrides_at_the_working_directory(file: Path):
    (file.parent / "models" / "tiny").mkdir(parents=True)
    overrides = ["stage.dpo.data=pairs.jsonl", "stage.dpo.model=./model", "stage.dpo.reference=models/tiny"]
    texts = ["models/tiny", "org/absent", "../up.csv", "~/home.jsonl", "/abs/x.parquet", "data.py:rows", "x.jsonl.gz"]
    inside = ", ".join(f'"{text}"' for text in texts)
    file.write_text(TEXT.replace('"org/chats"', inside))
    recipe = load(file, overrides)
    base, sft, ppo, dpo = (recipe.stage[name].model_dump() for name in ("base", "sft", "ppo", "dpo"))
    folder = file.parent
    assert base["data"][0]["source"] == str(folder / "texts.txt")
    assert [source["source"] for source in sft["data"]] == [
        str(folder / "models" / "tiny"), "org/absent", str(folder.parent / "up.csv"), str(Path.home() / "home.jsonl"),
        "/abs/x.parquet", f"{folder}/data.py:rows", str(folder / "x.jsonl.gz"), str(folder / "rows.jsonl"),
    ]  # fmt: skip
    assert list(ppo["rewards"]) == ["@reward", f"{folder}/mine.py:brevity"]
    assert dpo["data"][0]["source"] == str(Path.cwd() / "pairs.jsonl")
    assert (dpo["model"], dpo["reference"]) == (str(Path.cwd() / "model"), "models/tiny")


def test_a_dumped_recipe_is_the_same_recipe_anywhere(file: Path, tmp_path: Path):
    recipe = load(file)
    text = dump(recipe)
    assert parse(tomllib.loads(text)) == recipe
    (tmp_path / "recipe.toml").write_text(text)
    again = load(tmp_path / "recipe.toml")
    assert (again, dump(again)) == (recipe, text)
    assert "kl_horizon = 10000" in text  # defaults are written out
    assert "kl_target" not in text  # what is unset is left out


# -------------------------------------------------------------------------------------------------------------- options

DATA = "data.config data.limit data.map data.on_error data.part data.source data.split data.weight"
COMMON = (
    f"{DATA} {DATA.replace('data.', 'eval_data.')} eval kind optim.batch_size optim.betas optim.clip optim.epochs "
    "optim.checkpointing optim.eps optim.lr optim.micro_tokens optim.name optim.schedule optim.skip optim.steps optim.warmup "
    "optim.weight_decay save seed"
)
LORA = "lora.alpha lora.dropout lora.r lora.targets"
REWARDS = "rewards.combine rewards.outside rewards.penalty rewards.weight"
SAMPLING = (
    "sampling.max_new_tokens sampling.min_p sampling.repetition_penalty sampling.stop sampling.temperature "
    "sampling.top_k sampling.top_p"
)
POLICY = (
    "bessel entropy epochs kl kl_budget kl_control kl_end kl_estimator kl_horizon kl_in kl_level kl_rate kl_stop "
    "kl_target length_penalty logp_temperature missing_eos missing_eos_how preset reward_clip reward_norm whiten"
)
# Options are a promise: whoever adds, renames or removes one changes this list too.
OPTIONS = {
    "pretrain": f"{COMMON} model shape.context shape.feed_forward shape.heads shape.layers shape.vocab shape.width",
    "sft": f"{COMMON} {LORA} max_tokens model truncate",
    "reward": f"{COMMON} {LORA} disjoint ensemble folds learning_curve max_tokens model normalise.max_new_tokens "
    f"{DATA.replace('data.', 'normalise.data.')} normalise.on normalise.policy normalise.temperature objective params "
    "pooling split_rankings training_range truncate",
    "preference": f"{COMMON} {LORA} max_tokens model objective params reference truncate",
    "policy": f"{COMMON} {LORA} {REWARDS} {REWARDS.replace('rewards.', 'eval_rewards.')} "
    f"checkpoints max_tokens {DATA.replace('data.', 'mix.data.')} mix.batch_size mix.coef model objective "
    f"{' '.join(f'params.{name}' for name in POLICY.split())} patience reference rollout.batch_size "
    "rollout.group_size rollout.max_new_tokens rollout.temperature truncate",
    "select": f"{DATA} {REWARDS} {SAMPLING} above keep kind max_tokens micro_tokens model n seed",
    "evaluate": f"{DATA} {DATA.replace('data.', 'remember.')} {REWARDS} {SAMPLING} annotations baseline best_of curves decode "
    "judge kind limit max_tokens micro_tokens models ratings seed server.api_key_env server.concurrency server.retries "
    "server.timeout suites",
}


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections inside an annotation such as `float | list[Source] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from sections(part)


def options(section: type[BaseModel], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, field in section.model_fields.items():
        inner = next(sections(field.annotation), None)
        found += options(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return sorted(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_options_of_every_kind_of_stage(kind: str):
    assert options(KINDS[kind]) == sorted(OPTIONS[kind].split())


def test_the_other_options():
    assert list(Recipe.model_fields) == ["name", "seed", "compute", "trackers", "stage"]
    assert options(Compute) == ["device", "precision", "processes", "threads"]
    assert {name: " ".join(options(section)) for name, section in PARAMS["reward"].items()} == {
        "bradley_terry": "centre label_smoothing margin ties",
        "plackett_luce": "",
        "best_of_k": "",
        "regression": "",
    }
    assert {name: " ".join(options(section)) for name, section in PARAMS["preference"].items()} == {
        "dpo": "average beta reference_free sft",
        "hinge": "average beta reference_free sft",
        "ipo": "average beta reference_free sft",
        "cdpo": "average beta label_smoothing reference_free sft",
        "robust": "average beta label_smoothing reference_free sft",
        "simpo": "beta gamma sft",
        "orpo": "lam",
        "kto": "beta desirable sft undesirable",
    }


PARAMS_OF = {
    "ppo": f"{POLICY} clip critic critic_layers critic_lr critic_warmup gamma lam score_at value_clip value_coef "
    "whiten_rewards",
    "rloo": f"{POLICY} clip",
    "grpo": f"{POLICY} clip length std",
    "reinforce": POLICY,
}


@pytest.mark.parametrize("objective", PARAMS["policy"])
def test_the_params_of_every_policy_objective(objective: str):
    assert options(PARAMS["policy"][objective]) == sorted(PARAMS_OF[objective].split())


def test_recipes_are_checked_without_torch():
    code = "import sys, accord.recipe_file; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
