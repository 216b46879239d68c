"""Recognise the forms that chat and preference rows come in and turn a row into a record: one function per form."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from typing import cast

from accord.data.records import Example, Meta, Pair, Prompt, Ranking, Rating, Record, Text, conversation
from accord.data.turns import (
    ROLES,
    BadRow,
    Row,
    Turns,
    asked,
    chat,
    expect,
    has,
    is_transcript,
    items,
    joined,
    label,
    number,
    objects,
    optional,
    split_answer,
    split_last,
    transcript,
)

TEXT = json.JSONEncoder(ensure_ascii=False, default=str)
ANSWERS = {"chosen", "rejected", "completion", "response", "responses", "output", "label", "ranks"}
GUANACO = re.compile(r"### (Human|Assistant):")


def recognise(row: Row, where: str) -> Record:
    """The record that a row of any known form holds; `where` names the row in errors."""
    there = {name for name, value in row.items() if value is not None}
    read = next((read for columns, read in FORMS if there.issuperset(columns)), None)
    if read is None:
        raise _unknown(row, where)
    return checked(read(row, where), where)


def checked(record: Record, where: str) -> Record:
    """The record itself, once it is sure that nothing in it is empty, unknown or out of range."""
    try:
        TEXT.encode(vars(record)).encode()
    except UnicodeEncodeError:
        raise BadRow(where, "half a character (a lone surrogate) is in the text", "text must be Unicode",
                     reason="bad_unicode") from None  # fmt: skip
    match record:
        case Text():
            _not_empty(record.text, "text", where, reason="empty_text")
        case Prompt():
            _check_prompt(record.prompt, where)
        case Example():
            _check_roles(record.messages, where)
            answers = [turn["content"] for turn in record.messages if turn["role"] == "assistant"] or [""]
            for answer in answers[-1:] if record.train == "last" else answers:
                _not_empty(answer, "an assistant's turn", where)
            if not conversation(record):
                raise BadRow(where, "nothing stands before the answer", "a prompt must", reason="empty_prompt")
        case Pair():
            _check_prompt(record.prompt, where)
            _not_empty(record.chosen, "chosen", where)
            _not_empty(record.rejected, "rejected", where)
            if not 0 <= record.prob <= 1:
                raise BadRow(where, f"prob is {record.prob}", "it must lie in 0 to 1")
            if record.weight < 0:
                raise BadRow(where, f"weight is {record.weight}", "it must be 0 or more")
        case Ranking():
            _check_prompt(record.prompt, where)
            _check_ranks(record, where)
        case Rating():
            _check_prompt(record.prompt, where)
            _not_empty(record.response, "the answer", where)
    return record


def _not_empty(text: str, name: str, where: str, *, reason: str = "empty_answer") -> None:
    if not text.strip():
        raise BadRow(where, f"{name} is empty", "it must hold text", reason=reason)


def _check_roles(turns: Turns, where: str) -> None:
    for turn in turns:
        if turn["role"] not in ROLES.values():
            raise BadRow(where, f"unknown role {turn['role']!r}", "known: system, user, assistant, tool")


def _check_prompt(turns: Turns, where: str) -> None:
    _check_roles(turns, where)
    _not_empty("".join(turn["content"] for turn in turns), "the prompt", where, reason="empty_prompt")


def _check_ranks(record: Ranking, where: str) -> None:
    count, ranks = len(record.responses), record.ranks
    if count != len(ranks) or count < 2:
        raise BadRow(where, f"{count} responses with {len(ranks)} ranks", "it must be at least two, with a rank each")
    if min(ranks) < 1:
        raise BadRow(where, f"ranks are {ranks}", "ranks are whole numbers, 1 is best")
    for index, response in enumerate(record.responses):
        _not_empty(response, f"responses[{index}]", where)


# ---------------------------------------------------------------------------------------------------------------- forms


def _pair(row: Row, where: str) -> Pair:
    """TRL, hh-rlhf, binarized UltraFeedback, ShareGPT and accord's own pairs."""
    head, chosen = split_answer(row["chosen"], "chosen", where)
    other, rejected = split_answer(row["rejected"], "rejected", where)
    if head != other:
        said = "chosen and rejected differ before their last answer"
        raise BadRow(where, said, "a pair is two answers to one prompt", reason="no_common_prompt")
    prob, margin, weight = (optional(row, name, where) for name in ("prob", "margin", "weight"))
    if margin is None and has(row, "score_chosen", "score_rejected"):
        better, worse = (number(row[name], name, where) for name in ("score_chosen", "score_rejected"))
        margin = better - worse if better > worse else None
    source = row.get("source")
    return Pair(
        prompt=joined(row, head, where),
        chosen=chosen,
        rejected=rejected,
        prob=1.0 if prob is None else prob,
        margin=margin,
        weight=1.0 if weight is None else weight,
        source=source if isinstance(source, str) else "",
        meta=_meta(row),
    )


def _meta(row: Row) -> Meta:
    meta = row.get("meta")
    return cast(Meta, meta) if isinstance(meta, dict) else {}


def _winning(row: Row, where: str) -> Pair:
    return _pair({**row, "chosen": row["winning_response"], "rejected": row["losing_response"]}, where)


def _ranking(row: Row, where: str) -> Ranking:
    responses, given = (items(row[name], name, where) for name in ("responses", "ranks"))
    ranks = [number(rank, "a rank", where) for rank in given]
    if any(not rank.is_integer() for rank in ranks):
        raise BadRow(where, f"ranks are {given}", "ranks are whole numbers, 1 is best")
    texts = [expect(str, text, f"responses[{index}]", where) for index, text in enumerate(responses)]
    return Ranking(prompt=asked(row, where), responses=texts, ranks=[int(rank) for rank in ranks], meta=_meta(row))


