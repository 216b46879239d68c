"""Questions answered by likelihood: what a model says of each option is written down, so that it can be graded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from accord.console import say
from accord.estimate import Estimate
from accord.stages.evaluate_book import Book, Row
from accord.subjects import Subject
from accord.suites import Likelihoods, Question, Suite

CHUNK = 256  # questions that are written down at a time


@dataclass
class Sheets:
    """The likelihoods that are known, in a file."""

    book: Book

    @classmethod
    def open(cls, path: Path) -> Sheets:
        """What an earlier process left."""
        return cls(Book.open(path))

    def get(self, model: str, suite: str, index: int, question: Question) -> Likelihoods | None:
        """What a model says of a question, if it is known."""
        row = self.book.rows.get((model, suite, index))
        if row is None or row["prompt"] != question.prompt or row["options"] != question.options:
            return None
        return Likelihoods(question, cast(list[float], row["logp"]), cast(list[int], row["tokens"]))

    def add(self, model: str, suite: str, start: int, found: Sequence[Likelihoods]) -> None:
        """Write down what a model says of the questions from `start` on."""
        self.book.add([_row(model, suite, start + i, told) for i, told in enumerate(found)])


def _row(model: str, suite: str, index: int, told: Likelihoods) -> Row:
    question = told.question
    return {
        "model": model, "suite": suite, "index": index, "prompt": question.prompt, "options": question.options,
        "logp": told.logp, "tokens": told.tokens,
    }  # fmt: skip


def grades(sheets: Sheets, subject: Subject, suite: Suite) -> Mapping[str, Estimate]:
    """The numbers of a suite's questions; none from a subject that tells no likelihoods."""
    if not suite.questions or suite.grade is None:
        return {}
    found: list[Likelihoods] = []
    for start in range(0, len(suite.questions), CHUNK):
        part = suite.questions[start : start + CHUNK]
        known = [sheets.get(subject.name, suite.name, start + i, question) for i, question in enumerate(part)]
        kept = [told for told in known if told]
        if len(kept) < len(part):
            said = subject.likelihoods(part)
            if said is None:
                say(f"{subject.name} tells no likelihoods: the questions of {suite.name} are unmeasured")
                return {}
            sheets.add(subject.name, suite.name, start, said)
            kept = list(said)
        found += kept
    return suite.grade(found)
