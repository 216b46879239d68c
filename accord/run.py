"""The run folder: the one place that writes to disk. Whole files and folders appear under their name only when complete.

Where several processes run together the first one writes, and all go on once a file or folder is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout
from pydantic import JsonValue

from accord import __version__, processes
from accord.errors import EngineError, RecipeError
from accord.recipe import Recipe
from accord.recipe_file import dump

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "numpy")
RECORDS = "records.jsonl"  # what a stage leaves that makes data


@dataclass(frozen=True)
class StageFolder:
    """What one stage leaves on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The stage's name in the recipe."""
        return self.path.name

    @property
    def model(self) -> Path:
        """The finished model (of member 0, where there are several)."""
        return self.path / "model"

    @property
    def state(self) -> Path:
        """What an interrupted stage resumes from; gone once the stage is done."""
        return self.path / "state"

    @property
    def record(self) -> dict[str, JsonValue]:
        """stage.json, empty before the stage has begun."""
        return read_json(self.path / "stage.json")

    def members(self) -> list[Path]:
        """The model folders of an ensemble, in order."""
        return [self.model, *sorted(self.path.glob("model-*"), key=lambda path: int(path.name.removeprefix("model-")))]

    def note(self, **values: object) -> None:
        """Add to stage.json."""
        write_json(self.path / "stage.json", {**self.record, **values})

    def log(self, step: int, numbers: Mapping[str, float | int]) -> None:
        """Append one line to metrics.jsonl; a number that is not finite is written as null."""
        finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        append(self.path / "metrics.jsonl", [{"step": step, **finite}])

    def sample(self, rows: list[dict[str, object]]) -> None:
        """Append what the model says to samples.jsonl."""
        append(self.path / "samples.jsonl", rows)

    def cut_back(self, keep: Mapping[str, int]) -> None:
        """Shorten metrics.jsonl and samples.jsonl to the sizes of a saved state: the steps after it are done again."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if path.exists() and processes.first():
                with writing(path), path.open("r+b") as file:
                    file.truncate(min(keep.get(name, 0), path.stat().st_size))

    def sizes(self) -> dict[str, int]:
        """The sizes that `cut_back` takes."""
        files = [self.path / "metrics.jsonl", self.path / "samples.jsonl"]
        return {file.name: file.stat().st_size for file in files if file.exists()}

    def drop_state(self) -> None:
        """Remove the saved state of a finished stage."""
        remove(self.state)

    def clear(self) -> None:
        """Remove everything of an earlier, different run of this stage."""
        remove(self.path)
        if processes.first():
            with writing(self.path):
                self.path.mkdir(parents=True)


class Run:
    """One recipe and the folder that holds everything it makes."""

    def __init__(self, recipe: Recipe, path: Path) -> None:
        self.recipe = recipe
        self.path = path
        self.started = time.time()

    def check(self) -> None:
        """RecipeError where the folder holds what no run has left, and would be lost."""
        recipe, fix = self.path / "recipe.toml", "name another folder with --out, or move it away"
        if recipe.exists() and not (self.path / "run.json").exists() and not list(self.path.glob("*/stage.json")):
            raise RecipeError("--out", f"{recipe} is there already and not of a run", fix)
        for name in self.recipe.stage:
            folder = self.path / name
            if folder.exists() and not (folder / "stage.json").exists() and not _empty(folder):
                raise RecipeError("--out", f"{folder} is there already and not of a run", fix)

    def open(self) -> None:
        """Create the folder and write down what is about to run."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.note("running")
        write_text(self.path / "recipe.toml", dump(self.recipe))

    def stage(self, name: str) -> StageFolder:
        """The folder of a stage."""
        return StageFolder(self.path / name)

    def note(self, status: str, **more: object) -> None:
        """Write run.json: versions, seed, hardware and how far the run is."""
        before = read_json(self.path / "run.json")
        record = {
            **before,
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "status": status,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "versions": versions(),
            "hardware": hardware(),
            **more,
        }
        write_json(self.path / "run.json", record)


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


