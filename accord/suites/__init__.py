"""Evaluation suites: which prompts, judged by what. One's own is a function that returns a Suite."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from accord.data.records import Record
from accord.errors import RecipeError
from accord.functions import is_reference, load_function, running
from accord.score import Scorer, careful


@dataclass(frozen=True)
class Suite:
    """Prompts and what judges the answers to them. Each scorer is reported under its name."""

    name: str
    records: Sequence[Record]
    scorers: dict[str, Scorer]


Maker: TypeAlias = Callable[[Sequence[Record], Scorer | None], Suite]

SUITES = ("prompts", "demo")  # each a file of this folder, with a function of the same name


def resolve(name: str, where: str) -> Maker:
    """A built-in suite by name, or a function of the user's `(records, reward) -> Suite`."""
    if not is_reference(name):
        if name not in SUITES:
            raise RecipeError(where, f"unknown suite '{name}'", f'known: {", ".join(SUITES)}, or "file.py:fn"')
        return cast(Maker, getattr(importlib.import_module(f"accord.suites.{name}"), name))
    function = load_function(name, where)

    def made(records: Sequence[Record], reward: Scorer | None) -> Suite:
        with running(name):
            suite = function(records, reward)
        if not isinstance(suite, Suite):
            raise RecipeError(where, f"{name} returned {type(suite).__name__}", "return an accord.suites.Suite")
        own = {key: scorer if scorer is reward else careful(scorer, name) for key, scorer in suite.scorers.items()}
        return replace(suite, scorers=own)

    return made
