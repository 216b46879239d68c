"""Records to rows: tokenise, leave out what cannot be learned from, and count it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import count
from typing import Generic, Literal, TypeAlias, TypeVar, cast

from transformers import PreTrainedTokenizerBase

from accord.data import chat
from accord.data.dropped import Dropped
from accord.data.loaded import Loaded
from accord.data.loaded import load as load
from accord.data.made import Kept, bunches, made, some
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
    conversation,
    is_good,
)
from accord.data.rows import Extra, Row, Rows, Writer
from accord.data.tokenizer import end_id, token_lists
from accord.errors import DataError

Judgement = TypeVar("Judgement", Pair, Ranking, Rating)
Ties: TypeAlias = Literal["with ties", "without ties"]


@dataclass(frozen=True)
class Limits:
    """What becomes of rows that are too long."""

    max_tokens: int
    cut: bool = False


# -------------------------------------------------------------------------------------------------- demonstrations, text


def demonstrations(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str, *, last: bool = False
) -> Rows:
    """A group of one row for each demonstration; with `last` only the last answer of each is trained."""

    def make(into: Writer, dropped: Dropped) -> int:
        return _demonstrate(loaded, tokenizer, limits, where, into, dropped, last=last)

    return made("demonstrations", loaded, tokenizer, [*astuple(limits), last], make, where)


def _demonstrate(
    records: Iterable[Record], tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str, into: Writer,
    dropped: Dropped, *, last: bool,
) -> int:  # fmt: skip
    """Write a row for each demonstration; returns how many there are."""
    examples = (as_example(record, where) for record in records)
    for bunch in bunches(replace(example, train="last") if last else example for example in examples):
        for example, row in zip(bunch, chat.rows(tokenizer, bunch), strict=True):
            shown = show(example.messages)
            if not any(row.train):
                dropped.add("no_answer", shown)
            elif len(row) <= limits.max_tokens:
                into.add([row])
            elif limits.cut and any(row.train[: limits.max_tokens]):
                into.add([Row(row.tokens[: limits.max_tokens], row.train[: limits.max_tokens])])
            else:
                dropped.add("too_long", f"{len(row)} tokens, {limits.max_tokens} allowed: {shown}")
    return len(into)


def texts(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, context: int, where: str) -> Rows:
    """Plain text as rows of `context` tokens: documents one after the other, each closed by the end token."""

    def make(into: Writer, _: Dropped) -> int:
        count = _write_text((record for record in loaded if isinstance(record, Text)), tokenizer, context, into)
        if not count:
            raise DataError(where, "there is no plain text in it", "give .txt files or rows with a `text` column")
        return count

    return made("texts", loaded, tokenizer, [context], make, where)


def _write_text(records: Iterable[Text], tokenizer: PreTrainedTokenizerBase, context: int, into: Writer) -> int:
    """Write rows of plain text; returns how many documents there are."""
    stream, count = [end_id(tokenizer)], 0
    for bunch in bunches(record.text for record in records):
        count += len(bunch)
        stream += [token for tokens in token_lists(tokenizer, bunch) for token in [*tokens, end_id(tokenizer)]]
        # Rows overlap by one token, so that every token but the very first is predicted once.
        whole = range(0, len(stream) - context + 1, context - 1)
        for start in whole:
            into.add([_text_row(stream[start : start + context])])
        stream = stream[len(whole) * (context - 1) :]
    if len(stream) > 1 and count:
        into.add([_text_row(stream)])
    return count


def _text_row(tokens: list[int]) -> Row:
    return Row(tokens, [False] + [True] * (len(tokens) - 1))


def mixed(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str) -> Rows:
    """Demonstrations as rows, then plain text: whichever of both there is."""

    def make(into: Writer, dropped: Dropped) -> int:
        plain: list[Text] = []

        def others() -> Iterator[Record]:
            for record in loaded:
                if isinstance(record, Text):
                    plain.append(record)
                else:
                    yield record

        count = _demonstrate(others(), tokenizer, limits, where, into, dropped, last=False)
        return count + _write_text(plain, tokenizer, limits.max_tokens, into)

    return made("mixed", loaded, tokenizer, [*astuple(limits)], make, where)


# ------------------------------------------------------------------------------------------------------------ judgements


@dataclass(frozen=True)
class Form(Generic[Judgement]):
    """How judgements become groups of rows."""

    of: Callable[[Record, Dropped], list[Judgement]]  # those in a record
    answers: Callable[[Judgement], list[str]]
    numbers: Callable[[Judgement], list[Extra]]  # for each answer; none where nothing is preferred


def pairs(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str, *, every: Ties | None = None
) -> tuple[Rows, Sequence[Pair]]:
    """A group of two rows, chosen and rejected, for each pair; and the pairs that were kept.

    Of a ranking the best answer against the worst, or with `every` all comparisons, tied ones included or not.
    """
    form = Form[Pair](
        lambda record, dropped: _pairs(record, dropped, where, every),
        lambda pair: [pair.chosen, pair.rejected],
        lambda pair: [{"prob": pair.prob, "weight": pair.weight, "margin": pair.margin or 0.0} for _ in range(2)],
    )
    return _judged(f"pairs {every}", form, loaded, tokenizer, limits, where)


def rankings(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str, *, ties: bool = False
) -> tuple[Rows, Sequence[Ranking]]:
    """A group of rows, one for each answer, for each ranking; and the rankings that were kept.

    Each row knows its `rank` and the `share` of one comparison among those that its ranking holds, tied ones included
    with `ties`.
    """

    def numbers(ranking: Ranking) -> list[Extra]:
        comparisons = len(compared(ranking.ranks, ties=ties))
        if not comparisons or len(set(ranking.responses)) == 1:
            return []
        return [{"rank": rank, "share": 1 / comparisons} for rank in ranking.ranks]

    form = Form[Ranking](lambda record, _: [as_ranking(record, where)], lambda ranking: ranking.responses, numbers)
    return _judged(f"rankings {ties}", form, loaded, tokenizer, limits, where)


def ratings(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str
) -> tuple[Rows, Sequence[Rating]]:
    """A group of one row for each rated answer, which knows its `label`; and the ratings that were kept."""

    def of(record: Record, dropped: Dropped) -> list[Rating]:
        judged = isinstance(record, Pair | Ranking)
        found = _pairs(record, dropped, where, None) if judged else [record]
        return [rating for one in found for rating in as_ratings(one, where)]

    form = Form[Rating](of, lambda rating: [rating.response], lambda rating: [{"label": float(rating.label)}])
    return _judged("ratings", form, loaded, tokenizer, limits, where)


def unpaired(
    loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str
) -> tuple[Rows, Sequence[Rating]]:
    """A group of two rows for each rated answer: with its own prompt, and another prompt's answer in its place.

    Both know the `label` of the first, 1 for good and 0 for bad. The second says how an answer that nobody chose fares (KTO's
    baseline); it is cut where it is too long.
    """
    rated, kept = ratings(loaded, tokenizer, limits, where)

    def make(into: Writer, _: Dropped) -> int:
        starts = [chat.answer_start(row) for (row,) in rated]
        prompts = [array("i", row.tokens[:start]).tobytes() for (row,), start in zip(rated, starts, strict=True)]
        for i, other in enumerate(_elsewhere(prompts, where)):
            (row,), (beside,) = rated[i], rated[other]
            row.extra = {"label": float(is_good(cast(float, row.extra["label"]), where))}
            answer = slice(starts[other], starts[other] + limits.max_tokens - starts[i])
            tokens, train = (
                row.tokens[: starts[i]] + beside.tokens[answer],
                row.train[: starts[i]] + beside.train[answer],
            )
            into.add([row, Row(tokens, train, row.extra)])
        return len(into)

    return made("unpaired", loaded, tokenizer, [*astuple(limits)], make, where), kept


def _judged(
    name: str, form: Form[Judgement], loaded: Loaded, tokenizer: PreTrainedTokenizerBase, limits: Limits, where: str
) -> tuple[Rows, Sequence[Judgement]]:
    """A group of rows for each judgement in the records; and the judgements that were kept."""

    def make(into: Writer, dropped: Dropped) -> int:
        numbered, unfit = count(), Dropped()
        for bunch in bunches(one for record in loaded for one in form.of(record, dropped)):
            prompts = [one.prompt for one in bunch for _ in form.answers(one)]
            rows = iter(answered(tokenizer, prompts, [text for one in bunch for text in form.answers(one)]))
            for one, number in zip(bunch, numbered, strict=False):
                group, numbers = [next(rows) for _ in form.answers(one)], form.numbers(one)
                longest = max(map(len, group))
                if longest > limits.max_tokens:
                    unfit.add("too_long", f"{longest} tokens, {limits.max_tokens} allowed: {show(one.prompt)}")
                elif not numbers:
                    unfit.add("no_preference", show(one.prompt))
                else:
                    into.add([replace(row, extra=extra) for row, extra in zip(group, numbers, strict=True)], number)
        dropped.include(unfit)
        return len(into)

    rows = made(name, loaded, tokenizer, [*astuple(limits)], make, where)
    return rows, Kept(lambda: [one for record in loaded for one in form.of(record, Dropped())], rows)


def _pairs(record: Record, dropped: Dropped, where: str, every: Ties | None) -> list[Pair]:
    """The pairs in a record without those that prefer nothing (ties, one answer twice), which are counted."""
    if not isinstance(record, Ranking):
        found = [as_pair(record, where)]
    elif every:
        found = as_pairs(record, ties=every == "with ties")
    else:
        found = [as_pair(record, where)] if compared(record.ranks) else []
    if not found:
        dropped.add("no_preference", show(conversation(record)))
    distinct: list[Pair] = []
    for pair in found:
        if pair.chosen.strip() == pair.rejected.strip():
            dropped.add("identical", show([*pair.prompt, _said(pair.chosen)]))
        else:
            distinct.append(pair)
    return distinct


def as_pairs(ranking: Ranking, *, ties: bool) -> list[Pair]:
    """Every comparison of a ranking as a pair; a tie, with `ties`, as one with the soft label 1/2."""
    prompt, texts, ranks = ranking.prompt, ranking.responses, ranking.ranks
    return [
        Pair(prompt=prompt, chosen=texts[i], rejected=texts[j], prob=0.5 if ranks[i] == ranks[j] else 1.0, meta=ranking.meta)
        for i, j in compared(ranks, ties=ties)
    ]  # fmt: skip


def compared(ranks: Sequence[int], *, ties: bool = False) -> list[tuple[int, int]]:
    """Every comparison in a ranking, as (better, worse) places; ties make none, or with `ties` one."""
    places = range(len(ranks))
    return [(i, j) for i in places for j in places if ranks[i] < ranks[j] or (ties and ranks[i] == ranks[j] and i < j)]


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


def answered(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], answers: Sequence[str]
) -> list[Row]:
    """Prompt and answer as one row each; only the answer with its end token is in the train mask."""
    examples = [
        Example(messages=[*prompt, _said(answer)], train="last")
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return chat.rows(tokenizer, examples)


# --------------------------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Asked:
    """A prompt ready to be answered."""

    prompt: list[Message]
    tokens: list[int]
    meta: Meta
    record: Record


def prompts(loaded: Loaded, tokenizer: PreTrainedTokenizerBase, *, room: int, where: str) -> list[Asked]:
    """Prompts that leave room for an answer within the context; the same prompt is asked once."""
    asked = [as_prompt(record) for record in loaded.records]

    def make(into: Writer, _: Dropped) -> int:
        for bunch in bunches(prompt.prompt for prompt in asked):
            for tokens in chat.prompts(tokenizer, bunch):
                into.add([Row(tokens, [False] * len(tokens))])
        return len(into)

    found: list[Asked] = []
    seen: set[tuple[int, ...]] = set()
    rows = made("prompts", loaded, tokenizer, [], make, where)
    for record, prompt, (row,) in zip(loaded.records, asked, rows, strict=True):
        if len(row) > room:
            loaded.dropped.add("too_long", f"{len(row)} tokens, room for {room}: {show(prompt.prompt)}")
        elif tuple(row.tokens) in seen:
            loaded.dropped.add("repeated_prompt", show(prompt.prompt))
        else:
            seen.add(tuple(row.tokens))
            found.append(Asked(prompt.prompt, row.tokens, prompt.meta, record))
    return some(found, loaded.dropped, where)


def show(messages: Sequence[Message]) -> str:
    """A conversation in one line, as an example for a person: its last two turns."""
    return " / ".join(f"{turn['role']}: {' '.join(turn['content'].split())[:90]}" for turn in list(messages)[-2:])


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}
