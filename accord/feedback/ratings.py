"""People's ratings and votes as columns of an evaluation, and how far those people agree.

Rows of ratings have `model`, `prompt`, numbers under any other name (`helpfulness`, `harmlessness`, `honesty`, `coherence`)
and, where several people rated, `annotator`. Rows of votes have `prompt`, the models `a` and `b`, and `winner`: one of the two
names, "a" or "b", or "tie". A file may hold both kinds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from accord.compare.leaderboard import Game
from accord.errors import DataError
from accord.estimate import Estimate, mean
from accord.feedback.agreement import Agreement, bootstrap, krippendorff_alpha, raw_agreement

PREFERRED = "preferred"  # the share of votes that a model wins, a tie as half
# What a row says beside its ratings.
NO_RATINGS = {"model", "prompt", "annotator", "response", "a", "b", "winner", "id", "comment", "why", "source"}
TIES = {"tie", "draw", "equal", "both", "neither"}


@dataclass(frozen=True)
class Rated:
    """One person's number for one answer."""

    model: str
    prompt: str
    annotator: str
    name: str
    value: float


@dataclass(frozen=True)
class Vote:
    """One person's choice between two models' answers: 1 for `a`, 0 for `b`, 0.5 for neither."""

    prompt: str
    annotator: str
    a: str
    b: str
    value: float


def columns(rows: Iterable[Mapping[str, object]]) -> dict[str, dict[str, Estimate]]:
    """For each model the mean of each rating and the share of votes it won (`preferred`), clustered by prompt."""
    rated, votes = read(rows)
    values: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for rating in rated:
        values[rating.model, rating.name].append((rating.value, rating.prompt))
    for vote in votes:
        values[vote.a, PREFERRED].append((vote.value, vote.prompt))
        values[vote.b, PREFERRED].append((1 - vote.value, vote.prompt))
    found: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for (model, name), each in values.items():
        if estimate := mean([value for value, _ in each], [prompt for _, prompt in each]):
            found[model][name] = estimate
    return dict(found)


def games(rows: Iterable[Mapping[str, object]]) -> list[Game]:
    """The votes as games of accord.compare.leaderboard."""
    return [Game(vote.prompt, vote.a, vote.b, vote.value) for vote in read(rows)[1]]


def agreement(rows: Iterable[Mapping[str, object]], *, draws: int = 1000) -> dict[str, dict[str, Agreement]]:
    """For each rating, and `preferred` for votes, `raw` and `alpha` (Krippendorff's: ordinal of ratings, nominal of votes) with
    intervals over the items, which are answers or pairs of them. Nothing for what no two people judged."""
    rated, votes = read(rows)
    said: dict[str, dict[tuple[str, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for rating in rated:
        by_person = said[rating.name][rating.model, rating.prompt]
        by_person[rating.annotator or f"#{len(by_person)}"] = rating.value
    for vote in votes:
        first, second = sorted([vote.a, vote.b])
        value = vote.value if first == vote.a else 1 - vote.value
        by_person = said[PREFERRED][first, second, vote.prompt]
        by_person[vote.annotator or f"#{len(by_person)}"] = value  # nobody named: another person each time
    found: dict[str, dict[str, Agreement]] = {}
    for name, items in said.items():
        shared = [each for each in items.values() if len(each) > 1]
        if shared:
            table = _table(shared)
            level = "nominal" if name == PREFERRED else "ordinal"
            found[name] = {
                "raw": bootstrap(lambda at, t=table: raw_agreement(t[:, at]), len(shared), draws=draws),
                "alpha": bootstrap(
                    lambda at, t=table, by=level: krippendorff_alpha(t[:, at], by), len(shared), draws=draws
                ),
            }
    return found


def _table(items: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Labels, [annotators, items], NaN where one has none."""
    people = sorted({name for each in items for name in each})
    return np.array([[each.get(name, math.nan) for each in items] for name in people])


def read(rows: Iterable[Mapping[str, object]]) -> tuple[list[Rated], list[Vote]]:
    """Ratings and votes of all rows. DataError where a row is neither, or nothing is rated."""
    rated: list[Rated] = []
    votes: list[Vote] = []
    for i, row in enumerate(rows, 1):
        where = f"ratings row {i}"
        if "winner" in row:
            votes += _vote(row, where)
        elif _text(row, "model") and _text(row, "prompt"):
            rated += _ratings(row, where)
        else:
            said = f"has neither model and prompt nor a winner, but {', '.join(row) or 'nothing'}"
            raise DataError(where, said, "give model, prompt and ratings, or prompt, a, b and winner")
    if not rated and not votes:
        raise DataError("ratings", "nothing is rated", "give numbers under names of their own, or winners")
    return rated, votes


def _vote(row: Mapping[str, object], where: str) -> list[Vote]:
    prompt, a, b, winner = (_text(row, name) for name in ("prompt", "a", "b", "winner"))
    if not winner:
        return []
    if not (prompt and a and b) or a == b:
        raise DataError(where, "a vote needs prompt and two models", "give prompt, a, b and winner")
    if winner.lower() in TIES and winner not in (a, b):
        value = 0.5
    elif winner in (a, b):
        value = float(winner == a)
    elif winner.lower() in ("a", "b"):
        value = float(winner.lower() == "a")
    else:
        raise DataError(where, f"the winner {winner!r} is neither {a!r} nor {b!r}", "a name, a, b or tie")
    return [Vote(prompt, _text(row, "annotator"), a, b, value)]


def _ratings(row: Mapping[str, object], where: str) -> list[Rated]:
    model, prompt, annotator = (_text(row, name) for name in ("model", "prompt", "annotator"))
    numbers = {name: _number(value, f"{where}.{name}") for name, value in row.items() if name not in NO_RATINGS}
    return [Rated(model, prompt, annotator, name, v) for name, v in numbers.items() if v is not None]


def _text(row: Mapping[str, object], name: str) -> str:
    """What a row has under a name, as text; a conversation is the text of its turns."""
    value = row.get(name)
    if isinstance(value, list):
        turns = cast(list[object], value)
        return "\n".join(str(t.get("content", "")) if isinstance(t, dict) else str(t) for t in turns)
    return "" if value is None else str(value).strip()


def _number(value: object, where: str) -> float | None:
    """A rating; None where it is left out."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(cast(str, value))
    except (TypeError, ValueError):
        fix = f"ratings are numbers; what is no rating may be called {', '.join(sorted(NO_RATINGS))}"
        raise DataError(where, f"{value!r} is no number", fix) from None
    return None if math.isnan(number) else number
