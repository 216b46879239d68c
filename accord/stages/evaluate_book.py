"""Answers on disk: written in parts as they come, so that an evaluation that was stopped repeats none of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from pydantic import JsonValue

from accord import processes
from accord.recipe import Decoding, Sampling
from accord.run import append, read_rows, writing
from accord.score import Score
from accord.subjects import Answer

Row: TypeAlias = dict[str, object]
Key: TypeAlias = tuple[str, str, int]  # model, suite and decoding, place of the prompt
# What a row says of every answer; further columns are details of its scores.
COLUMNS = (
    "model",
    "suite",
    "index",
    "prompt",
    "response",
    "finish",
    "tokens",
    "ids",
    "sampling",
    "scores",
    "why",
    "parts",
)


@dataclass
class Book:
    """The rows of a file, by key; what is added is appended at once."""

    path: Path
    rows: dict[Key, Row] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Book:
        """What an earlier process left, up to its last whole line: it may have been killed while it wrote one."""
        if processes.first() and path.exists():
            whole = path.read_bytes().rfind(b"\n") + 1
            with writing(path), path.open("r+b") as file:
                file.truncate(whole)
        processes.wait()
        return cls(path, {key_of(row): cast(Row, row) for row in read_rows(path)})

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        append(self.path, list(rows))
        self.rows |= {key_of(row): row for row in rows}


def key_of(row: Mapping[str, object] | Mapping[str, JsonValue]) -> Key:
    """Which answer a row holds."""
    return str(row.get("model")), label_of(row), cast(int, row.get("index", -1))


def label_of(row: Mapping[str, object] | Mapping[str, JsonValue]) -> str:
    """Under which name a row's answer is reported: `demo`, or `demo@greedy`."""
    sampling = row.get("sampling")
    greedy = isinstance(sampling, dict) and cast(dict[str, object], sampling).get("temperature") == 0
    return f"{row.get('suite')}{'@greedy' if greedy else ''}"


def settings(sampling: Sampling, temperature: float) -> dict[str, object]:
    """How answers were sampled: the temperature, and what is not as it is left."""
    return {
        "temperature": temperature,
        **sampling.model_dump(include=set(Decoding.model_fields), exclude_defaults=True),
    }


def row_of(
    model: str, suite: str, index: int, answer: Answer, scores: Mapping[str, Score], sampling: Mapping[str, object]
) -> Row:
    """An answer as a row of answers.jsonl, with all that is needed to recount."""
    rollout = answer.rollout
    row: Row = {
        "model": model,
        "suite": suite,
        "index": index,
        "prompt": rollout.prompt,
        "response": rollout.text,
        "finish": None if answer.finished is None else rollout.finish,
    }
    row |= {} if answer.tokens is None else {"tokens": answer.tokens}
    row |= {
        "sampling": dict(sampling),
        "scores": {name: score.value for name, score in scores.items() if not math.isnan(score.value)},
        "why": "; ".join(score.why for score in scores.values() if score.why),
    }
    parts = {name: score.parts for name, score in scores.items() if score.parts}
    row |= {"parts": parts} if parts else {}
    for score in scores.values():
        row |= {name: value for name, value in score.details.items() if name not in COLUMNS}
    if "constraints" in rollout.meta:
        row["constraints"] = rollout.meta["constraints"]
    return row | ({"ids": rollout.tokens} if rollout.tokens else {})


def scores_in(row: Row, names: Sequence[str]) -> dict[str, Score]:
    """The scores that a row holds; one that is not there was not scored. Each has all details, which say what they are of."""
    scores, parts = cast(dict[str, float], row["scores"]), cast(dict[str, dict[str, float]], row.get("parts") or {})
    details = {name: value for name, value in row.items() if name not in (*COLUMNS, "constraints")}
    return {name: Score(scores.get(name, math.nan), parts.get(name, {}), "", details) for name in names}
