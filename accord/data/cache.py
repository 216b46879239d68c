"""What is costly to make again is kept on disk for later runs: rows of tokens, log-probs of a reference.

The folder is `$ACCORD_CACHE`, else `accord` in the user's cache folder; `ACCORD_CACHE=off` keeps nothing. An entry is a folder
that appears when it is complete. One that is damaged is made again; nothing that goes wrong here is more than time lost.
Above `$ACCORD_CACHE_GB` gigabytes (10) the entries that were not used for longest leave.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from accord import processes
from accord.console import say
from accord.errors import EngineError, RecipeError
from accord.run import digest, file_digest, publish, remove, touch, versions

T = TypeVar("T")
SEAL = "entry.json"  # the files of an entry with their hashes
DAY = 24 * 3600  # seconds
PACKAGE = Path(__file__).parents[1]


def folder() -> Path | None:
    """Where entries lie; None where nothing is kept."""
    said = os.environ.get("ACCORD_CACHE", "")
    if said:
        return None if said == "off" else Path(said)
    own = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    found = Path(os.path.expanduser(own))
    return found / "accord" if found.is_absolute() else None  # a user without a home


def limit() -> float:
    """The most that entries may take together, in bytes."""
    said = os.environ.get("ACCORD_CACHE_GB", "10")
    try:
        return float(said) * 1e9
    except ValueError:
        raise RecipeError("ACCORD_CACHE_GB", f"{said!r} is no number", "say how many gigabytes may be kept") from None


@cache
def program() -> str:
    """A hash of accord's own code and of the versions it runs with: another program may make other entries."""
    files = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    return digest([files, versions()])


def kept(kind: str, key: object, fill: Callable[[Path], T], load: Callable[[Path], T]) -> T | None:
    """What is kept under a key (a JSON value), loaded; where there is nothing yet, what `fill` makes and writes to a folder.

    Of several processes the first one fills and the others load. None where nothing can be kept, or loaded.
    """
    found = find(kind, key, load)
    if found is None and processes.first():
        found = keep(kind, key, fill)
    processes.wait()
    return find(kind, key, load) if found is None else found


def find(kind: str, key: object, load: Callable[[Path], T]) -> T | None:
    """What is kept under a key, if it is there and nothing in it is damaged; it counts as used now."""
    path = _entry(kind, key)
    if path is None:
        return None
    with suppress(OSError, ValueError, KeyError):  # not there, not complete, not of this form
        sealed = json.loads((path / SEAL).read_text(encoding="utf-8"))
        if isinstance(sealed, dict) and all(file_digest(path / name) == said for name, said in sealed.items()):
            touch(path)
            return load(path)
    return None


def keep(kind: str, key: object, fill: Callable[[Path], T]) -> T | None:
    """What `fill` makes and writes to a folder, kept under a key in place of what was there; others leave if it is too much.

    None where nothing can be kept.
    """
    path, most = _entry(kind, key), limit()
    if path is None:
        return None
    made: list[T] = []

    def write(draft: Path) -> None:
        made.append(fill(draft))
        sealed = {file.name: file_digest(file) for file in draft.iterdir()}
        (draft / SEAL).write_text(json.dumps(sealed), encoding="utf-8")

    try:
        publish(path, write)
        trim(path.parent, most)
    except OSError as error:
        say(
            f"nothing is kept in {path.parent} ({error.strerror}): name another folder in ACCORD_CACHE, or set it to off"
        )
    return made[0] if made else None


def _entry(kind: str, key: object) -> Path | None:
    home = folder()
    return home and home / f"{kind}-{digest([program(), key])}"


def trim(home: Path, most: float) -> None:
    """Remove the entries that were not used for longest until the rest takes at most `most` bytes."""
    entries: list[tuple[float, int, Path]] = []
    for path in home.iterdir():
        with suppress(OSError):  # another process is removing it
            entries.append((path.stat().st_mtime, sum(file.stat().st_size for file in path.iterdir()), path))
    total = sum(size for _, size, _ in entries)
    for used, size, path in sorted(entries):
        at_work = path.name.startswith(".") and used > time.time() - DAY  # another process, on a draft
        if total > most and not at_work:
            total -= size
            with suppress(EngineError):
                remove(path)
