"""What others say of answers: an LLM judge, ready judgements, people's ratings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from accord.data.files import check_file, read_file
from accord.data.turns import BadRow
from accord.errors import DataError
from accord.estimate import Estimate
from accord.recipe import Evaluate
from accord.recipe.evaluate import is_given
from accord.stages.evaluate_book import Book, key_of
from accord.stages.evaluate_numbers import Answers
from accord.stages.fit import Context

if TYPE_CHECKING:
    from accord.score.judge import Judge

Row: TypeAlias = dict[str, object]
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


def annotated(stage: Evaluate, results: Results, book: Book, where: str) -> str:
    """Add `winrate/...` from judgements in AlpacaEval's form to each model that they are of, and the answers in them to the
    book; returns their baseline."""
    from accord.compare.alpaca import from_annotations

    rows, base = rows_of(stage.annotations, where), stage.models.get(stage.baseline, "")
    theirs = rows_of(base, where) if is_given(base) else []  # for judgements that do not bring the baseline's answers
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(
            str(row.get("generator_2") or row.get("generator") or Path(stage.annotations).stem), []
        ).append(row)
    for model, own in models.items():
        found = results.setdefault(model, {})
        answers = [judgement_row(model, i, row) for i, row in enumerate(own)]
        book.add([row for row in answers if key_of(row) not in book.rows])
        found |= {
            f"winrate/{name.removeprefix('winrate/')}": value for name, value in from_annotations(own, theirs).items()
        }
    return str(rows[0].get("generator_1") or stage.baseline)


def judgement_row(model: str, index: int, row: Row) -> Row:
    """A judged answer as a row of answers.jsonl: its `preference` is 1 where the baseline is better, 2 where the model is."""
    said, text = row.get("preference"), row.get("output_2") or row.get("output")
    scores = {"preference": float(said)} if isinstance(said, int | float) and not math.isnan(said) else {}
    return {
        "model": model, "suite": "winrate", "index": index,
        "prompt": [{"role": "user", "content": str(row.get("instruction") or "")}],
        "response": text if isinstance(text, str) else "", "finish": None, "sampling": {}, "scores": scores, "why": "",
    }  # fmt: skip


def rated(stage: Evaluate, results: Results, where: str) -> None:
    """Add people's ratings, as columns, to each model that they are of."""
    from accord.feedback.ratings import columns

    for model, found in columns(rows_of(stage.ratings, where)).items():
        own = results.setdefault(model, {})
        own |= {name if "/" in name else f"ratings/{name}": value for name, value in found.items()}


def rows_of(path: str, where: str) -> list[Row]:
    """The rows of a file as they are; DataError where one is no object, or there is none."""
    check_file(Path(path), where)
    found: list[Row] = []
    for at, row in read_file(Path(path)):
        if isinstance(row, BadRow):
            raise row
        if not isinstance(row, dict):
            raise DataError(at, f"a row is {type(row).__name__}", "it must be an object with named columns")
        found.append(cast(Row, row))
    if not found:
        raise DataError(where, f"{path} is empty", "give a file with rows")
    return found
