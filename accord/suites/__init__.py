"""Evaluation suites: which prompts, judged by what. One's own is a function that returns a Suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accord.data.records import Record
from accord.errors import RecipeError
from accord.functions import is_reference, load_function
from accord.score import Scorer


@dataclass(frozen=True)
class Suite:
    """Prompts and what judges the answers to them. Each scorer is reported under its name."""

    name: str
    records: Sequence[Record]
    scorers: dict[str, Scorer]


def prompts(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """The stage's own prompts, judged by the stage's `rewards`."""
    return Suite("prompts", records, {"reward": reward} if reward else {})


SUITES: dict[str, Callable[[Sequence[Record], Scorer | None], Suite]] = {"prompts": prompts}


def resolve(name: str, where: str) -> Callable[[Sequence[Record], Scorer | None], Suite]:
    """A built-in suite by name, or a function of the user's `(records, reward) -> Suite`."""
    if not is_reference(name):
        if name not in SUITES:
            raise RecipeError(where, f"unknown suite '{name}'", f'known: {", ".join(SUITES)}, or "file.py:fn"')
        return SUITES[name]
    function = load_function(name, where)

    def made(records: Sequence[Record], reward: Scorer | None) -> Suite:
        suite = function(records, reward)
        if not isinstance(suite, Suite):
            raise RecipeError(where, f"{name} returned {type(suite).__name__}", "return an accord.suites.Suite")
        return suite

    return made
