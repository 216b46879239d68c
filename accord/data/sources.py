"""Read records from wherever a recipe says they are: files, hub datasets, functions of the user's, embedded data."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

from accord.data.dropped import Dropped
from accord.data.files import FILES, Found, check_file, first_line, read_file, suffix
from accord.data.formats import checked, recognise
from accord.data.records import Record, bucket
from accord.data.turns import BadRow
from accord.errors import AccordError, DataError, EngineError, RecipeError
from accord.functions import is_reference, load_function, source_of, told
from accord.recipe import Source
from accord.run import file_digest

Form: TypeAlias = Callable[[dict[str, object], str], Record]
Made = TypeVar("Made")
MANY = 2**31 - 1
HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def check(source: Source, where: str) -> None:
    """Find the mistakes in a source that need no reading: `where` is its key in the recipe."""
    if source.part and not _is_range(source.part):
        raise RecipeError(where, f"part = {source.part!r} is no range", "it is start:end with start < end <= 100")
    text, path = source.source, Path(source.source)
    if is_reference(text):
        load_function(text, where)
    elif text.startswith("accord:"):
        _embedded(text, where)
    elif path.is_dir():
        return  # of data files
    elif path.is_file() or suffix(path) in FILES:
        check_file(path, where)
    elif not HUB.fullmatch(text):
        said = f"{text!r} is neither a file nor a dataset of the hub"
        known = f"known: files ({', '.join(FILES)}), hub ids ('organisation/name'), 'file.py:fn', 'accord:demo/name'"
        raise RecipeError(where, said, known)


def read(source: Source, dropped: Dropped, where: str, form: Form = recognise) -> Iterator[Record]:
    """The records of a source, one by one; rows skipped by `on_error = "skip"` are counted in `dropped`.

    `form` makes the record of a row and is told how errors name the row.
    """
    check(source, where)
    records = _records(source, dropped, where, form)
    if source.part:
        low, high = map(int, source.part.split(":"))
        records = (record for record in records if low <= bucket(record, 100) < high)
    return _weighted(islice(records, source.limit), source.weight)


def _weighted(records: Iterator[Record], weight: float) -> Iterator[Record]:
    """Each record as often as its weight says; a fraction of them once more, by a hash that parts do not depend on."""
    whole, rest = divmod(weight, 1)
    for record in records:
        once_more = rest and bucket(record, MANY) < rest * MANY
        yield from repeat(record, int(whole) + bool(once_more))


def read_each(sources: Sequence[Source], dropped: Dropped, where: str, form: Form = recognise) -> Iterator[Record]:
    """The records of all sources, in order; none at all is an error. `form` as in `read`."""
    empty = True
    for record in chain.from_iterable(read(source, dropped, where, form) for source in sources):
        empty = False
        yield record
    if empty:
        names = ", ".join(source.source for source in sources)
        left_out = ", ".join(f"{found.count} as {name} ({found.example})" for name, found in dropped.reasons.items())
        said = f"rows left out: {left_out}" if left_out else "the source is empty, or part leaves nothing of it"
        raise DataError(where, f"no record in {names or 'an empty list of sources'}", said, "look at the source")


def fingerprint(source: Source) -> str:
    """A hash of what the data is and how it is read; equal fingerprints give equal records."""
    contents = hashlib.sha256()
    for chunk in _contents(source.source):
        contents.update(chunk)
    settings = {"contents": contents.hexdigest(), **source.model_dump(exclude={"source"})}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def identity(source: Source) -> str | None:
    """All that the records of a source, and what is said of those left out, depend on; None where nothing tells: a function
    may read anything, and what a hub out of reach holds is not known."""
    text = source.source
    if is_reference(text) or not (text.startswith("accord:") or Path(text).exists() or _commit(text)):
        return None
    return f"{text} {fingerprint(source)}"


def _is_range(part: str) -> bool:
    start, end = map(int, part.split(":"))
    return start < end <= 100


def _embedded(text: str, where: str) -> tuple[Callable[[], Iterable[Record]], str]:
    """The generator and the version of embedded data. Loaded by name: data/ lies below demo/ and must not import it."""
    demo = importlib.import_module("accord.demo")
    sources = cast(dict[str, Callable[[], Iterable[Record]]], demo.SOURCES)
    name = text.removeprefix("accord:")
    if name not in sources:
        known = [f"accord:{name}" for name in sources]
        near = difflib.get_close_matches(text, known, n=1)
        hint = [f"did you mean {near[0]!r}?"] if near else []
        raise RecipeError(where, f"no embedded data {text!r}", *hint, f"known: {', '.join(known)}")
    return sources[name], cast(str, demo.VERSION)


# -------------------------------------------------------------------------------------------------------------- records


def _records(source: Source, dropped: Dropped, where: str, form: Form) -> Iterator[Record]:
    return each_row(raw_rows(source, where), source, dropped, lambda row, at: _record(row, source.map, at, form))


def each_row(rows: Found, source: Source, dropped: Dropped, make: Callable[[object, str], Made]) -> Iterator[Made]:
    """What is made of each row; with `on_error = "skip"` those that nothing can be made of are counted in `dropped`."""
    for at, row in rows:
        try:
            yield make(row, at)
        except BadRow as error:
            if source.on_error == "stop":
                raise
            dropped.add(error.reason, f"{error.args[0]}: {error.args[1]}")


def columns_of(row: object, where: str) -> dict[str, object]:
    """The columns of a row by name; BadRow where it has none."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow(where, f"a row is {type(row).__name__}", "it must be an object with named columns")
    return cast(dict[str, object], row)


