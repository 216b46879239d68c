"""Rows of a group that begin alike are read as one: the prompt once, then each answer as if the others were not there.

    row 0   p p p a a        sequence   p p p a a b b b
    row 1   p p p b b b      position   0 1 2 3 4 3 4 5

Answers see the prompt and themselves, so every token's hidden state is what it would be in a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.data.batch import Batch

WORTH = 0.9  # share of the tokens that must be left at most, or rows stay as they are


@dataclass(frozen=True)
class Shared:
    """The rows of a batch, [B, T], as sequences, [G, L], one for each group."""

    tokens: Tensor  # [G, L] int64
    positions: Tensor  # [G, L] int64
    sees: Tensor  # [G, 1, L, L] bool, which tokens each token attends to
    sequence: Tensor  # [B] int64, where each row is read
    place: Tensor  # [B, T] int64, where each of its tokens stands there; 0 for padding

    def rows(self, values: Tensor) -> Tensor:
        """Values by sequence, [G, L, ...], as values by row, [B, T, ...]."""
        return values[self.sequence[:, None], self.place]

    def pick(self, values: Tensor, where: Tensor) -> Tensor:
        """Those of the same at N chosen tokens of the rows, [B, T] bool: [N, ...]."""
        return values[self.sequence[:, None].expand_as(where)[where], self.place[where]]


def share(batch: Batch) -> Shared | None:
    """The batch with common beginnings read once; None where that saves little or rows are padded on the left."""
    groups, sequence = batch.group.unique_consecutive(return_inverse=True)
    if len(groups) == len(batch) or batch.left_padded:
        return None
    count, columns = torch.arange(len(batch)), torch.arange(batch.tokens.shape[1])
    start = _least(count, sequence)  # the first row of each row's group
    alike = (batch.tokens == batch.tokens[start]) & batch.attend & batch.attend[start]
    common = _least(alike.long().cumprod(1).sum(1), sequence)  # [B], length of the beginning that a group shares
    own = batch.last() + 1 - common
    before = own.cumsum(0) - own
    before = before - before[start]  # own tokens of the rows in front of it in its group
    place = torch.where(columns < common[:, None], columns, before[:, None] + columns)
    place = torch.where(batch.attend, place, 0)
    width = int(place.max()) + 1
    if len(groups) * width > WORTH * batch.tokens.numel():
        return None

    row, at = batch.attend.nonzero(as_tuple=True)
    where = (sequence[row], place[row, at])
    tokens = torch.zeros(len(groups), width, dtype=torch.int64)
    positions = torch.zeros_like(tokens)
    tokens[where], positions[where] = batch.tokens[row, at], at
    owner = torch.full_like(tokens, -1)  # the row that a token belongs to; -1 where it belongs to all
    owner[where] = torch.where(at < common[row], -1, row)
    earlier = torch.ones(width, width, dtype=torch.bool).tril()
    sees = earlier & ((owner[:, None, :] == -1) | (owner[:, None, :] == owner[:, :, None]))
    return Shared(tokens, positions, sees[:, None], sequence, place)


def _least(values: Tensor, group: Tensor) -> Tensor:
    """For each row the smallest value in its group, [B]."""
    found = torch.full((int(group.max()) + 1,), int(values.max()))
    return found.scatter_reduce(0, group, values, "amin")[group]
