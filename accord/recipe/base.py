"""What every table of a recipe is built from."""

from __future__ import annotations

import difflib
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

Table: TypeAlias = dict[str, JsonValue]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


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


def as_table(key: str) -> BeforeValidator:
    """Let `value` stand for `{ key = value }`."""
    return BeforeValidator(lambda value: value if isinstance(value, dict | BaseModel) else {key: value})
