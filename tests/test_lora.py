"""Adapters: the same numbers as `peft`, one copy of the weights for every role, and the model that came in as reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import peft
import pytest
import torch
from conftest import tiny_llama
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from accord import lora
from accord.data.batch import Row, collate
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Engine
from accord.errors import ModelError, RecipeError
from accord.model import load_policy, load_scorer, policy_beside, save_model, scorer_beside
from accord.objectives.likelihood import sft
from accord.outputs import Roles, scorer_outputs
from accord.recipe import Lora, Optim, Table
from accord.recipe_file import parse
from accord.run import Run, read_json, read_rows
from accord.stages import fingerprints
from accord.stages import run as run_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # what peft itself calls

FORM = Lora(r=4, alpha=8)
TEXT = torch.tensor([[5, 9, 30, 12, 77, 8, 41], [9, 9, 14, 100, 3, 200, 6]])


def folder_of(kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(3)
    gpt2 = GPT2Config(
        vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=None, eos_token_id=1
    )
    model = tiny_llama() if kind == "llama" else GPT2LMHeadModel(gpt2)
    model.save_pretrained(tmp_path / kind)
    tokenizer.save_pretrained(tmp_path / kind)
    return tmp_path / kind


def shake(model: PreTrainedModel) -> None:
    """Give an adapter, which begins at 0, something to say."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in lora.own_parameters(model):
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return cast(Tensor, model(input_ids=TEXT).logits)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_policy_begins_as_its_base_and_opens_in_peft(kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of(kind, tmp_path, tokenizer)
    plain = AutoModelForCausalLM.from_pretrained(base)
    mended = load_tokenizer(base, "test")
    policy = load_policy(base, mended, "test", train=FORM)
    assert torch.equal(logits(policy), logits(load_policy(base, mended, "test")))
    assert torch.allclose(logits(policy), logits(plain), atol=1e-6)
    shake(policy)
    save_model(policy, mended, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert (logits(policy) - logits(load_policy(base, mended, "test"))).abs().max() > 0.1
    assert torch.allclose(logits(theirs), logits(policy), atol=1e-5)
    merged = load_policy(tmp_path / "adapter", mended, "test")
    assert torch.allclose(logits(merged), logits(policy), atol=1e-5)
    assert "adapters" not in " ".join(merged.state_dict())
    again = load_policy(tmp_path / "adapter", mended, "test", train=FORM)
    assert torch.equal(logits(again), logits(policy))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_reward_model_opens_in_peft_head_included(kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of(kind, tmp_path, tokenizer)
    mended = load_tokenizer(base, "test")
    scorer = load_scorer(base, mended, "test", seed=1, train=FORM)
    shake(scorer)
    scorer.config.reward_mean = 0.25
    save_model(scorer, mended, tmp_path / "adapter")
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=mended.pad_token_id)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert torch.allclose(logits(theirs), logits(scorer), atol=1e-5)
    merged = load_scorer(tmp_path / "adapter", mended, "test", seed=None)
    assert torch.allclose(logits(merged), logits(scorer), atol=1e-5)
    assert merged.config.to_dict()["reward_mean"] == 0.25


def test_an_update_takes_the_gradient_of_peft(engine: Engine, tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of("llama", tmp_path, tokenizer)
    mended = load_tokenizer(base, "test")
    policy = load_policy(base, mended, "test", train=FORM)
    shake(policy)
    save_model(policy, mended, tmp_path / "before")
    rows = [Row(tokens.tolist(), [False, False] + [True] * 5) for tokens in TEXT]
    learner = engine.learner(Roles(policy=policy), Optim(name="sgd", lr=1.0, clip=0, weight_decay=0, micro_tokens=8))
    engine.update(learner, collate([[row] for row in rows], 0), sft, {})

    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "before", is_trainable=True
    )
    labels = TEXT.clone()
    labels[:, :2] = -100
    theirs(input_ids=TEXT, labels=labels).loss.backward()
    before = lora._read(tmp_path / "before" / lora.WEIGHTS)
    save_model(policy, mended, tmp_path / "after")
    after = lora._read(tmp_path / "after" / lora.WEIGHTS)
    expected = {
        name.removeprefix(lora.PREFIX).replace(".default", ""): weight.grad
        for name, weight in theirs.named_parameters()
        if weight.requires_grad
    }
    assert set(expected) == set(after)
    for name, gradient in expected.items():
        assert gradient is not None
        assert torch.allclose(before[name] - after[name], gradient, rtol=1e-4, atol=1e-6), name
    unchanged, start = load_policy(base, mended, "test"), dict(load_policy(base, mended, "test").named_parameters())
    assert all(torch.equal(weight, start[name]) for name, weight in unchanged.named_parameters())


def test_every_role_is_a_view_of_one_copy_of_the_weights(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of("llama", tmp_path, tokenizer)
    mended = load_tokenizer(base, "test")
    before, judge = load_policy(base, mended, "t", train=FORM), load_scorer(base, mended, "t", seed=1, train=FORM)
    for model, name in ((before, "sft"), (judge, "reward")):
        shake(model)
        save_model(model, mended, tmp_path / name)

    policy = load_policy(tmp_path / "sft", mended, "t", train=FORM)
    reference = policy_beside(policy, tmp_path / "sft", mended, "t")
    bare = policy_beside(policy, base, mended, "t")
    critic = scorer_beside(policy, tmp_path / "reward", mended, "t", train=FORM)
    reward = scorer_beside(policy, tmp_path / "reward", mended, "t")
    started = logits(before)
    shake(policy)
    shake(critic)
    assert (logits(policy) - started).abs().max() > 0.1
    assert torch.equal(logits(reference), started)  # the model as it came in, not its base
    assert torch.equal(logits(bare), logits(load_policy(base, mended, "t")))
    assert torch.equal(logits(reward), logits(judge))
    assert (logits(critic) - logits(judge)).abs().max() > 0.1
    batch = collate([[Row(tokens.tolist(), [False] * 7)] for tokens in TEXT], 0)
    assert torch.equal(*(scorer_outputs(each, batch, ["score"])["score"] for each in (reward, judge)))

    models = (policy, reference, bare, critic, reward)
    weights = {weight.data_ptr(): weight for model in models for weight in model.parameters()}
    whole = sum(weight.numel() for weight in load_policy(base, mended, "t").parameters())
    assert sum(weight.numel() for weight in weights.values()) < 1.8 * whole  # tiny: adapters of rank 4 are half a model
    learning = {weight.data_ptr() for model in models for weight in model.parameters() if weight.requires_grad}
    own = [*lora.own_parameters(policy), *lora.own_parameters(critic)]
    assert learning == {weight.data_ptr() for weight in own}


def test_a_model_of_another_base_gets_weights_of_its_own(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base, other = folder_of("llama", tmp_path, tokenizer), folder_of("gpt2", tmp_path, tokenizer)
    mended = load_tokenizer(base, "test")
    policy = load_policy(base, mended, "test", train=FORM)
    reward = scorer_beside(policy, other, mended, "test")
    assert reward.config.model_type == "gpt2"
    assert lora.name_of(reward) is None


# ------------------------------------------------------------------------------------------------------------- stages


def pipeline(base: Path, **forms: object) -> Table:
    few = {"schedule": "constant", "warmup": 0, "steps": 3, "batch_size": 8, "lr": 1e-2}
    pairs = {"source": "accord:demo/pairs", "limit": 40}
    common = {"model": "@sft", "lora": {"r": 4}, "optim": few}
    stages: dict[str, dict[str, object]] = {
        "sft": {"kind": "sft", **common, "model": str(base), "data": {"source": "accord:demo/chats", "limit": 32}},
        "reward": {"kind": "reward", **common, "data": pairs, "eval_data": 0.3, "ensemble": 2},
        "dpo": {"kind": "preference", **common, "data": pairs},
        "ppo": {"kind": "policy", **common, "data": {"source": "accord:demo/prompts", "limit": 16},
                "eval_data": {"source": "accord:demo/choose", "limit": 6}, "rewards": {"@reward": {"combine": "min"}},
                "rollout": {"batch_size": 8, "max_new_tokens": 12}},
        "evaluate": {"kind": "evaluate", "models": {"sft": "@sft", "ppo": "@ppo"}, "rewards": {"@reward": 1},
                     "data": {"source": "accord:demo/choose", "limit": 6}, "sampling": {"max_new_tokens": 12}},
    }  # fmt: skip
    for name, form in forms.items():
        stages[name]["lora"] = form
    return cast(
        Table, {"name": "low", "compute": {"device": "cpu", "precision": "float32", "threads": 1}, "stage": stages}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    return run_recipe(parse(pipeline(base)), tmp_path_factory.mktemp("runs") / "low")


@pytest.mark.parametrize(
    "folder", ["sft/model", "dpo/model", "ppo/model", "reward/model", "reward/model-1", "ppo/critic"]
)
def test_every_stage_leaves_an_adapter_of_the_base(made: Run, base: Path, folder: str):
    config = read_json(made.path / folder / lora.CONFIG)
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == (str(base.resolve()), 4, 8)
    assert not (made.path / folder / "model.safetensors").exists()
    task = "SEQ_CLS" if "reward" in folder or "critic" in folder else "CAUSAL_LM"
    assert config["task_type"] == task
    peft.PeftConfig.from_pretrained(made.path / folder)


def test_tokens_that_end_an_answer_stay_with_the_adapter(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of("llama", tmp_path, tokenizer)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7]}))
    mended = load_tokenizer(base, "test")
    save_model(load_policy(base, mended, "test", train=FORM), mended, tmp_path / "adapter")
    assert stop_ids(mended, str(tmp_path / "adapter")) == stop_ids(mended, str(base)) >= {1, 7}


def test_what_a_stage_learned_is_in_the_next(made: Run):
    tokenizer = load_tokenizer(made.path / "sft/model", "test")
    models = [load_policy(made.path / name / "model", tokenizer, "test") for name in ("sft", "dpo", "ppo")]
    values = [logits(model) for model in models]
    base = load_policy(
        cast(str, read_json(made.path / "sft/model" / lora.CONFIG)["base_model_name_or_path"]), tokenizer, "t"
    )
    steps = [float((value - values[0]).abs().max()) for value in values[1:]]
    assert all(step > 0 for step in steps)
    assert float((values[0] - logits(base)).abs().max()) > 0


def test_the_reference_is_the_model_that_came_in(made: Run):
    first = read_rows(made.path / "dpo/metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)  # log 2: the policy is its reference
    first = read_rows(made.path / "ppo/metrics.jsonl")[1]
    assert first["step"] == 1
    assert first["kl/mean"] == 0
    assert read_rows(made.path / "ppo/metrics.jsonl")[0]["eval/kl"] == 0


def test_evaluations_read_adapters(made: Run):
    results = cast("dict[str, dict[str, dict[str, float]]]", read_json(made.path / "evaluate/results.json")["models"])
    assert results["ppo"]["prompts/kl"]["value"] > 0


def test_two_processes_make_the_same_adapters(base: Path, tmp_path: Path):
    def adapters(processes: int) -> dict[str, dict[str, Tensor]]:
        table = pipeline(base)
        cast("dict[str, object]", table["compute"])["processes"] = processes
        for stage in cast("dict[str, dict[str, object]]", table["stage"]).values():
            if "optim" in stage:
                stage["optim"] = {**cast("dict[str, object]", stage["optim"]), "name": "sgd", "lr": 0.1}
        run = run_recipe(parse(table), tmp_path / str(processes))
        names = ("sft/model", "reward/model", "reward/model-1", "dpo/model", "ppo/model", "ppo/critic")
        return {name: lora._read(run.path / name / lora.WEIGHTS) for name in names}

    one, two = adapters(1), adapters(2)
    for name, weights in one.items():
        for key, weight in weights.items():
            assert float((two[name][key] - weight).norm()) <= 1e-5 * float(weight.norm()), (name, key)


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_an_adapter_of_another_form_is_refused_before_any_work(made: Run, base: Path, tmp_path: Path):
    said = r"stage.dpo.lora: the adapter of stage 'sft', which goes on learning here, has another form; use its r"
    with pytest.raises(RecipeError, match=said):
        run_recipe(parse(pipeline(base, dpo={"r": 8})), tmp_path / "run")
    table = pipeline(base, sft={"r": 4, "alpha": 4})
    cast("dict[str, dict[str, object]]", table["stage"])["sft"]["model"] = str(made.path / "sft/model")
    with pytest.raises(RecipeError, match=r"stage.sft.lora: the adapter in .*sft/model, which goes on learning here"):
        run_recipe(parse(table), tmp_path / "run", only=["sft"])
    assert not (tmp_path / "run").exists()
    tokenizer = load_tokenizer(made.path / "sft/model", "test")
    with pytest.raises(
        ModelError, match=r"stage.dpo.lora: the adapter that comes in has another form \(r = 4, alpha = 8"
    ):
        load_policy(made.path / "sft/model", tokenizer, "stage.dpo.model", train=Lora(r=8))


def test_a_changed_base_changes_what_depends_on_its_adapter(made: Run, base: Path, tmp_path: Path):
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(made.path / "sft/model", tmp_path / "adapter")
    config = read_json(tmp_path / "adapter" / lora.CONFIG)
    (tmp_path / "adapter" / lora.CONFIG).write_text(
        json.dumps({**config, "base_model_name_or_path": str(tmp_path / "base")})
    )
    table = pipeline(base)
    cast("dict[str, dict[str, object]]", table["stage"])["sft"]["model"] = str(tmp_path / "adapter")
    before = fingerprints(parse(table))
    assert fingerprints(parse(table)) == before
    (tmp_path / "base/generation_config.json").write_text("{}")
    assert fingerprints(parse(table))["sft"] != before["sft"]


def test_unknown_layers_are_named(base: Path, tmp_path: Path):
    query = {"targets": ["query"]}
    table = pipeline(base, sft=query, reward=query, dpo=query, ppo=query)
    with pytest.raises(
        ModelError, match=r"^stage.sft.lora.targets: no layer is called query; known: down_proj, gate_proj"
    ):
        run_recipe(parse(table), tmp_path / "run", only=["sft"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(ModelError, match=r"^lora.targets: no layer is called query; known: down_proj, gate_proj"):
        load_policy(base, load_tokenizer(base, "test"), "test", train=Lora(targets=["query"]))


def test_dropout_is_for_others(base: Path):
    with pytest.raises(RecipeError, match="dropout must be 0 in a policy stage"):
        parse(pipeline(base, ppo={"dropout": 0.1}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "an adapter with use_dora"),
        ({"peft_type": "IA3"}, "an adapter with peft_type=IA3"),
        ({"bias": "all"}, "an adapter with bias=all"),
        ({"modules_to_save": ["embed_tokens"]}, "an adapter with modules_to_save=embed_tokens"),
    ],
)
def test_adapters_that_would_be_read_wrong_are_refused(made: Run, tmp_path: Path, change: dict[str, object], said: str):
    config = read_json(made.path / "sft/model" / lora.CONFIG)
    (tmp_path / lora.CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=said):
        lora.find(tmp_path, "test")


def test_dropout_is_on_only_while_it_learns(engine: Engine, tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of("llama", tmp_path, tokenizer)
    mended = load_tokenizer(base, "test")
    scorer = load_scorer(base, mended, "test", seed=1, train=Lora(r=4, dropout=0.5))
    shake(scorer)
    assert torch.equal(logits(scorer), logits(scorer))
    ids = {"input_ids": TEXT}
    assert not torch.equal(scorer(**ids).logits, scorer(**ids).logits)


def test_weights_of_an_adapter_that_are_damaged_or_of_another_base(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    base = folder_of("llama", tmp_path, tokenizer)
    mended, path = load_tokenizer(base, "test"), tmp_path / "adapter" / lora.WEIGHTS
    save_model(load_policy(base, mended, "test", train=FORM), mended, tmp_path / "adapter")
    stored = {name: weight.clone() for name, weight in load_file(path).items()}  # the file is about to change
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError) as caught:
        load_policy(tmp_path / "adapter", mended, "test")
    assert str(caught.value).startswith(f"{path}: is damaged (")
    assert str(caught.value).endswith("); have its stage done again (remove the stage's folder), or fetch it again")
    name = "model.layers.1.self_attn.q_proj.lora_A.weight"
    for change in ({}, {f"{lora.PREFIX}{name}": torch.zeros(4, 64)}):
        kept = {key: value for key, value in stored.items() if not key.endswith(name)}
        save_file({**kept, **change}, path, {"format": "pt"})
        with pytest.raises(ModelError) as caught:
            load_policy(tmp_path / "adapter", mended, "test")
        assert str(caught.value) == f"{path}: holds no {name} of [4, 32]; the adapter belongs to another base model"
