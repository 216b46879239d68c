"""The data of a recipe before any work: every record is read and fits its stage; once, for as long as nothing changes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from accord.data import cache, judged
from accord.data.dropped import Dropped
from accord.data.formats import recognise
from accord.data.loaded import BUCKETS
from accord.data.records import (
    Rating,
    Record,
    Text,
    as_example,
    as_pair,
    as_ratings,
    bucket,
    conversation,
    is_good,
    named,
    to_row,
)
from accord.data.sources import identity, read_each
from accord.errors import DataError
from accord.objectives import resolve
from accord.objectives.preference import OBJECTIVES
from accord.recipe import AnyStage, Preference, Reward, Source

SHOWN = 8  # records of a source that are rendered before any work
CONTENTS, PROMPTS = "contents.json", "prompts.npy"


class Wanted(NamedTuple):
    """What a stage asks of every record of a source: all that decides whether a record fits."""

    form: Literal["text", "prompt", "demonstration", "text or demonstration", "judgement", "preference"]
    objective: str = ""
    rated: bool = False  # answers one by one
    margin: bool = False


@dataclass
class Contents:
    """What a source holds, and of its records the first few."""

    kinds: Counter[str] = field(default_factory=Counter)  # records by type
    dropped: Dropped = field(default_factory=Dropped)
    head: list[Record] = field(default_factory=list)
    prompts: set[int] = field(default_factory=set)  # hashes
    buckets: Counter[int] = field(default_factory=Counter)  # records by the hash that decides what is held out

    def add(self, record: Record) -> None:
        """One more record."""
        self.kinds[type(record).__name__] += 1
        self.buckets[bucket(record, BUCKETS)] += 1
        if len(self.head) < SHOWN:
            self.head.append(record)
        if not isinstance(record, Text):
            prompt = "\0".join(turn["content"].strip().lower() for turn in conversation(record))
            self.prompts.add(int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest(), "big"))

    def aside(self, held: float) -> int:
        """How many records the fraction `held` holds out."""
        return sum(count for number, count in self.buckets.items() if number < held * BUCKETS)


def wanted(stage: AnyStage, key: str) -> Wanted:
    """What a stage asks of the records of its source `key`."""
    if key in {"mix.data", "remember"}:
        return Wanted("text or demonstration")
    if key == "normalise.data" or stage.kind == "sft":
        return Wanted("demonstration")
    if isinstance(stage, Reward):
        return Wanted("judgement", stage.objective, margin=stage.params.get("margin") is True)
    if isinstance(stage, Preference):
        rated = "label" in resolve(stage.objective, OBJECTIVES, "objective").needs
        return Wanted("preference", stage.objective, rated=rated)
    return Wanted("text" if stage.kind == "pretrain" else "prompt")


def read(source: Source, every: Sequence[tuple[str, Wanted]]) -> Contents:
    """A source to its end, for all who want something of its records; each is named as messages shall name it.

    What has been read before, and fitted, is not read again until it changes. DataError where a record does not fit.
    """

    def fill(folder: Path | None) -> Contents:
        found = Contents()
        for record in read_each([source], found.dropped, every[0][0]):
            found.add(record)
            for where, asked in every:
                check(record, asked, where)
        if folder:
            _save(found, folder)
        return found

    known = identity(source)
    kept = cache.kept("contents", [known, sorted({asked for _, asked in every})], fill, _load) if known else None
    return fill(None) if kept is None else kept


def _save(contents: Contents, folder: Path) -> None:
    told = {
        "kinds": contents.kinds,
        "dropped": contents.dropped.to_json(),
        "head": [to_row(record) for record in contents.head],
        "buckets": list(contents.buckets.items()),
    }
    (folder / CONTENTS).write_text(json.dumps(told, default=str), encoding="utf-8")
    np.save(folder / PROMPTS, np.fromiter(contents.prompts, np.uint64))


def _load(folder: Path) -> Contents:
    told = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
    return Contents(
        Counter(told["kinds"]),
        Dropped.from_json(told["dropped"]),
        [recognise(row, str(folder)) for row in told["head"]],
        set(np.load(folder / PROMPTS).tolist()),
        Counter(dict(told["buckets"])),
    )


# --------------------------------------------------------------------------------------------------------- what fits


def check(record: Record, asked: Wanted, where: str) -> None:
    """DataError where a record is not what is wanted."""
    match asked.form:
        case "text" | "prompt":
            _check_prompt(record, where, plain=asked.form == "text")
        case "demonstration":
            as_example(record, where)
        case "text or demonstration":
            if not isinstance(record, Text):
                as_example(record, where)
        case "judgement":
            judged.check(record, asked.objective, where, margin=asked.margin)
        case "preference":
            _check_preference(record, where, asked.objective, rated=asked.rated)


def _check_prompt(record: Record, where: str, *, plain: bool) -> None:
    if plain != isinstance(record, Text):
        needed = "plain text" if plain else "prompts"
        raise DataError(where, f"{named(record)} is not what the stage reads", f"give {needed}")


def _check_preference(record: Record, where: str, objective: str, *, rated: bool) -> None:
    """Ratings go with objectives that read a `label`, and say good or bad; pairs go with every objective."""
    if rated:
        for rating in as_ratings(record, where):
            is_good(rating.label, where)
    elif isinstance(record, Rating):
        fix = 'give pairs or rankings, or set objective = "kto"'
        raise DataError(where, f"ratings do not go with objective '{objective}'", fix)
    else:
        as_pair(record, where)
