"""The tokens of a batch one after the other, without padding; what rows of a group have in common at their start, once.

    row 0   p p p a a        tokens     p p p c c c c a a b b b
    row 1   p p p b b b      position   0 1 2 0 1 2 3 3 4 3 4 5
    row 2   c c c c          heads      (p p p) (c c c c)      tails   (a a) (b b b), both after the first head

Heads are rows of their own or the beginnings that rows share; tails go on from a head. Attention alone needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.data.batch import Batch

WORTH = 0.9  # share of the tokens that must be left at most, or rows with a common beginning stay as they are


@dataclass(frozen=True)
class Packed:
    """The rows of a batch, [B, T], as N tokens, and where each of them attends."""

    tokens: Tensor  # [1, N] int64
    positions: Tensor  # [1, N] int64, in its row
    place: Tensor  # [B, T] int64, where each token of the rows stands among the N; 0 for padding
    heads: tuple[int, int]  # how many there are, and how long is the longest: G, P
    tails: tuple[int, int]  # R, A
    after: Tensor  # [R] int64, the head that each tail goes on from
    hidden: Tensor  # [R, P] bool, the padding of that head
    order: Tensor  # [N] int64, where each token stands among the G P + R A places of padded heads and tails

    def rows(self, values: Tensor) -> Tensor:
        """Values of the tokens, [1, N, ...], as values of the rows, [B, T, ...]."""
        return values[0].index_select(0, self.place.flatten()).view(*self.place.shape, *values.shape[2:])

    def seen(self, where: Tensor) -> Tensor:
        """Which of the N tokens the chosen tokens of the rows, [B, T] bool, are, each once: [n] int64, rising."""
        return (
            torch.zeros_like(self.tokens[0], dtype=torch.bool).index_fill_(0, self.place[where], True).nonzero()[:, 0]
        )

    def pick(self, values: Tensor, where: Tensor) -> Tensor:
        """Those of the same at n chosen tokens of the rows, [B, T] bool: [n, ...]."""
        return values[0].index_select(0, self.place[where])  # whose gradient is five times as fast as that of [...]


def pack(batch: Batch) -> Packed:
    """The batch without padding, and with common beginnings once where that saves enough."""
    at, length = batch.positions(), batch.attend.sum(1)
    common, first = _common(batch)  # [B] each
    shares = common > 0
    leads = ~shares | (first == torch.arange(len(batch), device=first.device))  # rows with a head of their own
    own_head = torch.where(shares, common, length)
    in_head = batch.attend & leads[:, None] & (at < own_head[:, None])
    in_tail = batch.attend & shares[:, None] & (at >= common[:, None])
    ahead = int(in_head.sum())
    count = ahead + int(in_tail.sum())

    place = torch.zeros_like(batch.tokens)
    place[in_head] = torch.arange(ahead, device=place.device)
    place[in_tail] = torch.arange(ahead, count, device=place.device)
    place = torch.where(batch.attend & ~in_tail, place[first], place)

    left = (length - common)[shares]
    heads, tails = _filled(own_head[leads]), _filled(left[left > 0])
    after = (leads.cumsum(0) - 1)[first][shares][left > 0]
    order = torch.cat([heads.flatten(), tails.flatten()]).nonzero()[:, 0]
    tokens, positions = (torch.cat([x[in_head], x[in_tail]])[None] for x in (batch.tokens, at))
    sizes = [(len(x), x.shape[1]) for x in (heads, tails)]
    return Packed(tokens, positions, place, sizes[0], sizes[1], after, ~heads[after], order)


def _common(batch: Batch) -> tuple[Tensor, Tensor]:
    """For each row how many tokens at its start its group has in common, and the group's first row; 0 and itself where it is
    alone, or where sharing saves little."""
    count = torch.arange(len(batch), device=batch.tokens.device)
    groups, sequence = batch.group.unique_consecutive(return_inverse=True)
    if len(groups) == len(batch) or batch.left_padded:
        return torch.zeros_like(count), count
    first = _least(count, sequence)
    alike = (batch.tokens == batch.tokens[first]) & batch.attend & batch.attend[first]
    common = _least(alike.long().cumprod(1).sum(1), sequence)
    common = torch.where(sequence.bincount()[sequence] > 1, common, 0)
    spared = int((common * (first != count)).sum())
    if spared < (1 - WORTH) * int(batch.attend.sum()):
        return torch.zeros_like(count), count
    return common, torch.where(common > 0, first, count)


def _least(values: Tensor, group: Tensor) -> Tensor:
    """For each row the smallest value in its group, [B]."""
    found = values.new_full((int(group.max()) + 1,), int(values.max()))
    return found.scatter_reduce(0, group, values, "amin")[group]


def _filled(length: Tensor) -> Tensor:
    """Which places hold a token, in rows of these lengths padded to the longest: [R, longest] bool."""
    widest = int(length.max()) if len(length) else 0
    return torch.arange(widest, device=length.device) < length[:, None]
