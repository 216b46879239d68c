"""The last layer only where something is read: of other tokens it is their keys and values alone that count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from accord.attention import gather, scatter

# Where an architecture has its layers, and the first and last module of each way from attention to the residual stream.
WAYS = {"gpt2": ("h", [("attn.c_proj", "attn.c_proj"), ("ln_2", "mlp")])}
LIKE_LLAMA = "layers", [("self_attn.o_proj", "self_attn.o_proj"), ("post_attention_layernorm", "mlp")]
WORTH = 0.9  # share of the tokens that is read at most, or nothing is left out


@contextmanager
def only(model: PreTrainedModel, at: Tensor, count: int) -> Iterator[None]:
    """Leave out of the last layer's products all of `count` packed tokens but those `at` [n], whose hidden states stay right.

    The outcome of what is left out is 0. A layer that is computed again in the backward pass (checkpointing) stays whole.
    """
    layers, ways = WAYS.get(model.config.model_type, LIKE_LLAMA)
    last = cast(nn.ModuleList, model.base_model.get_submodule(layers))[-1]
    if len(at) > WORTH * count or "forward" in vars(last):
        yield
        return

    def pick(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (gather(inputs[0][0], at)[None], *inputs[1:])

    def put(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return scatter(output[0], at, count)[None]

    handles = [last.get_submodule(first).register_forward_pre_hook(pick) for first, _ in ways]
    handles += [last.get_submodule(end).register_forward_hook(put) for _, end in ways]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
