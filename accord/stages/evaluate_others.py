"""What others say of answers: an LLM judge, people's ratings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from accord.data.files import check_file, read_file
from accord.data.turns import BadRow
from accord.errors import DataError
from accord.estimate import Estimate
from accord.recipe import Evaluate
from accord.stages.evaluate_book import Book, Row
from accord.stages.evaluate_numbers import Answers
from accord.stages.fit import Context

if TYPE_CHECKING:
    from accord.score.judge import Judge

Results: TypeAlias = dict[str, dict[str, Estimate]]


@dataclass
class Bench:
    """The stage's judge, opened when it is first asked, with the verdicts that are known."""

    context: Context
    stage: Evaluate
    book: Book
    judge: Judge | None = None

    def against(self, model: str, label: str, answers: Answers, baseline: Answers) -> dict[str, Estimate]:
        """What the judge says of answers beside the baseline's to the same prompts, each number under `judge_`."""
        known = self.book.rows.get((model, label, -1))
        if known is None:
            found = self._asked(answers, baseline)
            numbers = {f"judge_{name}": value.to_json() for name, value in found.items()}
            known = {"model": model, "suite": label, "index": -1, "numbers": numbers}
            self.book.add([known])
        told = cast(dict[str, dict[str, float]], known["numbers"])
        return {name: Estimate(v["value"], v["stderr"], int(v["n"])) for name, v in told.items()}

    def _asked(self, answers: Answers, baseline: Answers) -> dict[str, Estimate]:
        from accord.compare import pairs
        from accord.score.judge import open_judge

        context, stage = self.context, self.stage
        if self.judge is None:
            path = context.path(stage.judge)
            where = f"{context.where}.judge"
            self.judge = open_judge(path, context.engine, stage.server, seed=context.seed, where=where)
        ours, theirs = answers.beside(baseline)
        return pairs.against(ours.answered, theirs.answered, self.judge)


def rated(stage: Evaluate, results: Results, where: str) -> None:
    """Add people's ratings, as columns, to each model that they are of."""
    from accord.feedback.ratings import columns

    for model, found in columns([row for _, row in rows_of(stage.ratings, where)]).items():
        own = results.setdefault(model, {})
        own |= {name if "/" in name else f"ratings/{name}": value for name, value in found.items()}


def rows_of(path: str, where: str) -> list[tuple[str, Row]]:
    """The rows of a file as they are, each with its place; DataError where one is no object, or there is none."""
    check_file(Path(path), where)
    found: list[tuple[str, Row]] = []
    for at, row in read_file(Path(path)):
        if isinstance(row, BadRow):
            raise row
        if not isinstance(row, dict):
            raise DataError(at, f"a row is {type(row).__name__}", "it must be an object with named columns")
        found.append((at, cast(Row, row)))
    if not found:
        raise DataError(where, f"{path} is empty", "give a file with rows")
    return found
