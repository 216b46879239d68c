"""Read records from wherever a recipe says they are: files, hub datasets, functions of the user's, embedded data."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import importlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeAlias, cast

from accord.data.dropped import Dropped
from accord.data.formats import BadRow, checked, recognise
from accord.data.records import Example, Pair, Prompt, Ranking, Rating, Record, Text, bucket
from accord.errors import AccordError, DataError, EngineError, RecipeError
from accord.functions import is_reference, load_function, source_of, told
from accord.recipe import Source

# A row and its name in errors. A row that cannot be read travels as the error itself: a generator that raises is over,
# and with on_error = "skip" the rows after it are still wanted.
Found: TypeAlias = Iterator[tuple[str, object]]

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
    elif path.is_file() or _suffix(path) in FILES:
        _check_file(path, where)
    elif not path.is_dir() and not HUB.fullmatch(text):
        said = f"{text!r} is neither a file nor a dataset of the hub"
        known = f"known: files ({', '.join(FILES)}), hub ids ('organisation/name'), 'file.py:fn', 'accord:demo/name'"
        raise RecipeError(where, said, known)


def read(source: Source, dropped: Dropped, where: str) -> Iterator[Record]:
    """The records of a source, one by one; rows skipped by `on_error = "skip"` are counted in `dropped`."""
    check(source, where)
    records = _records(source, dropped, where)
    if source.part:
        low, high = map(int, source.part.split(":"))
        records = (record for record in records if low <= bucket(record, 100) < high)
    return islice(records, source.limit)


def read_all(sources: list[Source], dropped: Dropped, where: str) -> list[Record]:
    """The records of all sources, in order; none at all is an error."""
    records = [record for source in sources for record in read(source, dropped, where)]
    if not records:
        names = ", ".join(source.source for source in sources)
        left_out = ", ".join(f"{found.count} as {name} ({found.example})" for name, found in dropped.reasons.items())
        said = f"rows left out: {left_out}" if left_out else "the source is empty, or part leaves nothing of it"
        raise DataError(where, f"no record in {names or 'an empty list of sources'}", said, "look at the source")
    return records


def fingerprint(source: Source) -> str:
    """A hash of what the data is and how it is read; equal fingerprints give equal records."""
    contents = hashlib.sha256()
    for chunk in _contents(source.source):
        contents.update(chunk)
    settings = {"contents": contents.hexdigest(), **source.model_dump(exclude={"source"})}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _is_range(part: str) -> bool:
    start, end = map(int, part.split(":"))
    return start < end <= 100


def _suffix(path: Path) -> str:
    """`.jsonl` of `rows.jsonl`, `.jsonl.gz` of `rows.jsonl.gz`."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _check_file(path: Path, where: str) -> None:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
        hint = [f"did you mean {near[0]!r}?"] if near else []
        raise RecipeError(where, f"no such file: {path}", *hint, "paths in a recipe are relative to the recipe")
    if _suffix(path) not in FILES:
        said = f"{path} has the unknown suffix {_suffix(path)!r}"
        raise RecipeError(where, said, f"known: {', '.join(FILES)}", "convert it, or read it with a 'file.py:fn'")


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


def _records(source: Source, dropped: Dropped, where: str) -> Iterator[Record]:
    for at, row in _rows(source, where):
        try:
            yield _record(row, source.map, at)
        except BadRow as error:
            if source.on_error == "stop":
                raise
            dropped.add(error.reason, f"{error.args[0]}: {error.args[1]}")


def _record(row: object, names: dict[str, str], where: str) -> Record:
    if isinstance(row, BadRow):
        raise row
    if isinstance(row, Text | Prompt | Example | Pair | Ranking | Rating):
        return checked(row, where)
    if not isinstance(row, dict):
        raise BadRow(where, f"a row is {type(row).__name__}", "it must be an object with named columns")
    return recognise(_renamed(cast(dict[str, object], row), names, where), where)


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


def _rows(source: Source, where: str) -> Found:
    text, path = source.source, Path(source.source)
    if is_reference(text):
        return _produced(text, load_function(text, where), where)
    if text.startswith("accord:"):
        return _produced(text, _embedded(text, where)[0], where)
    return FILES[_suffix(path)](path) if path.is_file() else _hub(source, where)


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
    except Exception as error:  # the user's code may raise anything
        raise DataError(where, f"{name} raised after {count} rows: {told(error, path)}", "mend the function") from error