def _record(row: object, names: dict[str, str], where: str, form: Form) -> Record:
    return (
        checked(row, where) if isinstance(row, Record) else form(_renamed(columns_of(row, where), names, where), where)
    )


def _renamed(row: dict[str, object], names: dict[str, str], where: str) -> dict[str, object]:
    """The row with the columns of `map` under our names; columns that are not mapped keep theirs."""
    kept = {column: value for column, value in row.items() if column not in names.values()}
    return {**kept, **{ours: _column(row, theirs, ours, where) for ours, theirs in names.items()}}


def _column(row: dict[str, object], column: str, ours: str, where: str) -> object:
    """A column by name, or what lies inside one: `instances.0.output`."""
    if column in row:
        return row[column]
    value: object = row
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = cast(dict[str, object], value)[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = cast(list[object], value)[int(part)]
        else:
            said = f"no column {column!r}, which map names as {ours}"
            raise BadRow(where, said, f"columns: {', '.join(row)}", reason="missing_column")
    return value


def raw_rows(source: Source, where: str) -> Found:
    """The rows of a source as they stand there, each with the place that messages name it by."""
    text, path = source.source, Path(source.source)
    if is_reference(text):
        return _produced(text, load_function(text, where), where)
    if text.startswith("accord:"):
        return _produced(text, _embedded(text, where)[0], where)
    return read_file(path) if path.is_file() else _hub(source, where)


def _produced(name: str, function: Callable[[], object], where: str) -> Found:
    """What a data function yields."""
    path, count = Path(name.rpartition(":")[0]).expanduser().resolve(), 0
    try:
        rows = function()
        if not isinstance(rows, Iterable):
            said = f"{name} gave {type(rows).__name__}"
            raise DataError(where, said, "a data function yields records or rows", "yield them, or return a list")
        for count, row in enumerate(cast(Iterable[object], rows), 1):
            yield f"{name} row {count}", row
    except AccordError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise DataError(where, f"{name} raised after {count} rows: {told(error, path)}", "mend the function") from error


def _hub(source: Source, where: str) -> Found:
    """A dataset of the hub, at the commit of its fingerprint, or a folder of data files, row by row."""
    from datasets import load_dataset  # a second of imports that files do without
    from huggingface_hub import errors

    # The error of whichever httpx the client has: its name differs by version.
    unreachable = (ConnectionError, TimeoutError, errors.HTTPError)  # pyright: ignore[reportPrivateImportUsage]
    name = source.source
    try:
        commit = None if Path(name).is_dir() else _commit(name) or None
        rows = load_dataset(name, source.config, split=source.split, streaming=True, revision=commit)
        for count, row in enumerate(cast(Iterable[object], rows), 1):
            yield f"{name} row {count}", row
    except (OSError, ValueError, *unreachable) as error:
        if isinstance(error, unreachable) and not isinstance(error, errors.RepositoryNotFoundError):
            said = f"{name} cannot be reached: {first_line(error)}"
            raise EngineError(where, said, "connect to the network, or give a file") from None
        said = f"{name} cannot be read: {first_line(error)}"
        raise DataError(where, said, "check the name, `split` and `config`") from None


# --------------------------------------------------------------------------------------------------------- fingerprints


def _contents(text: str) -> Iterator[bytes]:
    """What a source's data is made of: the bytes of its files, or what stands for them."""
    path = Path(text)
    if is_reference(text):
        yield f"{text.rpartition(':')[2]}\n{source_of(text)}".encode()
    elif text.startswith("accord:"):
        yield f"{text} {_embedded(text, text)[1]}".encode()
    elif path.is_file():
        yield (suffix(path) + file_digest(path)).encode()
    elif path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            yield (str(file.relative_to(path)) + file_digest(file)).encode()
    else:
        yield f"{text} {_commit(text)}".encode()


def _commit(name: str) -> str:
    """The commit that a hub id stands for; without the hub, the one last fetched; else nothing is known."""
    from huggingface_hub import constants

    try:
        return _latest(name)
    except Exception:  # the hub is out of reach; which error says so depends on the transport that the client uses
        ref = Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}", "refs", "main")
        return ref.read_text().strip() if ref.is_file() else ""


@cache  # so that what a process reads is what it took the fingerprint of, even if the hub moves on
def _latest(name: str) -> str:
    from huggingface_hub import HfApi

    return HfApi().dataset_info(name, timeout=10).sha or ""
