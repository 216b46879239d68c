"""A model made ready for many forward passes over few tokens each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from accord.attention import NAME

# Layers of one module that are given the same input, one after the other.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@contextmanager
def ready(model: PreTrainedModel) -> Iterator[torch.dtype | None]:
    """Let a model attend by layouts and multiply by copies of its weights; gives the precision that autocast asks for, if any.

    Autocast would cast weights that stand still in every forward pass, and a product with few tokens would spend a good
    part of its time bringing the weights into the order that they are read in. Here both happen once, at the price of a
    second copy. Hooks, as those of adapters, see the inputs and outputs of layers as ever.
    """
    device = model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    attention = model.config._attn_implementation or "eager"
    groups = grouped(model)
    try:
        model.set_attn_implementation(NAME)
        for layers in groups:
            product = Product(layers, dtype or layers[0].weight.dtype)
            for i, layer in enumerate(layers):
                vars(layer)["forward"] = product.of(i)
        yield dtype
    finally:
        for layer in (layer for layers in groups for layer in layers):
            vars(layer).pop("forward", None)
        model.set_attn_implementation(attention)


def grouped(model: nn.Module) -> list[list[nn.Linear | Conv1D]]:
    """Every linear layer of a model, those that are given the same input in one group."""
    found: dict[str, list[nn.Linear | Conv1D]] = {}
    first = {name: names[0] for names in TOGETHER for name in names}
    for path, layer in model.named_modules():
        parent, _, name = path.rpartition(".")
        if type(layer) in (nn.Linear, Conv1D):
            found.setdefault(f"{parent}.{first.get(name, name)}", []).append(cast(nn.Linear, layer))
    return list(found.values())


class Product:
    """One matrix product for layers with the same input, in a precision; each of them takes its part of it."""

    def __init__(self, layers: Sequence[nn.Linear | Conv1D], dtype: torch.dtype) -> None:
        # GPT-2 keeps its weights the other way round.
        weights = [layer.weight if isinstance(layer, nn.Linear) else layer.weight.T for layer in layers]
        biases = [weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
                  for layer, weight in zip(layers, weights, strict=True)]  # fmt: skip
        biased = any(layer.bias is not None for layer in layers)
        self.multiply = multiplier(torch.cat(weights).to(dtype), torch.cat(biases).to(dtype) if biased else None)
        self.dtype, self.sizes = dtype, [len(weight) for weight in weights]
        self.given: Tensor | None = None
        self.parts: Sequence[Tensor] = ()

    def of(self, index: int) -> Callable[[Tensor], Tensor]:
        """The forward pass of one of the layers."""
        return (lambda x: self.multiply(x.to(self.dtype))) if len(self.sizes) == 1 else lambda x: self._part(x, index)

    def _part(self, x: Tensor, index: int) -> Tensor:
        if x is not self.given:
            self.given, self.parts = x, self.multiply(x.to(self.dtype)).split_with_sizes(self.sizes, -1)
        found = self.parts[index]
        if index == len(self.sizes) - 1:
            self.given, self.parts = None, ()
        return found


def multiplier(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Multiplication by a weight, [out, in], which is brought into the order that oneDNN reads where that is at hand."""
    if not _packs(weight):
        return lambda x: functional.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: cast(Tensor, multiply(x, packed, bias, "none", [], ""))


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN is there and multiplies in this precision."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    half = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return half or weight.dtype == torch.float32
