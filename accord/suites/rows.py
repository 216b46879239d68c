"""What the suites with rows of their own share: columns, and numbers by category."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from accord.data.turns import BadRow
from accord.estimate import Estimate, mean
from accord.suites import Answered

WholeNumbers = Callable[[Answered], Mapping[str, Estimate]]


def text_of(row: Mapping[str, object], columns: Sequence[str], where: str) -> str:
    """The first of these columns that holds text."""
    for column in columns:
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
    said = f"none of the columns {', '.join(columns)} holds text"
    raise BadRow(where, said, f"columns: {', '.join(map(str, row))}", reason="missing_column")


def one_of(value: str, known: Sequence[str], column: str, where: str) -> str:
    """A value out of a few."""
    if value not in known:
        raise BadRow(where, f"{column} is {value!r}", f"known: {', '.join(known)}")
    return value


def by(key: str, names: Sequence[str]) -> WholeNumbers:
    """Means of the scores `names` for each value that `key` has in the prompts' meta: `name/value`."""

    def whole(answered: Answered) -> dict[str, Estimate]:
        values = [rollout.meta.get(key) for rollout in answered.rollouts]
        found: dict[str, Estimate] = {}
        for name in names:
            scores = answered.scores[name]
            for value in dict.fromkeys(v for v in values if v):
                at = [i for i, v in enumerate(values) if v == value]
                estimate = mean([scores[i].value for i in at], [answered.clusters[i] for i in at])
                found |= {f"{name}/{value}": estimate} if estimate else {}
        return found

    return whole
