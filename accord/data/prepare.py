"""Records to rows: tokenise, leave out what cannot be learned from, and count it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from accord.data import chat
from accord.data.batch import Group, Row
from accord.data.dropped import Dropped
from accord.data.records import (
    Example,
    Message,
    Meta,
    Pair,
    Ranking,
    Rating,
    Record,
    Text,
    as_example,
    as_pair,
    as_prompt,
    as_ranking,
    as_ratings,
    bucket,
    is_good,
)
from accord.data.sources import read_all
from accord.data.tokenizer import end_id, token_lists
from accord.errors import DataError
from accord.recipe import Source

T = TypeVar("T")


@dataclass
class Loaded:
    """What a source came to: records read, records left out."""

    records: list[Record]
    dropped: Dropped = field(default_factory=Dropped)

    def report(self, kept: int) -> dict[str, object]:
        """`{read, kept, dropped}`, as stage.json holds it."""
        return {"read": kept + self.dropped.total, "kept": kept, "dropped": self.dropped.to_json()}


def load(sources: Sequence[Source], held: float | Sequence[Source] | None, where: str) -> tuple[Loaded, Loaded | None]:
    """Training records and held-out ones: from sources of their own, or a fraction split off by `bucket`."""
    train = Loaded([])
    train.records = read_all(list(sources), train.dropped, f"{where}.data")
    if held is None:
        return train, None
    if not isinstance(held, float | int):
        kept = Loaded([])
        kept.records = read_all(list(held), kept.dropped, f"{where}.eval_data")
        return train, kept
    kept = Loaded([])
    train.records, kept.records = split(train.records, held, where)
    return train, kept


def split(records: Sequence[Record], held: float, where: str) -> tuple[list[Record], list[Record]]:
    """Records to train on and the fraction `held` of them that is held out; neither is empty."""
    aside = [bucket(record, 10_000) < held * 10_000 for record in records]
    kept = [record for record, out in zip(records, aside, strict=True) if out]
    train = [record for record, out in zip(records, aside, strict=True) if not out]
    if not kept or not train:
        raise DataError(f"{where}.eval_data", f"a fraction of {held} leaves {len(train)} records to train on and "
                        f"{len(kept)} held out", "give more data or another fraction")  # fmt: skip
    return train, kept


@dataclass(frozen=True)
class Limits:
    """What becomes of rows that are too long."""

    max_tokens: int
    cut: bool = False


def demonstrations(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str) -> list[Group]:
    """A group of one row for each demonstration."""
    examples = [as_example(record, where) for record in loaded.records]
    found: list[Group] = []
    for example, row in zip(examples, chat.rows(tokenizer, examples), strict=True):
        shown = show(example.messages)
        if not any(row.train):
            loaded.dropped.add("no_answer", shown)
        elif len(row) <= limits.max_tokens:
            found.append([row])
        elif limits.cut and any(row.train[: limits.max_tokens]):
            found.append([Row(row.tokens[: limits.max_tokens], row.train[: limits.max_tokens])])
        else:
            loaded.dropped.add("too_long", f"{len(row)} tokens, {limits.max_tokens} allowed: {shown}")
    return _some(found, loaded, where)


def pairs(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str
) -> tuple[list[Group], list[Pair]]:
    """A group of two rows, chosen and rejected, for each pair; and the pairs that were kept."""
    distinct = [as_pair(record, where) for record in _decided(loaded, where)]
    answers = [text for pair in distinct for text in (pair.chosen, pair.rejected)]
    prompts = [pair.prompt for pair in distinct for _ in range(2)]
    rows = answered(tokenizer, prompts, answers)
    found: list[Group] = []
    kept: list[Pair] = []
    for i, pair in enumerate(distinct):
        chosen, rejected = rows[2 * i], rows[2 * i + 1]
        longest = max(len(chosen), len(rejected))
        if longest > limits.max_tokens:
            loaded.dropped.add("too_long", f"{longest} tokens, {limits.max_tokens} allowed: {show(pair.prompt)}")
            continue
        for row in (chosen, rejected):
            row.extra = {"prob": pair.prob, "weight": pair.weight, "margin": pair.margin or 0.0}
        found.append([chosen, rejected])
        kept.append(pair)
    return _some(found, loaded, where), kept


def rankings(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str, *, ties: bool = False
) -> tuple[list[Group], list[Ranking]]:
    """A group of rows, one for each answer, for each ranking; and the rankings that were kept.

    Each row knows its `rank` and the `share` of one comparison among those that its ranking holds, tied ones included
    with `ties`.
    """
    every = [as_ranking(record, where) for record in loaded.records]
    answers = [text for ranking in every for text in ranking.responses]
    rows = iter(answered(tokenizer, [r.prompt for r in every for _ in r.responses], answers))
    found: list[Group] = []
    kept: list[Ranking] = []
    for ranking in every:
        group = [next(rows) for _ in ranking.responses]
        longest, comparisons = max(map(len, group)), len(compared(ranking.ranks, ties=ties))
        if longest > limits.max_tokens:
            loaded.dropped.add("too_long", f"{longest} tokens, {limits.max_tokens} allowed: {show(ranking.prompt)}")
        elif not comparisons or len(set(ranking.responses)) == 1:
            loaded.dropped.add("no_preference", show(ranking.prompt))
        else:
            for row, rank in zip(group, ranking.ranks, strict=True):
                row.extra = {"rank": rank, "share": 1 / comparisons}
            found.append(group)
            kept.append(ranking)
    return _some(found, loaded, where), kept


def ratings(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str
) -> tuple[list[Group], list[Rating]]:
    """A group of one row for each rated answer, which knows its `label`; and the ratings that were kept."""
    every = [rating for record in _decided(loaded, where) for rating in as_ratings(record, where)]
    rows = answered(tokenizer, [rating.prompt for rating in every], [rating.response for rating in every])
    found: list[Group] = []
    kept: list[Rating] = []
    for rating, row in zip(every, rows, strict=True):
        if len(row) > limits.max_tokens:
            loaded.dropped.add("too_long", f"{len(row)} tokens, {limits.max_tokens} allowed: {show(rating.prompt)}")
            continue
        row.extra = {"label": float(rating.label)}
        found.append([row])
        kept.append(rating)
    return _some(found, loaded, where), kept


def unpaired(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str
) -> tuple[list[Group], list[Rating]]:
    """A group of two rows for each rated answer: with its own prompt, and another prompt's answer in its place.

    Both know the `label` of the first, 1 for good and 0 for bad. The second says how an answer that nobody chose fares (KTO's
    baseline); it is cut where it is too long.
    """
    found, kept = ratings(loaded, tokenizer, limits, where)
    rows = [row for (row,) in found]
    for rating, row in zip(kept, rows, strict=True):
        row.extra = {"label": float(is_good(rating, where))}
    starts = [chat.answer_start(row) for row in rows]
    others = _elsewhere([tuple(row.tokens[:start]) for row, start in zip(rows, starts, strict=True)], where)
    for group, row, start, other in zip(found, rows, starts, others, strict=True):
        answer = slice(starts[other], starts[other] + limits.max_tokens - start)
        tokens, train = rows[other].tokens[answer], rows[other].train[answer]
        group.append(Row(row.tokens[:start] + tokens, row.train[:start] + train, dict(row.extra)))
    return found, kept


def _elsewhere(prompts: Sequence[Hashable], where: str) -> list[int]:
    """For each row the place of one with the next prompt: the k-th of a prompt has the k-th of the next, in a circle."""
    places: dict[Hashable, list[int]] = {}
    for i, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(i)
    each = list(places.values())
    if len(each) == 1:
        raise DataError(where, "all answers are to one prompt", "the baseline of kto needs answers to two at least")
    found = [0] * len(prompts)
    for own, others in zip(each, [*each[1:], each[0]], strict=True):
        for k, i in enumerate(own):
            found[i] = others[k % len(others)]
    return found


def _decided(loaded: Loaded, where: str) -> list[Record]:
    """The records, rankings as pairs, without those that prefer nothing (ties, one answer twice), which are counted."""
    found: list[Record] = []
    for record in loaded.records:
        if isinstance(record, Ranking) and not compared(record.ranks):
            loaded.dropped.add("no_preference", show(record.prompt))
            continue
        pair = as_pair(record, where) if isinstance(record, Pair | Ranking) else None
        if pair and pair.chosen.strip() == pair.rejected.strip():
            loaded.dropped.add("identical", show([*pair.prompt, _said(pair.chosen)]))
            continue
        found.append(pair or record)
    return found


def compared(ranks: Sequence[int], *, ties: bool = False) -> list[tuple[int, int]]:
    """Every comparison in a ranking, as (better, worse) places; ties make none, or with `ties` one."""
    places = range(len(ranks))
    return [(i, j) for i in places for j in places if ranks[i] < ranks[j] or (ties and ranks[i] == ranks[j] and i < j)]


def answered(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], answers: Sequence[str]
) -> list[Row]:
    """Prompt and answer as one row each; only the answer with its end token is in the train mask."""
    examples = [
        Example(messages=[*prompt, _said(answer)], train="last")
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return chat.rows(tokenizer, examples)


@dataclass(frozen=True)
class Asked:
    """A prompt ready to be answered."""

    prompt: list[Message]
    tokens: list[int]
    meta: Meta
    record: Record


def prompts(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, *, room: int, where: str) -> list[Asked]:
    """Prompts that leave room for an answer within the context; the same prompt is asked once."""
    found: list[Asked] = []
    seen: set[tuple[int, ...]] = set()
    asked = [as_prompt(record) for record in loaded.records]
    tokens_of = chat.prompts(tokenizer, [prompt.prompt for prompt in asked])
    for record, prompt, tokens in zip(loaded.records, asked, tokens_of, strict=True):
        if len(tokens) > room:
            loaded.dropped.add("too_long", f"{len(tokens)} tokens, room for {room}: {show(prompt.prompt)}")
        elif tuple(tokens) in seen:
            loaded.dropped.add("repeated_prompt", show(prompt.prompt))
        else:
            seen.add(tuple(tokens))
            found.append(Asked(prompt.prompt, tokens, prompt.meta, record))
    return _some(found, loaded, where)


def texts(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, context: int, where: str) -> list[Group]:
    """Plain text as rows of `context` tokens: documents one after the other, each closed by the end token."""
    stream: list[int] = [end_id(tokenizer)]
    bodies = [record.text for record in loaded.records if isinstance(record, Text)]
    if not bodies:
        raise DataError(where, "there is no plain text in it", "give .txt files or rows with a `text` column")
    for tokens in token_lists(tokenizer, bodies):
        stream += [*tokens, end_id(tokenizer)]
    # Rows overlap by one token, so that every token but the very first is predicted once.
    starts = range(0, len(stream) - 1, context - 1)
    rows = [stream[start : start + context] for start in starts]
    return [[Row(row, [False] + [True] * (len(row) - 1))] for row in rows if len(row) > 1]


def show(messages: Sequence[Message]) -> str:
    """A conversation in one line, as an example for a person: its last two turns."""
    return " / ".join(f"{turn['role']}: {' '.join(turn['content'].split())[:90]}" for turn in list(messages)[-2:])


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _some(found: list[T], loaded: Loaded, where: str) -> list[T]:
    """The rows, or an error that says where they all went."""
    if found:
        return found
    reasons = ", ".join(f"{reason.count} {name} ({reason.example})" for name, reason in loaded.dropped.reasons.items())
    raise DataError(where, f"no row is left to use: {reasons}", "raise max_tokens, or give other data")
