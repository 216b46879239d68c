"""Attention that is told how its tokens are laid out, registered with transformers under a name of its own.

A model opened with `attn_implementation=NAME` takes `layout=...` as one more keyword of its forward pass; every layer
hands it to `attend`. Without a layout it attends as transformers' "sdpa" does.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "accord"

# Architectures whose attention is what a layout computes: scores q·k, a softmax over what a token may see, and no more.
# tests/test_attention.py holds each of them to plain transformers.
KNOWN = {"gpt2", "llama", "mistral", "qwen2", "qwen3"}


class Layout(Protocol):
    """Which tokens see which, and how that is computed."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """query [S, H, L, D], key and value [S, K, L, D] with H a multiple of K: what every token reads, [S, L, H, D]."""
        ...


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    scaling: float | None = None, layout: Layout | None = None, layer_idx: int | None = None, **kwargs: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """The function that transformers calls in every layer."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **kwargs)  # pyright: ignore
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return layout.attend(query, key, value, layer=module.layer_idx, scale=scale), None  # pyright: ignore


def laid_out(tokens: Tensor, positions: Tensor, layout: Layout) -> dict[str, object]:
    """Keyword arguments of a forward pass under a layout. The mask is a stand-in: transformers would make one of its own."""
    stand_in = torch.empty(1, 1, 1, 1)
    return {
        "input_ids": tokens,
        "position_ids": positions,
        "attention_mask": stand_in,
        "layout": layout,
        "use_cache": False,
    }


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
