"""RMS norms and GELU in few passes over memory, in place of those that transformers spells out operation by operation."""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

# Classes of transformers, by name: importing them all to look at one model would take longer than opening it.
NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
GELU = "NewGELUActivation"  # eight operations, of which autograd keeps four outcomes as wide as the layer


def quicken(model: PreTrainedModel) -> None:
    """Let the RMS norms of a model compute by `rms_norm`, and GELU by one operation."""
    for module in model.modules():
        if type(module).__name__ in NORMS:
            module.forward = MethodType(_norm, module)
        elif type(module).__name__ == GELU:
            module.forward = MethodType(_gelu, module)


def _gelu(_: nn.Module, hidden: Tensor) -> Tensor:
    return functional.gelu(hidden, approximate="tanh")


def _norm(module: nn.Module, hidden: Tensor) -> Tensor:
    kind = hidden.device.type
    # Cast once here, not by each of the layers that read it.
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    return rms_norm(hidden, cast(Tensor, module.weight), cast(float, module.variance_epsilon), precision)


def rms_norm(values: Tensor, weight: Tensor, epsilon: float, precision: torch.dtype) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, computed in float32 at least (Zhang and Sennrich 2019,
    https://arxiv.org/abs/1910.07467, eq. 4)."""
    if torch.is_grad_enabled():
        return _RmsNorm.apply(values, weight, epsilon, precision)  # pyright: ignore[reportReturnType]
    return _normed(values, weight, epsilon)[0].to(precision)


def _normed(values: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Normed values, and 1 / rms of each row."""
    x = values.to(torch.promote_types(values.dtype, torch.float32))
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    rate = torch.addcmul(length.new_tensor(epsilon), length, length, value=1 / x.shape[-1]).rsqrt_()
    return (x * rate).mul_(weight), rate


class _RmsNorm(torch.autograd.Function):
    """With n = x r, r = 1 / rms: dx = r (w dy - n mean(w dy n)) and dw = sum(dy n)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, epsilon: float, precision: torch.dtype) -> Tensor:
        normed, rate = _normed(values, weight, epsilon)
        ctx.save_for_backward(values, weight, rate)
        return normed.to(precision)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, rate = ctx.saved_tensors
        normed = values * rate
        given = gradients[0].to(normed.dtype)
        of_weight = (given * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        slope = given * weight
        slope -= normed * (slope * normed).mean(-1, keepdim=True)
        return slope.mul_(rate).to(values.dtype), of_weight, None, None
