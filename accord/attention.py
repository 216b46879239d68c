"""Attention that is told how its tokens are laid out, registered with transformers under a name of its own.

A model opened with `attn_implementation=NAME` takes `layout=...` as one more keyword of its forward pass; every layer
hands it to `attend`. Without a layout it attends as transformers' "sdpa" does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from accord.data.packed import Packed

NAME = "accord"

# Architectures whose attention is what a layout computes: products of queries and keys, a softmax over what a token may
# see, and no more. tests/test_attention.py holds each of them to plain transformers.
KNOWN = {"gpt2", "llama", "mistral", "qwen2", "qwen3"}

BLOCK = 64  # queries that are looked at together on a CPU
LONGEST = 1024  # keys up to which keeping the probabilities of a block pays there
_FUSED: ContextVar[bool] = ContextVar("fused", default=False)


class Layout(Protocol):
    """Which tokens see which, and how that is computed."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """query [S, H, L, D], key and value [S, K, L, D] with H a multiple of K: what every token reads, [S, L, H, D]."""
        ...


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    scaling: float | None = None, layout: Layout | None = None, **kwargs: object,
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


# --------------------------------------------------------------------------------------------------------- packed rows


@dataclass(frozen=True)
class Apart:
    """Rows that stand one after the other see nothing of each other; tails see the head that they go on from."""

    packed: Packed

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """query [1, H, N, D], key and value [1, K, N, D]: [1, N, H, D]."""
        # Under autocast rotary positions leave queries and keys in float32.
        (q, q_tail), (k, k_tail), (v, v_tail) = (self._spread(x.to(value.dtype)) for x in (query, key, value))
        found = [causal(q, k, v, scale=scale)]
        if len(q_tail):
            after = self.packed.after
            keys, values = (
                torch.cat([head.index_select(0, after), tail], dim=2) for head, tail in ((k, k_tail), (v, v_tail))
            )
            found.append(causal(q_tail, keys, values, scale=scale, hidden=self.packed.hidden))
        flat = [x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3]) for x in found]
        together = torch.cat(flat) if len(flat) > 1 else flat[0]
        return gather(together, self.packed.order).view(1, -1, query.shape[1], query.shape[3])

    def _spread(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the tokens, [1, K, N, D], in heads and tails, 0 for padding: [G, K, P, D] and [R, K, A, D]."""
        _, heads, count, size = values.shape
        shapes = self.packed.heads, self.packed.tails
        areas = [rows * width for rows, width in shapes]
        flat = scatter(values.transpose(1, 2).reshape(count, heads * size), self.packed.order, sum(areas))
        first, second = (
            part.view(*shape, heads, size).transpose(1, 2)
            for part, shape in zip(flat.split(areas), shapes, strict=True)
        )
        return first, second


def scatter(values: Tensor, order: Tensor, size: int) -> Tensor:
    """Rows of [N, C] at their places among `size`, 0 elsewhere."""
    return values if size == len(values) else _Scatter.apply(values, order, size)  # pyright: ignore[reportReturnType]


def gather(values: Tensor, order: Tensor) -> Tensor:
    """Rows of [M, C] from their places, [N, C]."""
    return values if len(order) == len(values) else _Gather.apply(values, order)  # pyright: ignore[reportReturnType]


class _Scatter(torch.autograd.Function):
    """PyTorch's own would add up gradients where each row has one."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(order)
        found = values.new_zeros(size, values.shape[1])
        found[order] = values
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, *ctx.saved_tensors), None, None


class _Gather(torch.autograd.Function):
    """The same, the other way round."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        ctx.size = len(values)
        return values.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        found = gradients[0].new_zeros(ctx.size, gradients[0].shape[1])
        found[ctx.saved_tensors[0]] = gradients[0]
        return found, None


# ------------------------------------------------------------------------------------------------- causal, by blocks


@contextmanager
def fused(on: bool = True) -> Iterator[None]:
    """Let PyTorch's fused kernel do all attention, as it does on a GPU."""
    token = _FUSED.set(on)
    try:
        yield
    finally:
        _FUSED.reset(token)


