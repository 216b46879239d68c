"""Values from JSON files, with "not measured" kept apart from every number."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from accord.errors import DataError
from accord.run import mend

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Table: TypeAlias = "dict[str, JsonValue]"
# None in a row means "was measured and was not finite"; a missing key means "was not measured".
Row: TypeAlias = "dict[str, float | None]"


@dataclass(frozen=True)
class Measure:
    """A measured value with its standard error, sample size and an interval of its own, where those are known."""

    value: float
    stderr: float | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None


def number(value: JsonValue) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def table(value: JsonValue) -> Table:
    """Return the value if it is a table, or an empty one."""
    return value if isinstance(value, dict) else {}


def tables(value: JsonValue) -> list[Table]:
    """Return the tables of a list, or nothing."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def measure(value: JsonValue) -> Measure | None:
    """Read `{"value", "stderr", "n"}` or a bare number; None where nothing was measured."""
    fields = table(value) or {"value": value}
    found = number(fields.get("value"))
    if found is None:
        return None
    low, high = number(fields.get("low")), number(fields.get("high"))
    return Measure(found, number(fields.get("stderr")), count(fields.get("n")), low, high)


def numbers(row: Table) -> Row:
    """Keep what was measured: numbers, and None for those that were not finite."""
    return {k: number(v) for k, v in row.items() if v is None or isinstance(v, int | float)}


def count(value: JsonValue) -> int | None:
    """Return a number as a whole one."""
    found = number(value)
    return None if found is None else int(found)


def text(value: JsonValue) -> str:
    """Return a string as it is, nothing as the empty one, and every other value as JSON would write it."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def read_json(path: Path) -> Table:
    """Read a JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        return table(json.loads(path.read_bytes()))
    except ValueError as error:
        raise DataError(str(path), f"is no JSON ({error})", mend(path)) from error


def read_lines(path: Path) -> list[Table]:
    """Read a file of one JSON object a line; nothing where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines()
    rows: list[Table] = []
    for at, line in enumerate(lines, start=1):
        try:
            rows.append(table(json.loads(line)) if line.strip() else {})
        except ValueError as error:
            # A run that was stopped while writing leaves half of its last line.
            if at < len(lines):
                raise DataError(f"{path}:{at}", f"is no JSON ({error})", mend(path)) from error
    return [row for row in rows if row]
