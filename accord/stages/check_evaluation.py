"""What an evaluation names, before any work: suites with their data, files of ready answers, judgements and ratings."""

from __future__ import annotations

from accord.data.files import check_file
from accord.errors import RecipeError
from accord.recipe import Evaluate, Source
from accord.recipe.evaluate import is_given
from accord.stages.check_data import Contents
from accord.subjects.given import Given
from accord.subjects.reading import read_suite
from accord.suites import resolve


def check_evaluation(stage: Evaluate, where: str) -> None:
    """Suites are known and have something to ask; files are there and ready answers can be read."""
    for name, source in stage.asked:
        if stage.annotations and name == "winrate":
            continue
        made = resolve(name, f"{where}.suites")
        if source or stage.data or not stage.models:
            continue
        suite = made([], None)
        if not suite.records and not suite.questions:
            raise RecipeError(f"{where}.data", f"is missing: suite '{name}' has no data of its own",
                              f'give data, or suites = ["{name}=rows.jsonl"]')  # fmt: skip
    if stage.curves and not stage.data:
        raise RecipeError(f"{where}.data", "is missing: curves are drawn over its prompts", "give data")
    for name, model in stage.models.items():
        if is_given(model):
            Given.open(name, model, f"{where}.models.{name}")
    for key, path in stage.files:
        check_file(path, f"{where}.{key}")


def read_own(stage: Evaluate, suite: str, source: Source, where: str) -> Contents:
    """What the own data of a suite holds; DataError where a row does not fit."""
    found = Contents()
    for record in read_suite(stage, suite, source, where):
        found.add(record)
    return found
