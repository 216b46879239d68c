"""Functions by reference, `"file.py:fn"` or a built-in one: data, rewards and objectives without a registry."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

from accord.errors import AccordError, DataError, RecipeError, out_of_memory

# Scorers of our own that a recipe calls as it calls those in files: its name -> the module that holds the function.
BUILT_IN = {"accord:instructions": "accord.score.instructions"}


def is_reference(text: str) -> bool:
    """Whether a string of the recipe means a function: one in a file, or a built-in one."""
    return ".py:" in text or text in BUILT_IN


def load_function(reference: str, where: str) -> Callable[..., object]:
    """The function that `file.py:fn` names; `where` is the key of the recipe that names it."""
    path, name = _split(reference)
    module = importlib.import_module(BUILT_IN[reference]) if reference in BUILT_IN else _module(path, where)
    found = cast(object, getattr(module, name, None)) if name else None
    if found is None:
        raise RecipeError(where, *_no_such_function(module, path, name))
    if not callable(found):
        said = f"{name!r} in {path} is {type(found).__name__}, not a function"
        raise RecipeError(where, said, "a reference is 'file.py:fn'", "name a function of the file")
    return cast(Callable[..., object], found)


def source_of(reference: str) -> str:
    """Text of the file behind `file.py:fn`, for fingerprints."""
    path, _ = _split(reference)
    parts = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    try:
        return "".join(part.read_text(encoding="utf-8") for part in parts)
    except OSError:
        raise RecipeError(reference, *_no_such_file(path)) from None


@contextmanager
def running(reference: str) -> Iterator[None]:
    """Turn whatever the user's code behind `file.py:fn` raises into one message, but not a lack of memory."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, AccordError) or out_of_memory(error):
            raise
        raise DataError(reference, f"raised {told(error, _split(reference)[0])}", "mend the function") from error


def told(error: BaseException, path: Path) -> str:
    """An exception of the user's code in one line, with the line of `path` that it came from."""
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f"{said} (line {lines[-1]})" if lines else said


def _split(reference: str) -> tuple[Path, str]:
    path, _, name = reference.rpartition(":")
    if reference in BUILT_IN:
        return Path(str(importlib.import_module(BUILT_IN[reference]).__file__)), name
    return Path(path).expanduser().resolve(), name


def _module(path: Path, where: str) -> ModuleType:
    """The imported file. It runs once, under a name made from its path, so that two files of one name stay apart."""
    name = f"accord_function_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise RecipeError(where, *_no_such_file(path))
    # At the end: a neighbour of the file that is called like an installed package must not take its place everywhere.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(where, f"{path} is not a Python file", "a reference is 'file.py:fn'")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[name]
        raise RecipeError(where, f"{path} does not import: {told(error, path)}", "mend the file") from error
    return module


def _no_such_file(path: Path) -> list[str]:
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.py")], n=1)
    said = [f"no such file: {path}"]
    said += [f"did you mean {near[0]!r}?"] if near else []
    return [*said, "a reference is 'file.py:fn', relative to the recipe"]


def _no_such_function(module: ModuleType, path: Path, name: str) -> list[str]:
    """What to say about a name that is not there: the nearest one that is, and all the file's own functions."""
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    known = [key for key in own if callable(vars(module)[key])]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    said = [f"no function {name!r} in {path}" if name else f"no function of {path} is named"]
    said += [f"did you mean {near[0]!r}?"] if near else []
    return [*said, f"known: {', '.join(known) or '(none)'}"]