def _ultrafeedback(row: Row, where: str) -> Ranking:
    """An instruction with scored completions; a rank is one more than the number of better scores."""
    completions = objects(row["completions"], "completions", where)
    names = ("overall_score", "fine-grained_score", "score")
    name = next((name for name in names if all(has(item, name) for item in completions)), names[0])
    scores = [number(item.get(name), f"completions.{name}", where) for item in completions]
    texts = [expect(str, item.get("response"), "completions.response", where) for item in completions]
    ranks = [1 + sum(other > score for other in scores) for score in scores]
    return Ranking(prompt=asked(row, where), responses=texts, ranks=ranks)


def _rating(row: Row, where: str) -> Rating:
    name = "completion" if has(row, "completion") else "response"
    head, answer = split_answer(row[name], name, where)
    return Rating(prompt=joined(row, head, where), response=answer, label=label(row, where))


def _rated_chat(row: Row, where: str) -> Rating:
    prompt, answer = split_last(chat(row, where), "messages", where)
    return Rating(prompt=prompt, response=answer, label=label(row, where))


def _dialogue(row: Row, where: str) -> Example | Prompt:
    """A conversation: a demonstration, or a prompt where the assistant never speaks."""
    turns = chat(row, where)
    if all(turn["role"] != "assistant" for turn in turns):
        return Prompt(prompt=turns, meta=_meta(row))
    if row.get("train") not in (None, "all", "last"):
        raise BadRow(where, f"train is {row['train']!r}", "it must be 'all' or 'last'")
    return Example(messages=turns, train="last" if row.get("train") == "last" else "all")


def _answered(row: Row, where: str) -> Example:
    """TRL's prompt and completion, Alpaca, dolly: a question and one answer."""
    name = next(name for name in ("completion", "output", "response") if has(row, name))
    head, answer = split_answer(row[name], name, where)
    prompt = joined(row, head, where)
    return Example(messages=[*prompt, {"role": "assistant", "content": answer}], train="last")


def _plain(row: Row, where: str) -> Record:
    """Text as it is, or the dialogue in it where it is a transcript."""
    text = expect(str, row["text"], "text", where)
    if is_transcript(text):
        return _dialogue({"messages": transcript(text)}, where)
    if text.lstrip().startswith("### Human:"):
        return _dialogue({"messages": transcript(text, GUANACO)}, where)
    return Text(text=text)


def _waiting(row: Row, where: str) -> Prompt:
    # A row with an unreadable answer is a mistake, not a prompt.
    if ANSWERS & row.keys():
        raise _unknown(row, where)
    return Prompt(prompt=asked(row, where), meta=_meta(row))


# The first form whose columns are all there (and not null) is taken: richer forms stand before those they contain.
FORMS: list[tuple[tuple[str, ...], Callable[[Row, str], Record]]] = [
    (("prompt", "responses", "ranks"), _ranking),
    (("instruction", "completions"), _ultrafeedback),
    (("prompt", "chosen", "rejected"), _pair),
    (("chosen", "rejected"), _pair),
    (("prompt", "winning_response", "losing_response"), _winning),
    (("winning_response", "losing_response"), _winning),
    (("messages", "label"), _rated_chat),
    (("conversations", "label"), _rated_chat),
    (("prompt", "completion", "label"), _rating),
    (("prompt", "response", "label"), _rating),
    (("messages",), _dialogue),
    (("conversations",), _dialogue),
    (("prompt", "completion"), _answered),
    (("prompt", "response"), _answered),
    (("instruction", "output"), _answered),
    (("instruction", "response"), _answered),
    (("text",), _plain),
    (("prompt",), _waiting),
]


def _unknown(row: Row, where: str) -> BadRow:
    """Name the columns found, the nearest form and how to get from one to the other."""
    found = f"no known form has the columns {', '.join(row) or '(none)'}"
    nulls = [name for name, value in row.items() if value is None and name in ANSWERS]
    if nulls:
        return BadRow(where, f"{' and '.join(nulls)} is null", "it must hold an answer", reason="empty_answer")
    form, missing = _nearest(row)
    if not form:
        known = "messages | prompt, completion | prompt, chosen, rejected | prompt | text"
        fix = 'say which columns hold what, as in map = { prompt = "question", completion = "reply" }'
        return BadRow(where, found, f"known: {known}", fix, reason="missing_column")
    named = ", ".join(f'{name} = "{guess}"' for name, guess in missing.items())
    said = f"{', '.join(missing)} is missing of {', '.join(form)}"
    return BadRow(where, found, said, f"say which column it is: map = {{ {named} }}", reason="missing_column")


def _nearest(row: Row) -> tuple[tuple[str, ...], dict[str, str]]:
    """The form that most columns are there or nearly there for, and its missing columns with the likeliest ones."""
    nearest, missing, most = (), {}, 0.0
    for form, _ in FORMS:
        near = {name: difflib.get_close_matches(name, list(row), n=1, cutoff=0.7) for name in form if name not in row}
        likeness = 1 - sum(0.2 if match else 1.0 for match in near.values()) / len(form)
        if near and likeness > most:
            nearest, most = form, likeness
            missing = {name: match[0] if match else "..." for name, match in near.items()}
    return nearest, missing
