"""The models of a recipe, before any work: they are there, of the right kind, and have the layers and the room asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from accord import demo, lora
from accord.data.tokenizer import load_tokenizer
from accord.errors import ModelError, RecipeError
from accord.functions import is_reference
from accord.model import context_of, has_head, load_config, skeleton
from accord.recipe import AnyStage, Evaluate, Lora, Policy, Pretrain, Recipe, Reward, Select, Shape
from accord.recipe.evaluate import is_server
from accord.run import folder_digest
from accord.stages.fit import room_for
from accord.stages.pretrain import fresh_model


def check_models(recipe: Recipe) -> dict[str, PreTrainedTokenizerBase]:
    """The tokenizers of the models from outside that a recipe reads, by name; an error where one is of no use."""
    tokenizers: dict[str, PreTrainedTokenizerBase] = {}
    for name, stage in recipe.stage.items():
        where = f"stage.{name}"
        _check_adapter(recipe, where, stage)
        for key, model in models(stage):
            path, at = model_path(model), f"{where}.{key}"
            if model not in tokenizers:
                tokenizers[model] = load_tokenizer(path, at)
            config = load_config(path, at)
            _check_kind(stage, key, model, config, at)
            _check_weights(path, at)
        root = origin(recipe, stage)
        _check_room(stage, root, where)
        adapter = getattr(stage, "lora", None)
        if isinstance(adapter, Lora) and root:
            lora.targets_of(_skeleton(root, f"{where}.model"), adapter, f"{where}.lora")
    return tokenizers


def _check_kind(stage: AnyStage, key: str, model: str, config: PretrainedConfig, where: str) -> None:
    """Reward models stand where rewards are named, models that answer everywhere else; either may become a critic."""
    judges = key.startswith(("rewards.", "eval_rewards."))
    either = key in {"params.critic", "judge"} or stage.kind == "reward"
    if judges and not has_head(config):
        raise ModelError(where, f"{model} is not a reward model", "give the folder of a reward stage")
    if has_head(config) and not judges and not either:
        raise ModelError(where, f"{model} is a reward model and cannot answer", "give a model that does")
    skeleton(config, where, scorer=judges or either)


def _check_weights(path: Path | str, where: str) -> None:
    """A folder holds the weights of its model, or an adapter, which `lora.find` looks at."""
    if Path(path).is_dir() and not [file for file in Path(path).iterdir() if file.suffix in {".safetensors", ".bin"}]:
        raise ModelError(where, f"{path} holds no weights (.safetensors)", "give a complete model folder")


def _check_room(stage: AnyStage, root: str | Shape | None, where: str) -> None:
    """Where a stage samples: an answer leaves room for its prompt."""
    if not isinstance(stage, Policy | Select | Evaluate) or not root:
        return
    config = _config(root, where)
    longest = min(stage.max_tokens or context_of(config), context_of(config))
    key, tokens = (
        ("rollout", stage.rollout.max_new_tokens)
        if isinstance(stage, Policy)
        else ("sampling", stage.sampling.max_new_tokens)
    )
    room_for(tokens, longest, f"{where}.{key}.max_new_tokens")


def _check_adapter(recipe: Recipe, where: str, stage: AnyStage) -> None:
    """An adapter that comes in has the form of the one that the stage trains."""
    train, model = getattr(stage, "lora", None), getattr(stage, "model", None)
    if not isinstance(train, Lora) or not model:
        return
    if model.startswith("@"):
        before = getattr(recipe.stage[model[1:]], "lora", None)
        fits = before is None or (before.r, before.scale, before.targets) == (train.r, train.scale, train.targets)
        form = f"of stage '{model[1:]}'"
    else:
        adapter = lora.find(model_path(model), f"{where}.model")
        fits = adapter is None or adapter.fits(train)
        form = f"in {model}"
    if not fits:
        raise RecipeError(f"{where}.lora", f"the adapter {form}, which goes on learning here, has another form",
                          "use its r, alpha and targets, or merge it first: accord export MODEL --merge")  # fmt: skip


# ------------------------------------------------------------------------------------------------- what a stage names


def models(stage: AnyStage) -> list[tuple[str, str]]:
    """The models from outside the run that a stage reads, with their keys."""
    named = [("model", getattr(stage, "model", None)), ("reference", getattr(stage, "reference", None))]
    if isinstance(stage, Evaluate):
        named += [(f"models.{name}", path) for name, path in stage.local.items()]
        named += [("judge", "" if is_server(stage.judge) else stage.judge)]
    named += [("normalise.policy", stage.normalise.policy)] if isinstance(stage, Reward) else []
    critic = getattr(getattr(stage, "params", None), "critic", "")
    named += [("params.critic", critic if critic not in {"reward", "policy", "trunk"} else "")]
    for key in ("rewards", "eval_rewards"):
        named += [(f"{key}.{name}", name) for name in getattr(stage, key, {})]
    return [(key, name) for key, name in named if name and not name.startswith("@") and not is_reference(name)]


def origin(recipe: Recipe, stage: AnyStage) -> str | Shape | None:
    """What a stage's model (of an evaluation the baseline) grew from: one from outside, or the shape of a new one."""
    while True:
        model = stage.start if isinstance(stage, Evaluate) else stage.model
        if model is None or not model.startswith("@"):
            return stage.shape if model is None and isinstance(stage, Pretrain) else model
        stage = recipe.stage[model[1:]]


def model_path(model: str) -> Path | str:
    """The folder of an embedded model or of a path; a hub id stays as it is."""
    if model.startswith("accord:"):
        return demo.model(model)
    return Path(model) if Path(model).is_dir() else model


def model_print(model: str) -> str:
    """A hash of a model's files, with those of the base that an adapter belongs to; the commit of one of the hub."""
    path = Path(model_path(model))
    if not path.is_dir():
        return _hub_commit(model)
    adapter = lora.find(path, "model")
    return folder_digest(path) + (model_print(adapter.base) if adapter else "")


@cache
def _hub_commit(model: str) -> str:
    """The commit of a hub model: that of the cache where the hub cannot be reached, the bare id where nothing is known."""
    from huggingface_hub import HfApi, errors, try_to_load_from_cache

    try:
        return HfApi().model_info(model).sha or model
    except (OSError, errors.HTTPError):  # pyright: ignore[reportPrivateImportUsage]
        cached = try_to_load_from_cache(model, "config.json")
        return Path(cached).parent.name if isinstance(cached, str) else model


def _config(root: str | Shape, where: str) -> PretrainedConfig:
    return load_config(model_path(root), where) if isinstance(root, str) else _skeleton(root, where).config


def _skeleton(root: str | Shape, where: str) -> PreTrainedModel:
    """The layers of a model that is there, or of one that will be made."""
    if isinstance(root, str):
        return skeleton(load_config(model_path(root), where), where)
    with torch.device("meta"):
        return fresh_model(root)
