"""Files of the data, and how labels know a text of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path


def lines(path: Path) -> Iterator[dict[str, str]]:
    """The objects of a .jsonl or .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def judged(data: Path) -> list[Path]:
    """The answers that AlpacaEval judged, a file for each model; without one that answers nothing at all."""
    return [
        path for path in sorted((data / "alpaca_eval" / "annotations").glob("*.gz")) if "NullModel" not in path.name
    ]


def digest(prompt: str, text: str) -> str:
    """How labels know an answer; a text by itself is one without a prompt."""
    return hashlib.blake2b(f"{prompt}\n{text}".encode(), digest_size=8).hexdigest()
