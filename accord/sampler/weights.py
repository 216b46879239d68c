"""Matrix products by copies of weights, made ready for many forward passes over few tokens each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from accord import lora

Map: TypeAlias = Callable[[Tensor], Tensor]


def product(
    layers: Sequence[nn.Linear | Conv1D], dtype: torch.dtype, *, adapter: str = "", order: Tensor | None = None
) -> Map:
    """One product for layers with the same input, [N, in] to [N, out of all], with what their adapters add.

    Autocast would cast weights that stand still in every forward pass, and a product with few tokens would spend a good
    part of its time bringing the weights into the order that they are read in. Here both happen once, at the price of a
    second copy. order: where each output comes from, [out of all].
    """
    # GPT-2 keeps its weights the other way round.
    weights = [layer.weight if isinstance(layer, nn.Linear) else layer.weight.T for layer in layers]
    biases = [weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
              for layer, weight in zip(layers, weights, strict=True)]  # fmt: skip
    biased = any(layer.bias is not None for layer in layers)

    def whole(parts: Sequence[Tensor]) -> Tensor:
        together = torch.cat([part.to(dtype) for part in parts]) if len(parts) > 1 else parts[0].to(dtype)
        return together if order is None else together[order]

    multiply = multiplier(whole(weights), whole(biases) if biased else None)
    lows = [lora.low_of(layer, adapter) for layer in layers]
    if not any(lows):
        return multiply
    ups = [weight.new_zeros(len(weight), 0) if low is None else low.lora_B.weight * low.scale
           for low, weight in zip(lows, weights, strict=True)]  # fmt: skip
    down = multiplier(torch.cat([low.lora_A.weight for low in lows if low is not None]).to(dtype), None)
    up = multiplier(whole([torch.block_diag(*ups)]), None)
    return lambda x: multiply(x).add_(up(down(x)))


def multiplier(weight: Tensor, bias: Tensor | None) -> Map:
    """Multiplication by a weight, [out, in], which is brought into the order that oneDNN reads where that is at hand."""
    if not _packs(weight):
        return lambda x: functional.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: cast(Tensor, multiply(x, packed, bias, "none", [], ""))


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN is there and multiplies in this precision."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    half = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return half or weight.dtype == torch.float32
