"""Rows are made once: a later run, another stage or a variant of a sweep finds them in the cache and reads no record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar, overload

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from accord.data import cache
from accord.data.dropped import Dropped
from accord.data.loaded import Loaded
from accord.data.rows import Rows, Writer
from accord.data.tokenizer import identity
from accord.errors import DataError

T = TypeVar("T")
# Writes rows, counts what is left out, and returns how many records rows were made of.
Make: TypeAlias = Callable[[Writer, Dropped], int]
BUNCH = 1000  # conversations, or documents, that are tokenised at a time
FACTS = "records.json"


def made(
    name: str, loaded: Loaded, tokenizer: PreTrainedTokenizerBase, settings: list[JsonValue], make: Make, where: str
) -> Rows:
    """The rows that `make` writes, or what the cache has of them; `loaded` knows then what was kept and left out.

    `name` and `settings` are all that the rows depend on beside the records and the tokenizer. DataError where no row is left.
    """

    def fill(folder: Path | None) -> Rows:
        dropped = Dropped()
        with Writer(folder) as into:
            loaded.kept = make(into, dropped)
            loaded.dropped.include(dropped)
            some(into, loaded.dropped, where)
            if folder:
                (folder / FACTS).write_text(json.dumps(loaded.facts()), encoding="utf-8")
            return into.rows()

    def load(folder: Path) -> Rows:
        rows = Rows.open(folder)
        loaded.recall(json.loads((folder / FACTS).read_text(encoding="utf-8")))
        return rows

    words = identity(tokenizer)
    if loaded.identity is None or words is None:
        return fill(None)
    rows = cache.kept("rows", [name, settings, loaded.identity, words], fill, load)
    return fill(None) if rows is None else rows


class Kept(Sequence[T]):
    """What groups of rows were made of, found again only where somebody asks."""

    def __init__(self, every: Callable[[], list[T]], rows: Rows) -> None:
        """`every` gives all that rows could be made of, in order."""
        self._every = every
        self._rows = rows

    @cached_property
    def _found(self) -> list[T]:
        every = self._every()
        return [every[i] for i in self._rows.item[self._rows.chosen]]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._found[index]


def bunches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of a bearable size."""
    rest = iter(items)
    while bunch := list(islice(rest, BUNCH)):
        yield bunch


def some(found: T, dropped: Dropped, where: str) -> T:
    """What was found, or where it is empty an error that says where everything went."""
    if found:
        return found
    reasons = ", ".join(f"{reason.count} {name} ({reason.example})" for name, reason in dropped.reasons.items())
    raise DataError(where, f"no row is left to use: {reasons}", "raise max_tokens, or give other data")
