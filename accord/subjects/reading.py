"""The data of suites: rows in a form of the suite's own are read by the `record` of its module."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

from accord.data.dropped import Dropped
from accord.data.formats import checked, recognise
from accord.data.records import Record
from accord.data.sources import Form, read_each
from accord.functions import is_reference
from accord.recipe import Evaluate, Source
from accord.recipe.evaluate import is_given
from accord.suites import SUITES

ANSWERS = ("response", "output", "completion")  # columns of ready answers


def form_of(suite: str) -> Form:
    """How a row becomes a record of a suite: as its module says in `record`, else as any data is recognised."""
    if is_reference(suite) or suite not in SUITES:
        return recognise
    own = vars(importlib.import_module(f"accord.suites.{suite}")).get("record")
    if own is None:
        return recognise
    form = cast(Callable[[dict[str, object], str], Record], own)
    return lambda row, where: checked(form(row, where), where)


def asking(form: Form) -> Form:
    """The record of a row without the answer in it, which may be empty, or no good: it is what is judged."""

    def without(row: dict[str, object], where: str) -> Record:
        return form({name: value for name, value in row.items() if name not in ANSWERS}, where)

    return without if form is recognise else form


def read_suite(stage: Evaluate, suite: str, source: Source, where: str) -> list[Record]:
    """The records of a suite's own data, in order; ready answers that bring their prompts are such data too."""
    given = {str(Path(model).resolve()) for model in stage.models.values() if is_given(model)}
    form = form_of(suite)
    if str(Path(source.source).resolve()) in given:
        form = asking(form)
    return list(read_each([source], Dropped(), where, form))
