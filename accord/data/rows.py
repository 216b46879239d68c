"""Rows of tokens: one by one as plain lists, and any number of them as a few arrays, in memory or mapped from files."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray

Index: TypeAlias = NDArray[np.int64]
Extra: TypeAlias = dict[str, float | list[float]]  # numbers of a row, or one for each token
Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

TOKENS, TRAIN, INDEX = "tokens.bin", "train.bin", "index.npz"  # the files of rows on disk
OF_ROWS, OF_TOKENS = "of_rows.", "of_tokens."  # what names of numbers that travel with rows begin with there


@dataclass
class Row:
    """One tokenised conversation: its tokens, which of them the objective is about, and numbers that travel with it."""

    tokens: list[int]
    train: list[bool]
    extra: Extra = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)


Group: TypeAlias = list[Row]  # rows that belong together: [row], [chosen, rejected], the answers to one prompt


@dataclass(frozen=True, eq=False)
class Rows(Sequence[Group]):
    """Groups of rows as arrays, five bytes a token. A group is made when it is asked for: what is written to it is lost.

    Slices and selections stand on the same arrays and differ in the groups that are `chosen`.
    """

    tokens: NDArray[np.int32]  # [N], row after row
    train: NDArray[np.bool_]  # [N]
    row: Index  # [R + 1]: row r is tokens[row[r] : row[r + 1]]
    group: Index  # [G + 1]: group g is the rows group[g] .. group[g + 1] - 1
    item: Index  # [G], the number of what a group was made of
    of_rows: Mapping[str, Floats]  # [R] each
    of_tokens: Mapping[str, Floats]  # [N] each
    chosen: Index  # among the groups 0 .. G - 1

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Rows:
        """Groups as arrays; those that are so already stay as they are. All rows have the same names in `extra`."""
        if isinstance(groups, cls):
            return groups
        with Writer() as writer:
            for group in groups:
                writer.add(group)
            return writer.rows()

    @classmethod
    def open(cls, folder: Path) -> Rows:
        """The rows that a Writer has left in a folder; tokens and masks are read from disk as they are needed."""
        tokens = np.asarray(np.memmap(folder / TOKENS, np.int32, "r"))
        train = np.asarray(np.memmap(folder / TRAIN, np.bool_, "r"))
        with np.load(folder / INDEX) as index:
            return _assembled(tokens, train, dict(index))

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Group | Rows:
        if isinstance(index, slice):
            return replace(self, chosen=self.chosen[index])
        group = self.chosen[index]
        return [self._row(row) for row in range(self.group[group], self.group[group + 1])]

    def _row(self, number: int) -> Row:
        at = slice(self.row[number], self.row[number + 1])
        extra: Extra = {name: float(values[number]) for name, values in self.of_rows.items()}
        extra |= {name: values[at].tolist() for name, values in self.of_tokens.items()}
        return Row(self.tokens[at].tolist(), self.train[at].tolist(), extra)

    def select(self, index: Sequence[int] | Index) -> Rows:
        """Some of the groups, by their places here."""
        return replace(self, chosen=self.chosen[np.asarray(index, np.int64)])

    def with_tokens(self, name: str, values: Floats) -> Rows:
        """The same with a number for each token of the arrays, [N]; batches have what is in it when they are made."""
        return replace(self, of_tokens={**self.of_tokens, name: values})

    def rows(self) -> tuple[Index, Index]:
        """The number of every row, [B], and the place of its group here, [B]."""
        start = self.group[self.chosen]
        count = self.group[self.chosen + 1] - start
        return spans(start, count), np.repeat(np.arange(len(self)), count)

    def places(self) -> Index:
        """Where the tokens of these groups stand in the arrays, row after row."""
        row, _ = self.rows()
        return spans(self.row[row], self.row[row + 1] - self.row[row])


def spans(start: Index, count: Index) -> Index:
    """`start[i]` .. `start[i] + count[i] - 1` for each i, one after the other."""
    before = count.cumsum() - count
    return np.arange(count.sum()) + np.repeat(start - before, count)


class Writer:
    """Takes groups one by one: tokens and masks go at once into files of a `folder`, or without one into memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._tokens: BinaryIO = (folder / TOKENS).open("wb") if folder else BytesIO()
        self._train: BinaryIO = (folder / TRAIN).open("wb") if folder else BytesIO()
        self._index = {"row": array("q", [0]), "group": array("q", [0]), "item": array("q")}
        self._extra: dict[str, array[float]] = {}

    def add(self, group: Group, item: int = 0) -> None:
        """One more group; `item` is the number of what it was made of."""
        for row in group:
            self._tokens.write(array("i", row.tokens).tobytes())
            self._train.write(bytes(row.train))
            self._index["row"].append(self._index["row"][-1] + len(row))
            for name, value in row.extra.items():
                if isinstance(value, list):
                    self._extra.setdefault(OF_TOKENS + name, array("d")).extend(value)
                else:
                    self._extra.setdefault(OF_ROWS + name, array("d")).append(value)
        self._index["group"].append(self._index["group"][-1] + len(group))
        self._index["item"].append(item)

    def __len__(self) -> int:
        return len(self._index["item"])

    def rows(self) -> Rows:
        """All of them; nothing can be added any more."""
        index = {name: np.array(values) for name, values in (self._index | self._extra).items()}
        if self._folder:
            np.savez(self._folder / INDEX, allow_pickle=False, **index)
            self._close()
            return Rows.open(self._folder)
        tokens, train = (cast(BytesIO, data).getvalue() for data in (self._tokens, self._train))
        return _assembled(np.frombuffer(tokens, np.int32), np.frombuffer(train, np.bool_), index)

    def _close(self) -> None:
        self._tokens.close()
        self._train.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _assembled(tokens: NDArray[np.int32], train: NDArray[np.bool_], index: Mapping[str, NDArray[np.int64]]) -> Rows:
    """Rows from their tokens, their masks and what a Writer has beside them."""
    of_rows, of_tokens = (
        {name.removeprefix(kind): cast(Floats, values) for name, values in index.items() if name.startswith(kind)}
        for kind in (OF_ROWS, OF_TOKENS)
    )
    row, group, item = index["row"], index["group"], index["item"]
    return Rows(tokens, train, row, group, item, of_rows, of_tokens, chosen=np.arange(len(item)))
