"""Rows to batches: padding, counting, and micro-batches that never change a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accord.data.rows import Group, Rows
from accord.data.rows import Row as Row

Unit: TypeAlias = Literal["token", "row", "pair", "group", "value"]


@dataclass
class Batch:
    """Rows as tensors. Rows with the same group id stand next to each other; they are never split, unless `loose`."""

    tokens: Tensor  # [B, T] int64
    attend: Tensor  # [B, T] bool, False on padding
    train: Tensor  # [B, T] bool, the tokens that the objective is about; never the first of a row
    group: Tensor  # [B] int64
    extra: dict[str, Tensor] = field(default_factory=dict)  # [B] per row or [B, T] per token
    temperature: float = 1.0  # log-probs are those of logits / temperature
    loose: bool = False  # rows of a group have a beginning in common and no more

    def __getitem__(self, name: str) -> Tensor:
        return self.extra[name]

    def __len__(self) -> int:
        return len(self.tokens)

    def pairs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values by row, [B, ...], as those of the chosen and those of the rejected rows, [B/2, ...] each."""
        return values[0::2], values[1::2]

    def counts(self) -> dict[Unit, int]:
        """How many there are of each unit that a loss can be averaged over: a row counts if anything in it is trained, a value
        where a critic learns one (`valued`)."""
        return {
            "token": int(self.train.sum()),
            "row": int(self.train.any(1).sum()),
            "pair": len(self) // 2,
            "group": int(self.group.unique().numel()),
            "value": int(self.extra["valued"].sum()) if "valued" in self.extra else 0,
        }

    @property
    def left_padded(self) -> bool:
        """Whether any row begins with padding."""
        return not bool(self.attend[:, 0].all())

    def positions(self) -> Tensor:
        """Position of each token in its row, [B, T]; padding on the left does not count."""
        return (self.attend.long().cumsum(1) - 1).clamp(min=0)

    def last(self) -> Tensor:
        """Index of each row's last real token, [B]."""
        return self.attend.shape[1] - 1 - self.attend.flip(1).long().argmax(1)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        extra = {name: values.to(device) for name, values in self.extra.items()}
        moved = (x.to(device) for x in (self.tokens, self.attend, self.train, self.group))
        return Batch(*moved, extra=extra, temperature=self.temperature, loose=self.loose)

    def select(self, index: Tensor) -> Batch:
        """The rows at `index`, [b], without columns that are padding in all of them (on the right)."""
        width = int(self.last()[index].max()) + 1
        extra = {name: x[index] if x.dim() == 1 else x[index, :width] for name, x in self.extra.items()}
        tokens, attend, train = (x[index, :width] for x in (self.tokens, self.attend, self.train))
        return replace(self, tokens=tokens, attend=attend, train=train, group=self.group[index], extra=extra)

    def micro(self, budget: int, parts: int = 1, *, packed: bool = False) -> list[Tensor]:
        """Row indices of micro-batches of at most `budget` tokens, with padding unless `packed`: whole groups, longest first.

        Their number is a multiple of `parts` where that can be, and they hold about the same number of tokens, so that
        `parts` processes are done together. A group longer than the budget has a micro-batch of its own, a loose one several.
        """
        length = (self.last() + 1).tolist()
        members: dict[int, list[int]] = {}
        for row, group in enumerate(self.group.tolist()):
            members.setdefault(group, []).append(row)

        def size(rows: list[int]) -> int:
            return sum(length[row] for row in rows) if packed else len(rows) * max(length[row] for row in rows)

        found = [part for rows in members.values() for part in (_parted(rows, size, budget) if self.loose else [rows])]
        groups = sorted(found, key=lambda rows: -max(length[row] for row in rows))
        large = [rows for rows in groups if size(rows) > budget]
        rest = [rows for rows in groups if size(rows) <= budget]
        found = rest  # one group to a micro-batch, if nothing larger fits
        for count in range((-len(large) - 1) % parts + 1, len(rest), parts):
            cut = _cut(rest, length, count)
            if all(size(rows) <= budget for rows in cut):
                found = cut
                break
        return [torch.tensor(rows) for rows in large + found]


def _parted(rows: list[int], size: Callable[[list[int]], int], budget: int) -> list[list[int]]:
    """A group in as few parts as fit the budget, or each row by itself."""
    for count in range(1, len(rows)):
        each = math.ceil(len(rows) / count)
        parts = [rows[i : i + each] for i in range(0, len(rows), each)]
        if all(size(part) <= budget for part in parts):
            return parts
    return [[row] for row in rows]


def _cut(groups: list[list[int]], length: list[int], count: int) -> list[list[int]]:
    """Groups in order, joined to `count` parts (or as many as there are groups) with about the same number of tokens."""
    share = sum(length[row] for rows in groups for row in rows) / count
    found: list[list[int]] = []
    seen = 0
    for rows in groups:
        if seen >= share * len(found):
            found.append([])
        found[-1] += rows
        seen += sum(length[row] for row in rows)
    return found


def collate(groups: Sequence[Group], pad: int) -> Batch:
    """Groups of rows as one batch, padded on the right to the longest."""
    rows = Rows.of(groups)
    row, group = rows.rows()  # [B] each
    length = rows.row[row + 1] - rows.row[row]
    attend, at = np.arange(length.max()) < length[:, None], rows.places()  # [B, T]; the tokens that are no padding

    def padded(values: NDArray[np.generic], fill: float, kind: type[np.generic]) -> Tensor:
        found = np.full(attend.shape, fill, kind)  # [B, T]
        found[attend] = values[at]
        return torch.from_numpy(found)

    extra = {name: torch.from_numpy(values[row].astype(np.float32)) for name, values in rows.of_rows.items()}
    extra |= {name: padded(values, 0, np.float32) for name, values in rows.of_tokens.items()}
    train = padded(rows.train, False, np.bool_)
    train[:, 0] = False  # nothing stands before it that could predict it
    tokens = padded(rows.tokens, pad, np.int64)
    return Batch(tokens, torch.from_numpy(attend), train, torch.from_numpy(group), extra)


def minibatches(batch: Batch, size: int, epochs: int, *, seed: int, step: int) -> list[Batch]:
    """`epochs` passes over the rows of a batch in parts of `size`, drawn anew for each; rows of a group stay neighbours."""
    found: list[Batch] = []
    for epoch in range(epochs):
        index = torch.from_numpy(np.random.default_rng([seed, step, epoch]).permutation(len(batch)))
        found += [batch.select(part.sort().values) for part in index.split(size)]
    return found


def step_count(groups: int, batch_size: int, *, epochs: float | None, steps: int | None) -> int:
    """Optimizer steps of a stage: `steps`, or what `epochs` (1 if unset) passes come to, the last batch possibly short."""
    if steps is not None:
        return steps
    passes = 1.0 if epochs is None else epochs
    whole, part = divmod(passes, 1)
    return int(whole) * math.ceil(groups / batch_size) + math.ceil(part * groups / batch_size)


def order(groups: int, batch_size: int, *, seed: int, start: int = 0) -> Iterator[list[int]]:
    """Indices of batch after batch without end: every epoch a fresh permutation that depends on seed and epoch alone.

    `start` skips that many batches, as resuming does.
    """
    per_epoch = math.ceil(groups / batch_size)
    epoch, skip = divmod(start, per_epoch)
    while True:
        shuffled = np.random.default_rng([seed, epoch]).permutation(groups).tolist()
        for i in range(skip, per_epoch):
            yield shuffled[i * batch_size : (i + 1) * batch_size]
        epoch, skip = epoch + 1, 0
