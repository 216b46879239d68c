"""Read the rows of files, each with a name for errors: JSON, CSV, Parquet and plain text, packed or not."""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TextIO, TypeAlias, cast

from accord.data.turns import BadRow
from accord.errors import DataError, RecipeError

# A row and its name in errors. A row that cannot be read travels as the error itself: a generator that raises is over,
# and with on_error = "skip" the rows after it are still wanted.
Found: TypeAlias = Iterator[tuple[str, object]]


def suffix(path: Path) -> str:
    """`.jsonl` of `rows.jsonl`, `.jsonl.gz` of `rows.jsonl.gz`."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def check_file(path: Path, where: str) -> None:
    """Make sure that a file is there and of a kind that can be read."""
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
        hint = [f"did you mean {near[0]!r}?"] if near else []
        raise RecipeError(where, f"no such file: {path}", *hint, "paths in a recipe are relative to the recipe")
    if suffix(path) not in FILES:
        said = f"{path} has the unknown suffix {suffix(path)!r}"
        raise RecipeError(where, said, f"known: {', '.join(FILES)}", "convert it, or read it with a 'file.py:fn'")


def read_file(path: Path) -> Found:
    """The rows of a file, one by one."""
    return FILES[suffix(path)](path)


def first_line(error: Exception) -> str:
    """What an error of a library says, without the details that follow."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
        said, fix = first_line(error), "fetch the file again"
        if isinstance(error, OSError) and error.strerror:  # the machine's, not that of a packed file
            said, fix = error.strerror, "make it readable, or fetch it again"
        raise DataError(str(path), f"cannot be read: {said}", fix) from None


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
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets as deep
        return BadRow(where, f"no JSON that can be read: {first_line(error)}", "each line is one JSON object")


def _json(path: Path) -> Found:
    """A list of objects, or an object per line."""
    with _open(path) as text:
        start = text.read(1024).lstrip()
    if not start.startswith("["):
        yield from _json_lines(path)
        return
    with _open(path) as text:
        whole = text.read()
    try:
        rows = cast(list[object], json.loads(whole))
    except json.JSONDecodeError as error:
        said = f"not JSON: {error.msg} (column {error.colno})"
        raise DataError(f"{path}:{error.lineno}", said, "it must be a list of objects", "mend the file") from None
    except (ValueError, RecursionError) as error:
        said = f"no JSON that can be read: {first_line(error)}"
        raise DataError(str(path), said, "it must be a list of objects", "mend the file") from None
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
                if None in row:  # where DictReader keeps the cells that have no column
                    yield where, BadRow(where, "more cells than columns", "quote cells that hold commas")
                else:
                    yield where, row
        except csv.Error as error:
            where = f"{path}:{rows.line_num + 1}"  # the row begins after the last one that was read
            raise DataError(where, f"not CSV: {error}", "quotes inside a cell are doubled", "mend the file") from None


def _parquet(path: Path) -> Found:
    from pyarrow import parquet  # slow to import, and other files do without

    try:
        with parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
            for count, row in enumerate(rows, 1):
                yield f"{path} row {count}", row
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read: {first_line(error)}", "fetch the file again") from None


def _paragraphs(path: Path) -> Found:
    """Plain text: each paragraph, up to a blank line, is a row `{text}`."""
    with _open(path) as lines:
        for blank, group in groupby(enumerate(lines, 1), key=lambda numbered: not numbered[1].strip()):
            if not blank:
                numbers, texts = zip(*group, strict=True)
                yield f"{path}:{numbers[0]}", {"text": "".join(texts).strip()}


READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".txt": _paragraphs}
FILES: dict[str, Callable[[Path], Found]] = {
    **READERS,
    **{f"{name}.gz": reader for name, reader in READERS.items()},
    ".parquet": _parquet,
}
