"""Low-rank adapters (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685), any number of them on one copy of the weights.

A layer with an adapter computes W x + (alpha / r) B A x: W is frozen, A [r, in] and B [out, r] learn, and B begins at 0, so
that training begins at the model as it was. Policy, reference, critic and reward models can be views of one trunk, each of
which switches its own adapter on for the length of its forward pass. Folders are those of `peft`, which opens them.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils.hub import cached_file

from accord.errors import ModelError
from accord.recipe import Lora

PREFIX = "base_model.model."  # of names in peft's files
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What peft can put into adapter_config.json and would change the forward pass in a way that is not supported here.
REFUSED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "target_parameters",
    "trainable_token_indices",
)


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, or the one that a model is about to get."""

    base: str  # the model that it belongs to: folder or hub id
    r: int
    scale: float
    alpha: float
    targets: tuple[str, ...]  # last parts of the names of its layers
    weights: Path | None = None  # None where it is new

    def fits(self, lora: Lora) -> bool:
        """Whether training may go on in it under these settings."""
        targets = lora.targets == "all-linear" or set(lora.targets) == set(self.targets)
        return self.r == lora.r and self.scale == lora.scale and targets


class Low(nn.Module):
    """The two factors of one adapter in one layer."""

    def __init__(self, inside: int, outside: int, r: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.lora_A = nn.Linear(inside, r, bias=False)
        self.lora_B = nn.Linear(r, outside, bias=False)
        self.scale, self.dropout = scale, dropout
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What the adapter adds to the layer's output."""
        x = functional.dropout(x, self.dropout, training=torch.is_grad_enabled()) if self.dropout else x
        return self.lora_B(self.lora_A(x)) * self.scale

    def delta(self) -> Tensor:
        """What it would add to the layer's weight, [out, in]."""
        return self.lora_B.weight @ self.lora_A.weight * self.scale


class Adapters(nn.Module):
    """The adapters of one layer by name, of which one at most is on."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.ModuleDict()
        self.on = ""

    def after(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The forward hook of the layer."""
        return output + self.low[self.on](inputs[0]) if self.on in self.low else output


def new(model: PreTrainedModel, settings: Lora) -> Adapter:
    """The adapter that a model gets under these settings."""
    targets = targets_of(model, settings, "lora")
    return Adapter(model.config._name_or_path, settings.r, settings.scale, settings.scale * settings.r, targets)


def targets_of(model: PreTrainedModel, settings: Lora, where: str) -> tuple[str, ...]:
    """Last parts of the names of the layers that get an adapter; ModelError where the model has no such layer."""
    known = sorted({path.rpartition(".")[2] for path, _ in _layers(model)})
    targets = known if settings.targets == "all-linear" else settings.targets
    if missing := sorted(set(targets) - set(known)):
        raise ModelError(f"{where}.targets", f"no layer is called {', '.join(missing)}", f"known: {', '.join(known)}")
    return tuple(targets)


# ----------------------------------------------------------------------------------------------------------- on a model


def attach(model: PreTrainedModel, name: str, adapter: Adapter, *, dropout: float = 0.0, seed: int = 0) -> None:
    """Put an adapter on a model's trunk, frozen as the rest of it: a new one, or with the weights of its folder."""
    prefix = f"{model.base_model_prefix}."
    stored = _read(adapter.weights) if adapter.weights else {}
    generator = torch.Generator().manual_seed(seed)
    for path, layer in _layers(model):
        if path.rpartition(".")[2] not in adapter.targets:
            continue
        low = Low(*_sizes(layer), adapter.r, adapter.scale, dropout)
        for part in ("lora_A", "lora_B"):
            key, weight = f"{prefix}{path}.{part}.weight", cast(nn.Linear, getattr(low, part)).weight
            with torch.no_grad():
                if adapter.weights:
                    weight.copy_(_taken(stored, key, weight, adapter.weights))
                elif part == "lora_A":
                    bound = 1 / math.sqrt(weight.shape[1])  # Kaiming's, as peft begins
                    weight.uniform_(-bound, bound, generator=generator)
        _adapters(layer).low[name] = low.to(layer.weight.device).requires_grad_(False)


def _adapters(layer: nn.Module) -> Adapters:
    """The adapters of a layer, which gets its hook with the first."""
    held = dict(layer.named_children()).get("adapters")
    if not isinstance(held, Adapters):
        held = Adapters()
        layer.add_module("adapters", held)
        layer.register_forward_hook(held.after)
    return held


def _read(path: Path) -> dict[str, Tensor]:
    try:
        stored = load_file(path)
    except SafetensorError as error:
        fix = "have its stage done again (remove the stage's folder), or fetch it again"
        raise ModelError(str(path), f"is damaged ({error})", fix) from None
    return {key.removeprefix(PREFIX): value for key, value in stored.items()}


def _taken(stored: dict[str, Tensor], key: str, like: Tensor, path: Path) -> Tensor:
    if key not in stored or stored[key].shape != like.shape:
        raise ModelError(
            str(path), f"holds no {key} of {list(like.shape)}", "the adapter belongs to another base model"
        )
    return stored[key]


def _sizes(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """In and out; GPT-2 keeps its weights the other way round."""
    out, inside = layer.weight.shape
    return (inside, out) if isinstance(layer, nn.Linear) else (out, inside)


def _layers(model: PreTrainedModel) -> list[tuple[str, nn.Linear | Conv1D]]:
    """The linear layers of a trunk."""
    return [
        (path, layer) for path, layer in model.base_model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and ".adapters." not in f".{path}."
    ]  # fmt: skip


def _lows(model: PreTrainedModel, name: str) -> Iterator[tuple[str, nn.Linear | Conv1D, Low]]:
    """The layers of a trunk that have an adapter of this name."""
    for path, layer in _layers(model):
        if (low := low_of(layer, name)) is not None:
            yield path, layer, low


def low_of(layer: nn.Linear | Conv1D, name: str) -> Low | None:
    """The adapter of this name in a layer, if it has one."""
    held = dict(layer.named_children()).get("adapters")
    return cast(Low, held.low[name]) if isinstance(held, Adapters) and name in held.low else None


def spare_name(model: PreTrainedModel) -> str:
    """A name that no adapter of a trunk has yet."""
    taken = {name for _, layer in _layers(model) for name in _adapters(layer).low}
    return f"adapter-{len(taken)}"


def merge(model: PreTrainedModel, name: str) -> None:
    """Add an adapter to the weights for good and take it off."""
    with torch.no_grad():
        for _, layer, low in list(_lows(model, name)):
            delta = low.delta()
            cast(Tensor, layer.weight).add_(delta if isinstance(layer, nn.Linear) else delta.T)
            del _adapters(layer).low[name]


# ---------------------------------------------------------------------------------------------------------------- views


def view(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """The same weights, run with adapter `name`, or with none where it is empty."""
    made = copy.copy(model)
    for key, value in list(vars(made).items()):
        if key.startswith("_forward"):  # the hooks of the model that it is copied from
            vars(made)[key] = type(value)()
    return bind(made, name)


def bind(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Let every forward pass of `model` run with adapter `name`, and leave the trunk with none."""
    held = [_adapters(layer) for _, layer in _layers(model)]

    def switch(to: str) -> None:
        for adapters in held:
            adapters.on = to

    vars(model)["adapter_name"] = name
    model.register_forward_pre_hook(lambda *_: switch(name))
    model.register_forward_hook(lambda *_: switch(""), always_call=True)
    return model


def again(part: nn.Module) -> AbstractContextManager[None]:
    """Where a part of a model runs once more with the adapter that is on in it now."""
    now = {held: held.on for held in part.modules() if isinstance(held, Adapters)}

    @contextmanager
    def switched() -> Iterator[None]:
        before = {held: held.on for held in now}
        try:
            for held, name in now.items():
                held.on = name
            yield
        finally:
            for held, name in before.items():
                held.on = name

    return switched()


def scorer_on(trunk: PreTrainedModel, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A sequence classifier around the trunk of another model; its head is new, at 0."""
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    with torch.device("meta"):
        made = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=trunk.config._attn_implementation
        )
    made.config._name_or_path = trunk.config._name_or_path
    setattr(made, made.base_model_prefix, trunk.base_model)
    head = nn.Linear(made.score.in_features, 1, bias=False, device=trunk.device)
    nn.init.zeros_(head.weight)
    made.score = head
    return cast(PreTrainedModel, made.eval())


def same_base(model: PreTrainedModel, path: str | Path) -> bool:
    """Whether `path` is the model that the trunk of this view was loaded from."""
    return name_of(model) is not None and _located(model.config._name_or_path) == _located(path)


def _located(path: str | Path) -> str:
    return str(Path(path).resolve()) if Path(path).is_dir() else str(path)


def name_of(model: PreTrainedModel) -> str | None:
    """The adapter that a model runs with; None where it is no view of a trunk with adapters."""
    return cast(str | None, vars(model).get("adapter_name"))


def own_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What belongs to a model alone: everything, or of a view its adapter and its scalar head."""
    name = name_of(cast(PreTrainedModel, model))
    if name is None:
        return list(model.parameters())
    found = [weight for _, _, low in _lows(cast(PreTrainedModel, model), name) for weight in low.parameters()]
    head = dict(model.named_children()).get("score")
    return found + (list(head.parameters()) if head is not None else [])


# -------------------------------------------------------------------------------------------------------------- folders


def find(path: str | Path, where: str) -> Adapter | None:
    """The adapter in a folder or hub repository; None where there is a whole model."""
    local = Path(path) / CONFIG
    file = local if local.is_file() else None if Path(path).is_dir() else _fetched(str(path), CONFIG)
    if not file:
        return None
    said = _settings(file, where)
    extra = [key for key in REFUSED if said.get(key)]
    extra += [f"bias={said['bias']}"] if said.get("bias", "none") != "none" else []
    extra += [] if said.get("peft_type") == "LORA" else [f"peft_type={said.get('peft_type')}"]
    targets, kept = said.get("target_modules"), cast("list[str]", said.get("modules_to_save") or [])
    extra += [] if isinstance(targets, list) else [f"target_modules={targets!r}"]
    extra += [f"modules_to_save={name}" for name in kept if name not in {"score", "classifier"}]
    if extra:
        raise ModelError(
            where, f"{path} is an adapter with {', '.join(extra)}", "merge it into its base with peft first"
        )
    weights = file.with_name(WEIGHTS) if local.is_file() else _fetched(str(path), WEIGHTS)
    if weights is None or not weights.is_file():
        raise ModelError(where, f"{path} has {CONFIG} and no {WEIGHTS}", "give a complete adapter folder")
    r, alpha, base = said.get("r"), said.get("lora_alpha"), said.get("base_model_name_or_path")
    if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float) or not isinstance(base, str) or not base:
        fix = "it holds r, lora_alpha and base_model_name_or_path; fetch the adapter again"
        raise ModelError(where, f"{file} lacks what an adapter is made of", fix)
    scale = alpha / math.sqrt(r) if said.get("use_rslora") else alpha / r
    return Adapter(base, r, scale, alpha, tuple(sorted(cast("list[str]", targets))), weights)


def _settings(file: Path, where: str) -> dict[str, object]:
    """What adapter_config.json says."""
    try:
        said = cast(object, json.loads(file.read_text(encoding="utf-8")))
        if not isinstance(said, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ModelError(where, f"{file} is damaged ({error})", "fetch the adapter again") from None
    return cast("dict[str, object]", said)


def _fetched(repository: str, file: str) -> Path | None:
    """A file of a hub repository; None where it has none, or where there is no such repository: the model's loader says so."""
    try:
        found = cached_file(repository, file, _raise_exceptions_for_missing_entries=False)
    except OSError:
        return None
    return Path(found) if found else None


def stored_head(adapter: Adapter) -> Tensor | None:
    """The scalar head that an adapter brings, [1, hidden]."""
    return _read(adapter.weights).get("score.weight") if adapter.weights else None


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapter that a view runs with, and its scalar head, as `peft` does."""
    name = name_of(model)
    assert name is not None
    lows = list(_lows(model, name))
    low, prefix = lows[0][2], f"{PREFIX}{model.base_model_prefix}."
    tensors = {
        f"{prefix}{path}.{part}.weight": cast(nn.Linear, getattr(low, part)).weight.detach().cpu().contiguous()
        for path, _, low in lows
        for part in ("lora_A", "lora_B")
    }
    head = dict(model.named_children()).get("score")
    if isinstance(head, nn.Linear):
        tensors[f"{PREFIX}score.weight"] = head.weight.detach().cpu().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head is not None else "CAUSAL_LM",
        "base_model_name_or_path": _located(model.config._name_or_path),
        "r": low.lora_A.out_features,
        "lora_alpha": low.scale * low.lora_A.out_features,
        "lora_dropout": low.dropout,
        "target_modules": sorted({path.rpartition(".")[2] for path, _, _ in lows}),
        "fan_in_fan_out": isinstance(lows[0][1], Conv1D),
        "modules_to_save": ["score"] if head is not None else None,
        "bias": "none",
        "inference_mode": True,
    }
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    described = copy.copy(model.config)
    described.architectures = [type(model).__name__]
    described.save_pretrained(folder)
    if model.can_generate() and model.generation_config is not None:  # which tokens end an answer
        model.generation_config.save_pretrained(folder)
