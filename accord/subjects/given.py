"""Ready answers: a file of rows with prompt and response, from wherever they are; and rows of an earlier evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, cast

from accord.data.files import check_file, read_file
from accord.data.records import Message, Prompt, conversation
from accord.data.sources import Form
from accord.data.turns import BadRow, asked
from accord.errors import DataError
from accord.recipe import Sampling
from accord.sampler import Ask, Rollout
from accord.subjects import Answer
from accord.subjects.reading import ANSWERS, asking
from accord.suites import Likelihoods, Question

Row: TypeAlias = dict[str, object]
ENDS: dict[object, Literal["stop", "length"]] = {"stop": "stop", "length": "length", "max_tokens": "length"}


@dataclass(frozen=True, kw_only=True)
class Ready(Ask):
    """A prompt whose answer is there."""

    row: Row


@dataclass(frozen=True)
class Given:
    """Answers of a file. Several to one prompt belong to its repetitions, in their order."""

    name: str
    rows: Sequence[tuple[str, Row]]  # each with its name in errors
    chunk: int = 1024
    decodes: bool = field(default=False, init=False)

    @classmethod
    def open(cls, name: str, path: str, where: str) -> Given:
        """The rows of a file; RecipeError where there is none, DataError where a row has no answer."""
        check_file(Path(path), where)
        rows = [(at, _row(row, at)) for at, row in read_file(Path(path))]
        if not rows:
            raise DataError(where, f"{path} holds no answers", "give rows with prompt and response")
        return cls(name, rows)

    def asks(self, prompts: Sequence[Prompt], form: Form) -> list[Ask]:
        """The prompts that there are answers to."""
        return [*self.ready(prompts, form)]

    def ready(self, prompts: Sequence[Prompt], form: Form) -> list[Ready]:
        """The same with the rows of their answers: found by what `form` makes of a row, or by its prompt as it stands."""
        places: dict[str, list[int]] = {}
        for i, (at, row) in enumerate(self.rows):
            for key in _keys(row, at, form):
                places.setdefault(key, []).append(i)
        used: set[int] = set()
        found: list[Ready] = []
        for number, prompt in enumerate(prompts):
            place = next((i for i in places.get(_key(prompt.prompt), ()) if i not in used), None)
            if place is None:
                continue
            used.add(place)
            ask = Ready(
                prompt=prompt.prompt, tokens=[], number=number, group=number, meta=prompt.meta, row=self.rows[place][1]
            )
            found.append(ask)
        return found

    def answer(self, asks: Sequence[Ask], sampling: Sampling, *, temperature: float, seed: int) -> list[Answer]:
        """The answers as they are; whether one came to its end is known where its row says so in `finish`."""
        return [restored(ask, cast(Ready, ask).row) for ask in asks]

    def likelihoods(self, questions: Sequence[Question]) -> list[Likelihoods] | None:
        """None: text alone tells no likelihoods."""
        return None


def restored(ask: Ask, row: Row, *, tokens: Sequence[int] | None = None) -> Answer:
    """The answer in a row, with what the row knows of it: its tokens, their number, how it came to its end.

    `tokens` are those of the prompt, where the ask does not have them.
    """
    read = list(ask.tokens if tokens is None else tokens)
    finish, count = ENDS.get(row.get("finish")), row.get("tokens")
    said = cast(list[int], row.get("ids") or [])
    rollout = Rollout(
        prompt=ask.prompt, text=response_of(row), prompt_tokens=read if said else [], tokens=said,
        logp=[0.0] * len(said), finish=finish or "stop", group=ask.group, meta=ask.meta,
    )  # fmt: skip
    return Answer(rollout, count if isinstance(count, int) else None, None if finish is None else finish == "stop")


def response_of(row: Row) -> str:
    """The answer in a row."""
    return next(cast(str, row[name]) for name in ANSWERS if isinstance(row.get(name), str))


def _row(row: object, at: str) -> Row:
    """The row itself; DataError where there is no answer in it. An empty answer is one."""
    if isinstance(row, BadRow):
        raise DataError(*map(str, row.args[:2]), "mend the row") from None
    found = cast(Row, row) if isinstance(row, dict) else {}
    if not any(isinstance(found.get(name), str) for name in ANSWERS):
        said = f"no answer in its columns ({', '.join(map(str, cast(Iterable[object], found)))})"
        raise DataError(
            at, said, f"a row of ready answers has a prompt, and its answer as text in {' or '.join(ANSWERS)}"
        )
    return found


def _keys(row: Row, at: str, form: Form) -> list[str]:
    """What a row's prompt may be found under: it may lack what the suite's own data has."""
    keys: list[str] = []
    with suppress(DataError):
        keys.append(_key(conversation(asking(form)(row, at))))
    with suppress(DataError):
        turns = asked(row, at)
        keys += [_key(turns)] if turns else []
    return list(dict.fromkeys(keys))


def _key(prompt: Sequence[Message]) -> str:
    """A conversation as text, to be compared."""
    return json.dumps([[turn["role"], turn["content"].strip()] for turn in prompt], ensure_ascii=False)
