"""Ready judgements in AlpacaEval's form: win rates against a baseline, and of more than one pair of models a leaderboard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from accord.compare.alpaca import from_annotations, judgement
from accord.compare.leaderboard import Game, leaderboard
from accord.console import say
from accord.data.files import suffix
from accord.errors import DataError, RecipeError
from accord.recipe import Evaluate
from accord.recipe.evaluate import is_given
from accord.stages.evaluate_book import Book, Row, key_of
from accord.stages.evaluate_others import Results, rows_of
from accord.stages.fit import Context

UNNAMED = "baseline"  # what several models met, where neither a row nor the stage names it


@dataclass(frozen=True)
class Judged:
    """A judged pair of answers."""

    row: Row
    model: str
    other: str  # what it met; empty where the row does not say
    value: float  # the chance that the model's answer is the better one; NaN where that is not known


def annotated(context: Context, stage: Evaluate, results: Results, book: Book) -> str:
    """Add `winrate/...` to each model that the stage's judgements are of, and the judged answers to the book; returns the
    baseline.

    Win rates are of the judgements against the baseline. Several pairs of models also have places on a leaderboard.
    """
    where = f"{context.where}.annotations"
    judged = [one for path in stage.annotations for one in read(Path(path), where)]
    several = len(pairs(judged)) > 1
    baseline = baseline_of(stage, judged, where) or (UNNAMED if several else "")
    file = stage.models.get(stage.baseline, "")  # its answers, for judgements that do not bring them
    answers = [row for _, row in rows_of(file, f"{context.where}.models")] if is_given(file) else []
    models: dict[str, list[Judged]] = {}
    for one in judged:
        models.setdefault(one.model, []).append(one)
    for model, every in models.items():
        rows = [answer_of(i, one, (one.other or baseline) if several else "") for i, one in enumerate(every)]
        book.add([row for row in rows if key_of(row) not in book.rows])
        met = [one.row for one in every if not several or (one.other or baseline) == baseline]
        found = results.setdefault(model, {})
        found |= {f"winrate/{name}": value for name, value in from_annotations(met, answers).items()}
    if several:
        place(context, judged, baseline, results)
    return baseline


def read(path: Path, where: str) -> Iterator[Judged]:
    """The judgements of a file; a model that no row names has the name of the file."""
    for at, row in rows_of(str(path), where):
        value = judgement(row, {}, at).preference
        model = name_in(row, ("generator_2", "generator"), at) or path.name.removesuffix(suffix(path))
        yield Judged(row, model, name_in(row, ("generator_1", "baseline"), at), value)


def name_in(row: Row, columns: Sequence[str], at: str) -> str:
    """The name of a model in the first of the columns that has one; empty where none has."""
    for column in columns:
        if name := row.get(column):
            if isinstance(name, str):
                return name
            raise DataError(at, f"{column} is {name!r}", "it must be the name of a model")
    return ""


def pairs(judged: Sequence[Judged]) -> set[frozenset[str]]:
    """Which models met."""
    return {frozenset((one.model, one.other)) for one in judged if one.model != one.other}


def baseline_of(stage: Evaluate, judged: Sequence[Judged], where: str) -> str:
    """What the others are compared with: the stage's baseline where it is in the judgements, else the first that is met in
    them. It also stands for what rows do not name."""
    met = list(dict.fromkeys(one.other for one in judged if one.other))
    known = {*met, *(one.model for one in judged)} if len(pairs(judged)) > 1 else {*met}
    if not met or stage.baseline in known:
        return stage.baseline
    if stage.baseline and not stage.models:
        said = f"no judgement is of {stage.baseline!r}, the baseline"
        raise RecipeError(where, said, f"known: {', '.join(sorted(known))}", "name one of them, or none")
    return met[0]


def place(context: Context, judged: Sequence[Judged], baseline: str, results: Results) -> None:
    """Add the place of each model on the leaderboard: rank, strength in log-odds against the baseline, and how often it beats
    the baseline by the strengths."""
    games = [
        Game(str(one.row["instruction"]), one.model, other, one.value)
        for one in judged
        if (other := one.other or baseline) != one.model
    ]
    if all(math.isnan(game.value) for game in games):
        allowed = "1 where the baseline is better, 2 where the model is, 0 or 1.5 for a tie"
        raise DataError(f"{context.where}.annotations", "no judgement has a preference", allowed)
    if alone := len(judged) - len(games):
        say(f"{context.name:<10} {alone} judgements are of a model against itself, and no games of the leaderboard")
    found = leaderboard(games, anchor=baseline, seed=context.seed)
    for standing in found.standings:
        own = results.setdefault(standing.model, {})
        own |= {
            "winrate/rank": standing.rank,
            "winrate/strength": standing.strength,
            "winrate/expected_win_rate": standing.chance,
        }
    for note in found.notes:
        say(f"{context.name:<10} {note}")
        context.folder.note(result={"leaderboard": note})


def answer_of(index: int, one: Judged, against: str) -> Row:
    """A judged answer as a row of answers.jsonl: its `preference` is 1 where what it met is better, 2 where it is; `against`
    says what that is, where models met several."""
    text = one.row.get("output_2") or one.row.get("output")
    scores = {} if math.isnan(one.value) else {"preference": float(str(one.row["preference"]))}
    row: Row = {
        "model": one.model, "suite": "winrate", "index": index,
        "prompt": [{"role": "user", "content": str(one.row["instruction"])}],
        "response": text if isinstance(text, str) else "", "finish": None, "sampling": {}, "scores": scores, "why": "",
    }  # fmt: skip
    return row | ({"against": against} if against else {})
