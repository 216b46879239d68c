"""The embedded world: a semiconductor test assistant, with data, a small base model and an exact judge.

Everything is found lazily, by name, so that who trains never imports who judges (`gold`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

from accord.data.records import Record
from accord.errors import ModelError

VERSION = "chips-3"
MODELS = {"accord:tiny": "tiny"}


def _found(module: str, name: str) -> Callable[[], Iterable[Record]]:
    """The function `name` of accord.demo.`module`, imported when it is called."""
    return lambda: getattr(importlib.import_module(f"accord.demo.{module}"), name)()


SOURCES: dict[str, Callable[[], Iterable[Record]]] = {
    "demo/text": _found("text", "text"),
    "demo/chats": _found("answers", "chats"),
    "demo/rankings": _found("comparisons", "rankings"),
    "demo/rankings-held": _found("comparisons", "held"),
    "demo/pairs": _found("comparisons", "pairs"),
    "demo/prompts": _found("answers", "prompts"),
    "demo/choose": _found("answers", "choose"),
    "demo/report": _found("answers", "report"),
    "demo/false-premises": _found("false_premises", "false_premises"),
}


def model(reference: str) -> Path:
    """The folder of an embedded model."""
    if reference not in MODELS:
        raise ModelError(reference, "is no embedded model", f"known: {', '.join(MODELS)}")
    return Path(__file__).with_name(MODELS[reference])
