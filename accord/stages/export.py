"""Models on their way out: an adapter merged into its base, weights as 8-bit integers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.data import prepare
from accord.data.batch import collate
from accord.data.prepare import Limits, Loaded
from accord.data.records import Text
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import Engine
from accord.errors import ModelError
from accord.model import context_of, has_head, load_config, load_policy, load_scorer, save_model
from accord.objectives.likelihood import sft
from accord.outputs import Roles
from accord.recipe import Source
from accord.run import write_folder
from accord.score.training_range import load_range

# What transformers and vLLM read as integer weights with a scale for each output, and activations as they are.
INT8 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "format": "pack-quantized",
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
        }
    },
}


def merged(path: str, folder: Path) -> None:
    """Write a whole model: an adapter with its base, anything else as it is."""
    tokenizer = load_tokenizer(path, "export")
    scorer = has_head(load_config(path, "export"))
    model = load_scorer(path, tokenizer, "export", seed=None) if scorer else load_policy(path, tokenizer, "export")
    known = load_range(path)
    save_model(model, tokenizer, folder, also=known.save if known else None)


def quantised(path: str, folder: Path, data: Source | None, engine: Engine) -> list[float]:
    """Write a policy whose linear layers, but the head, are 8-bit integers; its perplexity on `data` before and after."""
    if has_head(load_config(path, "export")):
        raise ModelError(
            "export", f"{path} is a reward model", "only policies are written as integers; leave --int8 out"
        )
    tokenizer = load_tokenizer(path, "export")
    model = engine.place(load_policy(path, tokenizer, "export"))
    layers = dict(_layers(model))
    if not layers:
        raise ModelError("export", f"{model.config.model_type} has no linear layers of its own", "leave --int8 out")
    found = [perplexity(model, tokenizer, data, engine)] if data else []
    packed: dict[str, Tensor] = {}
    for name, layer in layers.items():
        integers, scale = rounded(layer.weight.detach())
        packed |= {
            f"{name}.weight_packed": pack(integers),
            f"{name}.weight_scale": scale,
            f"{name}.weight_shape": torch.tensor(integers.shape),
        }
        layer.weight.copy_(integers * scale)  # what a reader will compute with
    found += [perplexity(model, tokenizer, data, engine)] if data else []

    def fill(draft: Path) -> None:
        model.save_pretrained(draft)  # its configuration, and what is no linear layer
        whole = dict(model.state_dict())
        for tied in getattr(model, "all_tied_weights_keys", None) or {}:
            whole.pop(tied, None)
        rest = {name: value for name, value in whole.items() if name.removesuffix(".weight") not in layers}
        tensors = {name: value.cpu().contiguous() for name, value in (rest | packed).items()}
        for written in [*draft.glob("*.safetensors"), *draft.glob("*.index.json")]:
            written.unlink()
        save_file(tensors, draft / "model.safetensors", {"format": "pt"})
        config = json.loads((draft / "config.json").read_text(encoding="utf-8"))
        config["quantization_config"] = {**INT8, "ignore": _left(model, layers)}
        (draft / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        tokenizer.save_pretrained(draft)

    write_folder(folder, fill, SafetensorError)
    return found


def _layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the trunk, by their names in the model."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer is not model.get_output_embeddings() and layer.in_features % 4 == 0:
            yield name, layer


def _left(model: PreTrainedModel, layers: dict[str, nn.Linear]) -> list[str]:
    """Linear layers that keep their weights."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name not in layers]


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, in] as integers from -127 to 127 and a scale for each output, [out, 1]: weight = integers * scale."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def pack(integers: Tensor) -> Tensor:
    """Four 8-bit integers in one of 32 bits, the first in its lowest byte, each 128 higher: [out, in] -> [out, in / 4]."""
    bytes_ = (integers.to(torch.int32) + 128).view(integers.shape[0], -1, 4)
    return sum((bytes_[..., i] << 8 * i for i in range(1, 4)), bytes_[..., 0]).to(torch.int32)


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Source, engine: Engine) -> float:
    """Perplexity on demonstrations (the answers') or plain text."""
    loaded = Loaded.of([data], "--data")
    room = context_of(model.config)
    groups = (
        prepare.texts(loaded, tokenizer, room, "--data")
        if any(isinstance(record, Text) for record in loaded.records)
        else prepare.demonstrations(loaded, tokenizer, Limits(room), "--data")
    )
    batches = [collate(groups[i : i + 64], pad_id(tokenizer)) for i in range(0, len(groups), 64)]
    found = engine.evaluate(Roles(policy=model), batches, sft, {}, micro_tokens=4096)
    return math.exp(min(found["loss"], 700))
