"""Keys and values of rows that are being answered, one slot for each, and the attention that reads them.

A forward pass has one row of tokens: the prompts of rows that begin, one after the other and so without padding, or the
last token of every row that goes on. Memory is slots times the tokens of the longest row so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PretrainedConfig

STEP = 32  # tokens by which slots grow: each growth copies what is there
SHORT = 256  # longest prompt whose attention is plain matrix products on a CPU, where the fused kernel is slower


@dataclass
class Slots:
    """Keys and values of every layer, [slots * K, room, D] each: what a CPU's matrix products want in one piece."""

    count: int
    dtype: torch.dtype
    room: int = 0  # tokens that a slot holds
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def grow(self, room: int, used: int) -> None:
        """Let every slot hold `room` tokens, or a few more; the first `used` slots keep what they hold."""
        if room <= self.room:
            return
        before, self.room = self.room, -(-room // STEP) * STEP
        for layer, (keys, values) in self.layers.items():
            rows = len(keys) // self.count * used
            self.layers[layer] = (self._grown(keys, rows, before), self._grown(values, rows, before))

    def _grown(self, kept: Tensor, rows: int, before: int) -> Tensor:
        grown = kept.new_empty(len(kept), self.room, kept.shape[2])
        grown[:rows, :before] = kept[:rows]
        grown[:rows, before:] = grown[rows:] = 0
        return grown

    def of(self, layer: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, made at the first sight of its `key`, [N, K, D].

        They begin at 0: what no row has written yet is read, with no weight, and must be a number.
        """
        if layer not in self.layers:
            shape = (self.count * key.shape[1], self.room, key.shape[2])
            keys, values = (key.new_zeros(shape, dtype=self.dtype) for _ in range(2))
            self.layers[layer] = (keys, values)
        return self.layers[layer]

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy slots `source`, [R], over slots `target`, [R]."""
        for kept in self.layers.values():
            for x in kept:
                slots = x.view(self.count, -1)
                slots[target] = slots[source]


class Layout(ABC):
    """Which of the tokens in slots each token of a forward pass reads, and where it is kept."""

    @abstractmethod
    def read(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """query [N, H, D], key and value [N, K, D] of all tokens: what each of them reads, [N, H, D]."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """The same as `accord.attention` has it: query [1, H, N, D], key and value [1, K, N, D], out [1, N, H, D]."""
        return self.read(*(x[0].transpose(0, 1) for x in (query, key, value)), layer=layer, scale=scale)[None]


class Prompts(Layout):
    """The layout of prompts that begin: each is read once, and kept in the slots of all rows that begin with it."""

    def __init__(
        self, slots: Slots, prompts: Sequence[Sequence[int]], rows: Tensor, which: Tensor, windows: Sequence[int | None]
    ) -> None:
        """rows: slots that begin, [R], after those in use; which: the prompt of each, [R]; windows: of the layers."""
        lengths = [len(prompt) for prompt in prompts]
        starts = [sum(lengths[:i]) for i in range(len(prompts))]
        self.slots, self.windows, self.which, self.rows = slots, windows, which, rows
        self.longest = max(lengths)
        slots.grow(self.longest, int(rows[0]))
        device = rows.device
        self.tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)  # [N]
        self.positions = torch.cat([torch.arange(length) for length in lengths]).to(device)  # [N]
        self.last = torch.tensor(
            [start + length - 1 for start, length in zip(starts, lengths, strict=True)], device=device
        )
        grid = torch.tensor(starts)[:, None] + torch.arange(self.longest)
        self.grid = (
            grid.clamp(max=sum(lengths) - 1).flatten().to(device)
        )  # [P * L], the token at each place of padded rows
        rows_of = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths))
        self.place = rows_of.to(device) * self.longest + self.positions  # [N], where each token is among them

    def read(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """Every token reads its own prompt up to itself."""
        keys, values = self.slots.of(layer, key)
        query, key, value = (self._padded(x, keys.dtype) for x in (query, key, value))
        for kept, new in ((keys, key), (values, value)):
            room = kept.view(self.slots.count, key.shape[1], self.slots.room, -1)[:, :, : self.longest]
            room.index_copy_(0, self.rows, new.index_select(0, self.which))
        out = causal(query, key, value, scale, self.windows[layer])
        return out.transpose(1, 2).flatten(0, 1).index_select(0, self.place)

    def _padded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Heads of all tokens, [N, H, D], as padded rows, [P, H, L, D]."""
        rows = x.to(dtype).index_select(0, self.grid)
        return rows.view(-1, self.longest, *rows.shape[1:]).transpose(1, 2)


class Rows(Layout):
    """The layout of one more token for each of the first rows."""

    def __init__(self, slots: Slots, positions: Tensor, windows: Sequence[int | None]) -> None:
        """positions: of the token in each row, [S]; its slot has room for it."""
        self.slots, self.positions, self.windows = slots, positions, windows
        self.bias: dict[tuple[int | None, int], Tensor] = {}
        self.places: dict[int, Tensor] = {}

    def read(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        """Every token reads its own slot up to its position."""
        heads, size = key.shape[1:]
        keys, values = self.slots.of(layer, key)
        rows = len(self.positions) * heads
        for kept, new in ((keys, key), (values, value)):
            kept.view(-1, size).index_copy_(0, self._place(heads), new.to(kept.dtype).reshape(rows, size))
        grouped = query.to(keys.dtype).reshape(rows, -1, size)  # by the head of keys that they read
        return products(grouped, keys[:rows], values[:rows], self._hides(layer, heads, keys), scale).view(query.shape)

    def _place(self, heads: int) -> Tensor:
        """Where the new keys go among those of all slots and positions, [S * K]."""
        if heads not in self.places:
            first = torch.arange(len(self.positions) * heads, device=self.positions.device) * self.slots.room
            self.places[heads] = (first.view(-1, heads) + self.positions[:, None]).flatten()
        return self.places[heads]

    def _hides(self, layer: int, heads: int, keys: Tensor) -> Tensor:
        """What hides the rest of a slot, [S * K, 1, T]; layers with one window share it."""
        window = self.windows[layer]
        if (window, heads) not in self.bias:
            hidden = _hidden(self.positions, self.slots.room, window)[:, None].expand(-1, heads, -1)
            self.bias[window, heads] = _bias(hidden.reshape(-1, 1, self.slots.room), keys)
        return self.bias[window, heads]


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Causal attention of padded rows: query [P, H, L, D], keys and values [P, K, L, D], out [P, H, L, D]."""
    count, heads, length, size = query.shape
    places = torch.arange(length, device=query.device)
    if length > SHORT or query.device.type != "cpu":
        mask = ~_hidden(places, length, window) if window is not None and window < length else None
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )
    flat = (count * key.shape[1], -1, size)
    bias = _bias(_hidden(places, length, window), query).repeat(heads // key.shape[1], 1)
    out = products(query.reshape(flat), key.reshape(flat), value.reshape(flat), bias, scale)
    return out.view(count, heads, length, size)


def products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Softmax attention by matrix products: query [B, M, D], keys and values [B, T, D], bias [B or none, M or 1, T]."""
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), value)


def _hidden(positions: Tensor, length: int, window: int | None) -> Tensor:
    """Which of `length` tokens the tokens at these positions, [S], do not see: [S, T]."""
    here, places = positions[:, None], torch.arange(length, device=positions.device)
    return places > here if window is None else (places > here) | (places <= here - window)


def _bias(hidden: Tensor, like: Tensor) -> Tensor:
    """What is added to scores: 0, and -inf where they are hidden."""
    return like.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)


def windows(config: PretrainedConfig) -> list[int | None]:
    """How many tokens, itself among them, a token sees in each layer; None where it sees all before it."""
    said = config.to_dict()
    kinds = said.get("layer_types") or ["sliding_attention"] * config.num_hidden_layers
    return [said.get("sliding_window") if kind == "sliding_attention" else None for kind in kinds]