@cache
def versions() -> dict[str, str]:
    """The versions of accord, Python and the packages that results depend on."""
    found = {"accord": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {"machine": platform.machine(), "system": platform.system(), "cores": _cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        names = [
            line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
        ]
        facts["cpu"] = names[0] if names else platform.processor()
    return facts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run folder until the block, or the process, ends."""
    if not processes.speaks():  # the process that has begun the run holds it for all
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            fix = "wait for it, stop it, or write elsewhere with --out"
            raise EngineError(str(folder), "another run is at work in this folder", fix) from None
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------------------------------------------------------- files


@contextmanager
def writing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn the machine's refusal to write into an error that names the place. `also` is what a library raises for it."""
    try:
        yield
    except (OSError, *also) as error:
        said = error.strerror if isinstance(error, OSError) else f"cannot be written ({str(error).splitlines()[0]})"
        full = not isinstance(error, OSError) or error.errno in {errno.ENOSPC, errno.EDQUOT}
        fix = "free some space, or write to another folder" if full else "write to another folder"
        raise EngineError(str(path), said or "cannot be written", fix) from error


def mend(path: Path) -> str:
    """How to go on where a record is damaged."""
    return "remove the file" if path.name == "run.json" else "remove its folder to have the stage done again"


def read_json(path: Path) -> dict[str, JsonValue]:
    """A JSON object from disk; empty where there is no file."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not an object")
        return cast(dict[str, JsonValue], record)
    except ValueError as error:  # JSON that does not parse and bytes that are no text are both
        raise EngineError(str(path), f"is damaged ({error})", mend(path)) from None


def write_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a temporary file, which then takes the place of `path`."""
    processes.wait()  # all have decided to write before there is something to be seen
    if processes.first():
        with writing(path):
            draft = path.with_name(f".{path.name}.draft")
            try:
                fill(draft)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    processes.wait()


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    write_file(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write a JSON object under a temporary name, then rename it."""
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def append(path: Path, rows: list[dict[str, object]]) -> None:
    """Append rows to a .jsonl file, in one write."""
    if processes.first():
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if processes.first():
        with writing(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def read_rows(path: Path) -> list[dict[str, JsonValue]]:
    """The rows of a .jsonl file that this package wrote; none where there is no file."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise EngineError(str(path), f"is damaged ({error})", mend(path)) from None


def write_folder(path: Path, fill: Callable[[Path], object], *also: type[Exception]) -> None:
    """Let `fill` write into a temporary folder, which then takes the place of `path`. `also` as in `writing`."""
    processes.wait()
    if processes.first():
        _write_folder(path, fill, *also)
    processes.wait()


def _write_folder(path: Path, fill: Callable[[Path], object], *also: type[Exception]) -> None:
    draft, old = path.with_name(f".{path.name}.draft"), path.with_name(f".{path.name}.old")
    with writing(path, *also):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            fill(draft)
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            draft.rename(path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def publish(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write into a folder of its own, which then takes the place of `path`, in the sight of other programs that
    may be doing the same. Raises OSError where the machine refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    old = draft.with_name(f"{draft.name}.old")
    try:
        fill(draft)
        with suppress(FileNotFoundError):
            path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            if not path.exists():  # else another program was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def touch(path: Path) -> None:
    """Note that a file or folder has been used now, where that is allowed."""
    with suppress(OSError):
        os.utime(path)


# --------------------------------------------------------------------------------------------------------- fingerprints


def digest(value: object) -> str:
    """A short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_digest(path: Path) -> str:
    """A short hash of a model folder's files: names and contents; its card, which says what was measured later, is none."""
    whole = hashlib.sha256()
    files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    for file in sorted(file for file in files if file != path / "README.md"):
        whole.update(str(file.relative_to(path)).encode())
        whole.update(bytes.fromhex(file_digest(file)))
    return whole.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's contents, in hexadecimal; of a file that has not changed it is computed once."""
    found = path.stat()
    return _file_digest(path, found.st_ino, found.st_size, found.st_mtime_ns)


@cache
def _file_digest(path: Path, *_: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
