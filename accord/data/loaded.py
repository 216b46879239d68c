"""Records and what is left out of them: read when they are asked for, which rows that are known already never do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from pydantic import JsonValue

from accord.data.dropped import Dropped
from accord.data.records import Record, bucket
from accord.data.sources import check, identity, read_each
from accord.errors import DataError
from accord.recipe import Source

BUCKETS = 10_000  # that a fraction is held out by
Read: TypeAlias = Callable[[Dropped], Iterator[Record]]


class Loaded:
    """Records at hand, or those that `read` yields, anew each time unless `records` keeps them.

    `identity` stands for all that they depend on; None where nothing is known to.
    """

    def __init__(self, records: list[Record] | Read, *, identity: str | None = None) -> None:
        self.identity = identity
        self.dropped = Dropped()  # of what has been read and made into rows
        self.kept = 0  # records that rows have been made of
        self._read = None if isinstance(records, list) else records
        self._records = records if isinstance(records, list) else None
        self._counted = False

    @classmethod
    def of(cls, sources: Sequence[Source], where: str) -> Loaded:
        """The records of all sources, in order; none at all is an error."""
        for source in sources:
            check(source, where)
        each = [identity(source) for source in sources]
        known = None if None in each else "\n".join(cast(list[str], each))
        return cls(lambda dropped: read_each(sources, dropped, where), identity=known)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records) if self._records is not None else self._stream()

    def _stream(self) -> Iterator[Record]:
        dropped = Dropped()
        yield from cast(Read, self._read)(dropped)
        if not self._counted:
            self.dropped.include(dropped)
            self._counted = True

    @property
    def records(self) -> list[Record]:
        """All of them, in memory from now on."""
        if self._records is None:
            self._records = list(self._stream())
        return self._records

    def split(self, held: float, where: str) -> tuple[Loaded, Loaded]:
        """What to train on, and the fraction `held` that is held out. What cannot be read counts once."""

        def part(aside: bool) -> Loaded:
            def read(dropped: Dropped) -> Iterator[Record]:
                records = cast(Read, self._read)(Dropped() if aside else dropped)
                return split(records, held, where, aside=aside)

            return Loaded(read, identity=self.identity and f"{self.identity}\n{held} {aside}")

        return part(False), part(True)

    def report(self, kept: int) -> dict[str, object]:
        """`{read, kept, dropped}`, as stage.json holds it."""
        return {"read": kept + self.dropped.total, "kept": kept, "dropped": self.dropped.to_json()}

    def facts(self) -> dict[str, object]:
        """What is known of the records once rows have been made of them."""
        return {"kept": self.kept, "dropped": self.dropped.to_json()}

    def recall(self, facts: Mapping[str, JsonValue]) -> None:
        """Take over the facts of records that are not read again."""
        self.kept = cast(int, facts["kept"])
        self.dropped = Dropped.from_json(cast(Mapping[str, Mapping[str, int | str]], facts["dropped"]))
        self._counted = True


def load(sources: Sequence[Source], held: float | Sequence[Source] | None, where: str) -> tuple[Loaded, Loaded | None]:
    """Training records and held-out ones: from sources of their own, or a fraction split off by `bucket`."""
    train = Loaded.of(sources, f"{where}.data")
    if held is None:
        return train, None
    return train.split(held, where) if isinstance(held, float | int) else (train, Loaded.of(held, f"{where}.eval_data"))


def split(records: Iterator[Record], held: float, where: str, *, aside: bool) -> Iterator[Record]:
    """Of the records the fraction `held` that is held out (`aside`), or the rest; neither may be empty."""
    count = {True: 0, False: 0}
    for record in records:
        out = bucket(record, BUCKETS) < held * BUCKETS
        count[out] += 1
        if out == aside:
            yield record
    both(held, where, train=count[False], aside=count[True])


def both(held: float, where: str, *, train: int, aside: int) -> None:
    """DataError where a fraction leaves nothing to train on, or holds nothing out."""
    if not train or not aside:
        said = f"a fraction of {held} leaves {train} records to train on and {aside} held out"
        raise DataError(f"{where}.eval_data", said, "give more data or another fraction")
