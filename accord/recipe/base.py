"""What every table of a recipe is built from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

Table: TypeAlias = dict[str, JsonValue]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NotEmpty = Annotated[str, Field(min_length=1)]


def formed(pattern: str, words: str) -> AfterValidator:
    """Text that matches a regular expression; `words` say to a person which form that is."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"this must be {words}")
        return text

    return AfterValidator(check)


# Names become folders: they must not lead out of the folder that they are made in, nor hide in it.
Name = Annotated[str, formed(r"\w[\w.-]*", "letters, digits and _ . - with a letter, a digit or _ in front")]
StageName = Annotated[str, formed(r"\w[\w-]*", "letters, digits and _ - with a letter, a digit or _ in front")]


class Section(BaseModel):
    """A table of a recipe: unknown keys are errors, attribute docstrings are the documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def unknown(what: str, given: str, known: list[str], more: str = "") -> list[str]:
    """What to say about a name that is not known: the nearest that is, and all of them."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    said = [f"unknown {what} '{given}'" if given else f"{what} is missing"]
    said += [f"did you mean '{near[0]}'?"] if near else []
    return [*said, f"known: {', '.join(known) or '(none)'}{' ' + more if more else ''}"]


def one_of(what: str, given: str, known: list[str], more: str = "") -> None:
    """ValueError, for pydantic, unless `given` is known."""
    if given not in known:
        raise ValueError("; ".join(unknown(what, given, known, more)))


def objective_in(known: Collection[str]) -> AfterValidator:
    """The name of an objective that is known, or a function of the user's."""

    def check(objective: str) -> str:
        if ".py:" not in objective:
            one_of("objective", objective, list(known), 'or a function of yours, "file.py:fn"')
        return objective

    return AfterValidator(check)


def as_table(key: str) -> BeforeValidator:
    """Let `value` stand for `{ key = value }`."""
    return BeforeValidator(lambda value: value if isinstance(value, dict | BaseModel) else {key: value})
