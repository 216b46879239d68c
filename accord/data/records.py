"""Records at rest: one JSON object per line, the same fields on disk and in memory."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Literal, NotRequired, TypeAlias, TypedDict

from accord.errors import DataError

Meta: TypeAlias = dict[str, object]


class Message(TypedDict):
    """One turn of a conversation."""

    role: str  # "system", "user", "assistant" or "tool"
    content: str
    name: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Plain text, for pre-training and perplexity."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A conversation that waits for its next answer."""

    prompt: list[Message]
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A demonstration. `train` says which of the assistant's turns teach: all of them, or the last one only."""

    messages: list[Message]
    train: Literal["all", "last"] = "all"
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one prompt; `prob` is P(chosen is better)."""

    prompt: list[Message]
    chosen: str
    rejected: str
    prob: float = 1.0
    margin: float | None = None
    weight: float = 1.0
    source: str = ""
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Several answers to one prompt; rank 1 is best, equal ranks are ties."""

    prompt: list[Message]
    responses: list[str]
    ranks: list[int]
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One answer with a judgement of its own: thumbs, a scale, an unpaired label."""

    prompt: list[Message]
    response: str
    label: bool | float


Record: TypeAlias = Text | Prompt | Example | Pair | Ranking | Rating


def named(record: Record) -> str:
    """The kind of a record, as messages name it: `a Pair`."""
    kind = type(record).__name__
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def to_row(record: Record) -> dict[str, object]:
    """The JSON object of a record."""
    return {key: value for key, value in asdict(record).items() if value is not None}


def conversation(record: Record) -> list[Message]:
    """The prompt of a record: everything before the answer that is learned or judged."""
    if isinstance(record, Text):
        return [{"role": "user", "content": record.text}]
    if isinstance(record, Example):
        last = max((i for i, turn in enumerate(record.messages) if turn["role"] == "assistant"), default=0)
        return record.messages[:last]
    return record.prompt


def bucket(record: Record, buckets: int) -> int:
    """Which of `buckets` a record falls in, by a hash of its first user turn.

    The first turn and not the whole prompt: dialogues that grew from one question stay on one side of every split.
    """
    turns = conversation(record)
    first = next((turn["content"] for turn in turns if turn["role"] == "user"), turns[0]["content"] if turns else "")
    digest = hashlib.blake2b(first.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


def as_prompt(record: Record) -> Prompt:
    """A record's prompt alone."""
    if isinstance(record, Prompt):
        return record
    meta = record.meta if isinstance(record, Example | Pair | Ranking) else {}
    return Prompt(prompt=conversation(record), meta=meta)


def as_example(record: Record, where: str) -> Example:
    """A demonstration from a record that holds one: an example, the chosen answer of a pair, the best of a ranking."""
    if isinstance(record, Example):
        return record
    if isinstance(record, Pair | Ranking):
        chosen = as_pair(record, where).chosen
        return Example(messages=[*record.prompt, {"role": "assistant", "content": chosen}], train="last")
    raise DataError(
        where, f"{named(record)} is no demonstration", "give messages, prompt/completion, pairs or rankings"
    )


def as_pair(record: Record, where: str) -> Pair:
    """A preference pair; of a ranking, the best answer against the worst."""
    if isinstance(record, Pair):
        return record
    if isinstance(record, Ranking):
        by_rank = sorted(zip(record.ranks, record.responses, strict=True))
        return Pair(prompt=record.prompt, chosen=by_rank[0][1], rejected=by_rank[-1][1], meta=record.meta)
    raise DataError(where, f"{named(record)} is no preference", "give rows with prompt, chosen and rejected")


def as_ranking(record: Record, where: str) -> Ranking:
    """A ranking; a pair without a soft label or weight is one of two answers."""
    if isinstance(record, Ranking):
        return record
    if isinstance(record, Pair) and record.prob == record.weight == 1:
        return Ranking(prompt=record.prompt, responses=[record.chosen, record.rejected], ranks=[1, 2], meta=record.meta)
    raise DataError(
        where, f"{named(record)} does not go with rankings", "give rankings, or pairs without prob and weight"
    )


def as_ratings(record: Record, where: str) -> list[Rating]:
    """Answers judged one by one; of a pair (of a ranking best and worst) the chosen one is good and the rejected one bad."""
    if isinstance(record, Rating):
        return [record]
    if isinstance(record, Pair | Ranking):
        pair = as_pair(record, where)
        if pair.prob == pair.weight == 1:
            both = ((pair.chosen, True), (pair.rejected, False))
            return [Rating(prompt=pair.prompt, response=text, label=label) for text, label in both]
    raise DataError(
        where, f"{named(record)} does not go with ratings",
        "give rows with prompt, response and label, or pairs without prob and weight",
    )  # fmt: skip


def is_good(label: bool | float, where: str) -> bool:
    """Whether a rated answer is a good one: `true`, or more than half of a scale from 0 to 1."""
    if not 0 <= label <= 1:
        raise DataError(where, f"the label {label:g} does not say whether an answer is good",
                        "labels are true or false, or lie in 0 to 1 (over 0.5 is good)")  # fmt: skip
    return label > 0.5