def _hub(source: Source, where: str) -> Found:
    """A dataset of the hub, or a folder of data files, row by row."""
    from datasets import load_dataset  # a second of imports that files do without

    try:
        rows = load_dataset(source.source, source.config, split=source.split, streaming=True)
        for count, row in enumerate(cast(Iterable[object], rows), 1):
            yield f"{source.source} row {count}", row
    except ConnectionError as error:
        said = f"{source.source} cannot be reached: {_first_line(error)}"
        raise EngineError(where, said, "connect to the network, or give a file") from None
    except (OSError, ValueError) as error:
        said = f"{source.source} cannot be read: {_first_line(error)}"
        raise DataError(where, said, "check the name, `split` and `config`") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# ---------------------------------------------------------------------------------------------------------------- files


@contextmanager
def _open(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A text file, packed or not; a byte order mark, as spreadsheets write it, is not part of it."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with cast(TextIO, opener(path, "rt", encoding="utf-8-sig", newline=newline)) as text:
            yield text
    except UnicodeDecodeError as error:
        raise DataError(str(path), f"is not UTF-8 text (byte {error.start})", "convert it to UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(str(path), f"cannot be read: {_first_line(error)}", "fetch the file again") from None


def _json_lines(path: Path) -> Found:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", _decoded(line.rstrip(), f"{path}:{number}")


def _decoded(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(where, f"not JSON: {error.msg} (column {error.colno})", "each line is one JSON object")


def _json(path: Path) -> Found:
    """A list of objects, or an object per line."""
    with _open(path) as text:
        start = text.read(1024).lstrip()
    if not start.startswith("["):
        yield from _json_lines(path)
        return
    with _open(path) as text:
        try:
            rows = cast(list[object], json.load(text))
        except json.JSONDecodeError as error:
            said = f"not JSON: {error.msg} (column {error.colno})"
            raise DataError(f"{path}:{error.lineno}", said, "it must be a list of objects", "mend the file") from None
    for count, row in enumerate(rows, 1):
        yield f"{path} row {count}", row


def _csv(path: Path) -> Found:
    csv.field_size_limit(2**31 - 1)  # answers may be longer than the 128 kB that the module allows
    with _open(path, newline="") as text:
        rows = csv.DictReader(text, strict=True)
        try:
            for row in rows:
                inside = sum(str(value).count("\n") for value in row.values())
                where = f"{path}:{rows.line_num - inside}"
                more = None in row  # where DictReader keeps the cells that have no column
                yield where, BadRow(where, "more cells than columns", "quote cells that hold commas") if more else row
        except csv.Error as error:
            where = f"{path}:{rows.line_num + 1}"  # the row begins after the last one that was read
            raise DataError(where, f"not CSV: {error}", "quotes inside a cell are doubled", "mend the file") from None


def _parquet(path: Path) -> Found:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
            for count, row in enumerate(rows, 1):
                yield f"{path} row {count}", row
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read: {_first_line(error)}", "fetch the file again") from None


def _paragraphs(path: Path) -> Found:
    """Plain text: each paragraph, up to a blank line, is a row `{text}`."""
    with _open(path) as lines:
        start, paragraph = 1, ""
        for number, line in enumerate(lines, 1):
            if line.strip():
                start, paragraph = start if paragraph else number, paragraph + line
            elif paragraph:
                yield f"{path}:{start}", {"text": paragraph.strip()}
                paragraph = ""
        if paragraph:
            yield f"{path}:{start}", {"text": paragraph.strip()}


READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".txt": _paragraphs}
FILES: dict[str, Callable[[Path], Found]] = {
    **READERS,
    **{f"{suffix}.gz": reader for suffix, reader in READERS.items()},
    ".parquet": _parquet,
}


# --------------------------------------------------------------------------------------------------------- fingerprints


def _contents(text: str) -> Iterator[bytes]:
    """What a source's data is made of: the bytes of its files, or what stands for them."""
    path = Path(text)
    if is_reference(text):
        yield f"{text.rpartition(':')[2]}\n{source_of(text)}".encode()
    elif text.startswith("accord:"):
        yield f"{text} {_embedded(text, text)[1]}".encode()
    elif path.is_file():
        yield _suffix(path).encode() + _digest(path)
    elif path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            yield str(file.relative_to(path)).encode() + _digest(file)
    else:
        yield f"{text} {_commit(text)}".encode()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _commit(name: str) -> str:
    """The commit that a hub id stands for now; without the hub, the one last fetched; else nothing is known."""
    from huggingface_hub import HfApi, constants

    try:
        return HfApi().dataset_info(name, timeout=10).sha or ""
    except Exception:  # the hub is out of reach; which error says so depends on the transport that the client uses
        ref = Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}", "refs", "main")
        return ref.read_text().strip() if ref.is_file() else ""