def causal(query: Tensor, key: Tensor, value: Tensor, *, scale: float, hidden: Tensor | None = None) -> Tensor:
    """Causal attention, [R, H, L, D], of the last L of M keys to those before them.

    query: [R, H, L, D]; key, value: [R, K, M, D], H a multiple of K. hidden: [R, M - L] bool, which of the keys in front nobody
    sees.
    """
    own = query.shape[2]
    if query.device.type == "cpu" and key.shape[2] <= LONGEST and not _FUSED.get():
        return _Blocks.apply(query, key, value, hidden, scale)  # pyright: ignore[reportReturnType]
    sees = None
    if hidden is not None:
        earlier = torch.ones(own, own, dtype=torch.bool, device=query.device).tril()
        front = ~hidden[:, None].expand(-1, own, -1)
        sees = torch.cat([front, earlier.expand(len(hidden), -1, -1)], dim=2)[:, None]
    return nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=sees,
        is_causal=sees is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


class _Blocks(torch.autograd.Function):
    """A block of queries at a time, each with the keys up to its own end: half the work of the whole square.

    PyTorch's fused kernel takes three times as long for short rows in bfloat16 on a CPU. Query heads that share a key head
    stand below one another, so that nothing is repeated. With P = softmax(scale Q K'), O = P V:
    dV = P' dO, dS = P * (dO V' - rowsum(dO V' * P)), dQ = scale dS K, dK = scale dS' Q.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
        rows, heads, length, size = query.shape
        keys = key.shape[1]
        k, v = (x.reshape(rows * keys, -1, size) for x in (key, value))
        front = k.shape[1] - length
        q = query.reshape(rows * keys, heads // keys, length, size)
        unseen = None if hidden is None else hidden.repeat_interleave(keys, 0)[:, None, None]
        later = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=q.device).triu(1)
        found = torch.empty_like(q)
        kept: list[Tensor] = []
        for start in range(0, length, BLOCK):
            part = q[:, :, start : start + BLOCK]
            width, end = part.shape[2], front + start + part.shape[2]
            block = part.flatten(1, 2)
            scores = torch.bmm(block, k[:, :end].transpose(1, 2)).mul_(scale).view(*part.shape[:3], end)
            scores[..., front + start :].masked_fill_(later[:width, :width], -torch.inf)
            if unseen is not None:
                scores[..., :front].masked_fill_(unseen, -torch.inf)
            p = torch.softmax(scores, -1).flatten(1, 2)
            found[:, :, start : start + width] = torch.bmm(p, v[:, :end]).view_as(part)
            kept += [block, p]
        ctx.scale, ctx.front = scale, front
        ctx.save_for_backward(k, v, *kept)
        return found.view(rows, heads, length, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        k, v, *kept = ctx.saved_tensors
        (gradient,) = gradients
        rows, heads, length, size = gradient.shape
        keys = len(k) // rows
        g = gradient.reshape(rows * keys, heads // keys, length, size)
        of_q, of_k, of_v = torch.empty_like(g), torch.zeros_like(k), torch.zeros_like(v)
        for i, start in enumerate(range(0, length, BLOCK)):
            block, p = kept[2 * i], kept[2 * i + 1]
            part = g[:, :, start : start + BLOCK]
            end, down = p.shape[2], part.flatten(1, 2)
            of_p = torch.bmm(down, v[:, :end].transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_p, p, -1, p.dtype).mul_(ctx.scale)
            of_q[:, :, start : start + BLOCK] = torch.bmm(of_scores, k[:, :end]).view_as(part)
            of_k[:, :end] += torch.bmm(of_scores.transpose(1, 2), block)
            of_v[:, :end] += torch.bmm(p.transpose(1, 2), down)
        shape = rows, keys, -1, size
        return of_q.view(gradient.shape), of_k.view(shape), of_v.view(shape), None, None
