"""Models that cannot do what a recipe wants of them are told before any work, and by where they are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import tiny_llama
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]
from pydantic import JsonValue
from transformers import AutoModelForCausalLM, BertConfig, PreTrainedTokenizerFast, T5Config

from accord import lora
from accord.data.tokenizer import load_tokenizer
from accord.errors import AccordError, EngineError, ModelError
from accord.model import load_config, load_policy, load_scorer, score_head, skeleton
from accord.recipe_file import parse
from accord.stages import fingerprints
from accord.stages.check import inspect

CHATS, PROMPTS = ({"source": f"accord:demo/{name}", "limit": 4} for name in ("chats", "prompts"))
SHAPE = {"layers": 1, "width": 8, "heads": 2, "context": 64}
LAYERS = "known: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
DECODER = "give a decoder, as Llama, Qwen2 or GPT-2"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, base: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Models of every kind of trouble, and `policy`, which is sound."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("policy", "judge", "empty", "encoder-decoder", "encoder", "mixed"):
        shutil.copytree(base, folder / name)
    change(folder / "judge", architectures=["LlamaForSequenceClassification"])
    (folder / "empty" / "model.safetensors").unlink()
    change(folder / "encoder-decoder", model_type=T5Config.model_type)
    change(folder / "encoder", model_type=BertConfig.model_type, architectures=["BertForSequenceClassification"])
    tiny_llama(width=64).save_pretrained(folder / "mixed")
    change(folder / "mixed", hidden_size=32)
    return folder


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def recipe(folders: Path, **changed: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """A sound recipe on a model from outside and on one from scratch, with some keys of its stages changed."""
    policy = str(folders / "policy")
    stages: dict[str, dict[str, JsonValue]] = {
        "base": {"kind": "pretrain", "data": {"source": "accord:demo/text", "limit": 4}, "shape": {**SHAPE}},
        "sft": {"kind": "sft", "model": policy, "data": {**CHATS}},
        "small": {"kind": "sft", "model": "@base", "data": {**CHATS}},
        "reward": {"kind": "reward", "model": "@sft", "data": {"source": "accord:demo/pairs", "limit": 4}},
        "ppo": {"kind": "policy", "model": "@sft", "data": {**PROMPTS}, "rewards": {"@reward": 1}},
        "ev": {
            "kind": "evaluate",
            "models": {"small": "@small", "sft": "@sft"},
            "baseline": "sft",
            "data": {**PROMPTS},
        },
    }
    return {"name": "x", "stage": {name: {**stage, **changed.get(name, {})} for name, stage in stages.items()}}


def said(folders: Path, **changed: dict[str, JsonValue]) -> str:
    with pytest.raises(AccordError) as caught:
        inspect(parse(recipe(folders, **changed)))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_sound_recipe_is_sound(folders: Path):
    assert [seen.where for seen in inspect(parse(recipe(folders)))] == [
        f"stage.{name}.data" for name in ("base", "sft", "small", "reward", "ppo", "ev")
    ]


TELLS = "is a reward model and cannot answer; give a model that does"
NO_ROOM = "leave no room for a prompt: a row holds {0}, by the model's context or max_tokens; give fewer than {0}"
# The stage, what is changed in it, and the message after `stage.`; {folder} holds the models.
MISTAKES: dict[str, tuple[str, dict[str, JsonValue], str]] = {
    "no weights": ("sft", {"model": "{folder}/empty"},
                   "sft.model: {folder}/empty holds no weights (.safetensors); give a complete model folder"),
    "a reward model that is to answer": ("sft", {"model": "{folder}/judge"}, f"sft.model: {{folder}}/judge {TELLS}"),
    "a reward model as reference": ("ppo", {"reference": "{folder}/judge"},
                                    f"ppo.reference: {{folder}}/judge {TELLS}"),
    "a reward model under evaluation": ("ev", {"models": {"sft": "@sft", "b": "{folder}/judge"}},
                                        f"ev.models.b: {{folder}}/judge {TELLS}"),
    "a policy as reward": ("ppo", {"rewards": {"{folder}/policy": 1}},
                           "ppo.rewards.{folder}/policy: {folder}/policy is not a reward model; "
                           "give the folder of a reward stage"),
    "a policy that chooses": ("ppo", {"eval_rewards": {"{folder}/policy": 1}},
                              "ppo.eval_rewards.{folder}/policy: {folder}/policy is not a reward model; "
                              "give the folder of a reward stage"),
    "no such critic": ("ppo", {"params": {"critic": "{folder}/none"}},
                       "ppo.params.critic: there is no folder {folder}/none; give a model folder, a hub id or @stage"),
    "layers that are not there": ("sft", {"lora": {"targets": ["query", "q_proj", "key"]}},
                                  f"sft.lora.targets: no layer is called key, query; {LAYERS}"),
    "layers that an earlier stage's model has not": (
        "reward", {"lora": {"targets": ["query"]}}, f"reward.lora.targets: no layer is called query; {LAYERS}"),
    "layers that a model from scratch will not have": (
        "small", {"lora": {"targets": ["c_attn"]}}, f"small.lora.targets: no layer is called c_attn; {LAYERS}"),
    "answers as long as the context": ("ppo", {"rollout": {"max_new_tokens": 512}},
                                       f"ppo.rollout.max_new_tokens: 512 tokens {NO_ROOM.format(512)}"),
    "answers longer than a row": ("ppo", {"max_tokens": 100}, f"ppo.rollout.max_new_tokens: 128 tokens {NO_ROOM.format(100)}"),
    "answers longer than the context of a model from scratch": (
        "ev", {"baseline": "small"}, f"ev.sampling.max_new_tokens: 128 tokens {NO_ROOM.format(64)}"),
}  # fmt: skip


def filled(value: JsonValue, folder: Path) -> JsonValue:
    """The changes with the folder of the models in them."""
    if isinstance(value, dict):
        return {key.replace("{folder}", str(folder)): filled(item, folder) for key, item in value.items()}
    return value.replace("{folder}", str(folder)) if isinstance(value, str) else value


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_before_any_work(folders: Path, name: str):
    stage, changed, message = MISTAKES[name]
    made = {key: filled(value, folders) for key, value in changed.items()}
    assert said(folders, **{stage: made}) == f"stage.{message.replace('{folder}', str(folders))}"


def test_other_architectures_are_refused(folders: Path):
    found = said(folders, sft={"model": str(folders / "encoder-decoder")})
    assert found.startswith("stage.sft.model: a t5 model is of no use here (")
    assert found.endswith(f"); {DECODER}")
    found = said(folders, ppo={"rewards": {str(folders / "encoder"): 1}})
    said_of_head = f"{folders}/encoder: a BertForSequenceClassification has no linear head named 'score'; {DECODER}"
    assert found == said_of_head


def test_layers_cost_no_memory(folders: Path):
    made = skeleton(load_config(folders / "policy", "test"), "test", scorer=True)
    assert {str(weight.device) for weight in made.parameters()} == {"meta"}
    assert score_head(made).in_features == 32


def test_a_critic_of_one_s_own_counts(folders: Path, tmp_path: Path):
    """What a policy stage is made from depends on the critic that it names."""
    shutil.copytree(folders / "judge", tmp_path / "critic")
    made = parse(recipe(folders, ppo={"params": {"critic": str(tmp_path / "critic")}}))
    before = fingerprints(made)
    change(tmp_path / "critic", reward_std=2.0)
    after = fingerprints(made)
    assert [name for name in before if before[name] != after[name]] == ["ppo"]


def test_without_the_network_a_hub_model_counts_by_its_name(folders: Path, monkeypatch: pytest.MonkeyPatch):
    def lost(*_: object) -> None:
        raise HTTPError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", lost)
    one, other = (fingerprints(parse(recipe(folders, sft={"model": f"nobody/{name}"}))) for name in ("one", "other"))
    assert one == fingerprints(parse(recipe(folders, sft={"model": "nobody/one"})))
    assert one["sft"] != other["sft"]


# ------------------------------------------------------------------------------------------------------------ opening


def opened(folder: Path | str, opens: Callable[..., object] = load_policy, **more: object) -> AccordError:
    with pytest.raises(AccordError) as caught:
        opens(folder, None, "chat", **more)
    return caught.value


def test_a_model_that_cannot_be_read(folders: Path, tmp_path: Path):
    fix = "; give a model folder or a hub id"
    for opens, more in ((load_policy, {}), (load_scorer, {"seed": 0})):
        found = str(opened(folders / "empty", opens, **more))
        assert found.startswith(f"chat: no model could be read from {folders}/empty (")
        assert "model.safetensors" in found
        assert found.endswith(f"){fix}")
        found = str(opened(tmp_path / "none", opens, **more))
        assert found == f"chat: no model could be read from {tmp_path}/none (there is no such folder){fix}"
    assert str(opened(folders / "mixed")).startswith(f"chat: no model could be read from {folders}/mixed (")
    assert str(opened(folders / "judge")) == f"chat: {folders}/judge {TELLS}"


def test_the_network_is_the_machine_s_fault():
    """HF_HUB_OFFLINE is set for all tests: nothing can be fetched."""
    where = "there is no such folder, and the hub cannot be reached; give a folder, or connect to the network"
    error = opened("nobody/no-such-model")
    assert isinstance(error, EngineError)
    assert str(error) == f"chat: no model could be read from nobody/no-such-model: {where}"
    with pytest.raises(EngineError) as caught:
        load_tokenizer("nobody/no-such-model", "chat")
    assert str(caught.value) == f"chat: no tokenizer could be read from nobody/no-such-model: {where}"


def test_a_model_that_does_not_fit_into_memory(folders: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 140 GB")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    error = opened(folders / "policy")
    assert (str(error), error.exit_code) == (
        f"chat: there is not enough memory for {folders}/policy; give a smaller model",
        3,
    )


# ----------------------------------------------------------------------------------------------------------- adapters

FORM = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
PARTS = "it holds r, lora_alpha and base_model_name_or_path; fetch the adapter again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"peft_type": ', "{file} is damaged (Expecting value: line 1 column 15 (char 14)); fetch the adapter again"),
        ("[]", "{file} is damaged (not an object); fetch the adapter again"),
        (json.dumps({**FORM, "r": 0}), f"{{file}} lacks what an adapter is made of; {PARTS}"),
        (json.dumps({**FORM, "lora_alpha": None}), f"{{file}} lacks what an adapter is made of; {PARTS}"),
        (json.dumps({**FORM, "base_model_name_or_path": ""}), f"{{file}} lacks what an adapter is made of; {PARTS}"),
    ],
)
def test_settings_of_an_adapter_that_say_nothing(tmp_path: Path, text: str, message: str):
    (tmp_path / lora.WEIGHTS).write_bytes(b"")
    (tmp_path / lora.CONFIG).write_text(text)
    with pytest.raises(ModelError) as caught:
        lora.find(tmp_path, "stage.sft.model")
    assert str(caught.value) == "stage.sft.model: " + message.format(file=tmp_path / lora.CONFIG)


def test_an_adapter_without_weights(tmp_path: Path):
    (tmp_path / lora.CONFIG).write_text(json.dumps(FORM))
    with pytest.raises(ModelError) as caught:
        lora.find(tmp_path, "stage.sft.model")
    assert str(caught.value) == (
        f"stage.sft.model: {tmp_path} has adapter_config.json and no adapter_model.safetensors; "
        "give a complete adapter folder"
    )
