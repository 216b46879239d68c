"""Recognise the forms that chat and preference rows come in and turn a row into a record: one function per form."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

from accord.data.records import Example, Message, Meta, Pair, Prompt, Ranking, Rating, Record, Text
from accord.errors import DataError

Row: TypeAlias = dict[str, object]
Turns: TypeAlias = list[Message]
T = TypeVar("T")

ROLES = {
    **{"system": "system", "developer": "system", "user": "user", "human": "user"},
    **{"assistant": "assistant", "gpt": "assistant", "function_call": "assistant"},
    **{"tool": "tool", "observation": "tool", "function": "tool"},
}
NAMES = {str: "text", dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
TEXT = "text or a list of messages"
ANSWERS = {"chosen", "rejected", "completion", "response", "responses", "output", "label", "ranks"}
HH = re.compile(r"\n\n(Human|Assistant):")
GUANACO = re.compile(r"### (Human|Assistant):")


class BadRow(DataError):
    """A row that does not hold what its form needs; `reason` is what it is counted under when it is skipped."""

    def __init__(self, where: str, *said: str, reason: str = "bad_row") -> None:
        super().__init__(where, *said, 'mend the row, or leave such rows out with on_error = "skip"')
        self.reason = reason


def recognise(row: Row, where: str) -> Record:
    """The record that a row of any known form holds; `where` names the row in errors."""
    read = next((read for columns, read in FORMS if _has(row, *columns)), None)
    if read is None:
        raise _unknown(row, where)
    return checked(read(row, where), where)


def checked(record: Record, where: str) -> Record:
    """The record itself, once it is sure that nothing in it is empty, unknown or out of range."""
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


# --------------------------------------------------------------------------------------------------------------- values


def _has(row: Row, *columns: str) -> bool:
    return all(row.get(column) is not None for column in columns)


def _as(kind: type[T], value: object, name: str, where: str, wanted: str = "") -> T:
    if not isinstance(value, kind):
        said = NAMES.get(type(value), "null" if value is None else type(value).__name__)
        raise BadRow(where, f"{name} is {said}", f"it must be {wanted or NAMES[kind]}")
    return value


def _rows(value: object, name: str, where: str) -> list[Row]:
    items = cast(list[object], _as(list, value, name, where))
    return [cast(Row, _as(dict, item, f"{name}[{index}]", where)) for index, item in enumerate(items)]


def _number(value: object, name: str, where: str) -> float:
    """A number; text that reads as one is taken too, as CSV has nothing else."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(where, f"{name} is {value!r}", "it must be a number")
    return number


def _optional(row: Row, name: str, where: str) -> float | None:
    return None if row.get(name) in (None, "") else _number(row[name], name, where)


def _label(row: Row, where: str) -> bool | float:
    label = row["label"]
    if isinstance(label, str) and label.strip().lower() in {"true", "false"}:
        return label.strip().lower() == "true"
    return label if isinstance(label, bool) else _number(label, "label", where)


# ---------------------------------------------------------------------------------------------------------------- turns


def _turns(value: object, name: str, where: str) -> Turns:
    """Messages from a list of `{role, content}` or `{from, value}`."""
    turns = [_turn(item, f"{name}[{index}]", where) for index, item in enumerate(_rows(value, name, where))]
    if not turns:
        raise BadRow(where, f"{name} is an empty list", "it must hold messages")
    return turns


def _turn(table: Row, name: str, where: str) -> Message:
    said = table.get("role") or table.get("from")
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise BadRow(where, f"{name} has the role {said!r}", f"known: {', '.join(ROLES)}")
    content = table["content"] if _has(table, "content") else table.get("value")
    texts = [_content(content, f"{name}.content", where)]
    if table.get("tool_calls"):  # in the form of ShareGPT's function_call, so that both train the same text
        calls = _rows(table["tool_calls"], f"{name}.tool_calls", where)
        texts += [json.dumps(call.get("function", call), ensure_ascii=False) for call in calls]
    turn: Message = {"role": role, "content": "\n".join(text for text in texts if text)}
    if isinstance(called := table.get("name"), str) and called:
        turn["name"] = called
    return turn


def _content(value: object, name: str, where: str) -> str:
    """The text of a turn: a string, or a list of text parts; null, as beside a tool call, says nothing."""
    if isinstance(value, list):
        return "".join(_as(str, part.get("text"), f"a part of {name}", where) for part in _rows(value, name, where))
    return "" if value is None else _as(str, value, name, where)


def _transcript(text: str, mark: re.Pattern[str]) -> Turns:
    """The turns of a transcript, stripped; empty ones go and neighbours of one role are joined, so that roles alternate
    as chat templates want them to."""
    pieces = mark.split(text)
    turns: Turns = []
    for speaker, said in zip(pieces[1::2], map(str.strip, pieces[2::2]), strict=True):
        role = "user" if speaker == "Human" else "assistant"
        if said and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{said}"
        elif said:
            turns.append({"role": role, "content": said})
    return turns


def _with_system(turns: Turns, row: Row) -> Turns:
    system = row.get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0]["role"] != "system":
        return [{"role": "system", "content": system}, *turns]
    return turns


def _chat(row: Row, where: str) -> Turns:
    name = "messages" if _has(row, "messages") else "conversations"
    return _with_system(_turns(row[name], name, where), row)


def _asked(row: Row, where: str) -> Turns:
    """The prompt of a row: messages or text under `prompt`, ShareGPT turns, or a question with its input or context."""
    if isinstance(prompt := row.get("prompt"), str):
        turns: Turns = [{"role": "user", "content": prompt}]
        return _with_system(_transcript(prompt, HH) if prompt.startswith("\n\nHuman:") else turns, row)
    if _has(row, "prompt"):
        return _with_system(_turns(_as(list, prompt, "prompt", where, TEXT), "prompt", where), row)
    if _has(row, "conversations"):
        return _chat(row, where)
    names = [next((name for name in pair if _has(row, name)), "") for pair in (QUESTIONS, ("input", "context"))]
    parts = [_as(str, row[name], name, where).strip() for name in names if name]
    question = "\n\n".join(part for part in parts if part)
    return _with_system([{"role": "user", "content": question}], row) if names[0] else []


def _answer(value: object, name: str, where: str) -> tuple[Turns, str]:
    """An answer and the turns before it, from text, a transcript, one message, or messages that end with the answer."""
    if isinstance(value, str):
        if not value.startswith("\n\nHuman:"):
            return [], value
        head, mark, answer = value.rpartition("\n\nAssistant:")
        if not mark or HH.search(answer):
            raise BadRow(where, f"{name} ends with a human's turn", "it must end with the answer")
        return _transcript(head, HH), answer.strip()
    turns = _turns([value] if isinstance(value, dict) else _as(list, value, name, where, TEXT), name, where)
    if turns[-1]["role"] != "assistant":
        raise BadRow(where, f"{name} ends with a turn of {turns[-1]['role']}", "it must end with the answer")
    return turns[:-1], turns[-1]["content"]


def _joined(asked: Turns, head: Turns, where: str) -> Turns:
    """The whole prompt, from the prompt's column and the turns that precede the answer in the answer's column."""
    if not asked and not head:
        wanted = "prompt, instruction, question or conversations must hold it"
        raise BadRow(where, "an answer without a prompt", wanted, reason="missing_column")
    if not head or not asked or head[0]["role"] == "assistant":
        return asked + head
    if not all(turn in head for turn in asked):
        wanted = "they must start with it or leave it out"
        raise BadRow(where, "the answer's messages lack the prompt", wanted, reason="no_common_prompt")
    return head


# ---------------------------------------------------------------------------------------------------------------- forms


def _pair(row: Row, where: str) -> Pair:
    """TRL, hh-rlhf, binarized UltraFeedback, ShareGPT and accord's own pairs."""
    head, chosen = _answer(row["chosen"], "chosen", where)
    other, rejected = _answer(row["rejected"], "rejected", where)
    if head != other:
        said = "chosen and rejected differ before their last answer"
        raise BadRow(where, said, "a pair is two answers to one prompt", reason="no_common_prompt")
    prob, margin, weight = (_optional(row, name, where) for name in ("prob", "margin", "weight"))
    if margin is None and _has(row, "score_chosen", "score_rejected"):
        better, worse = (_number(row[name], name, where) for name in ("score_chosen", "score_rejected"))
        margin = better - worse if better > worse else None
    return Pair(
        prompt=_joined(_asked(row, where), head, where),
        chosen=chosen,
        rejected=rejected,
        prob=1.0 if prob is None else prob,
        margin=margin,
        weight=1.0 if weight is None else weight,
        source=source if isinstance(source := row.get("source"), str) else "",
        meta=_meta(row),
    )


def _meta(row: Row) -> Meta:
    return cast(Meta, meta) if isinstance(meta := row.get("meta"), dict) else {}


def _winning(row: Row, where: str) -> Pair:
    return _pair({**row, "chosen": row["winning_response"], "rejected": row["losing_response"]}, where)


def _ranking(row: Row, where: str) -> Ranking:
    responses, given = (cast(list[object], _as(list, row[name], name, where)) for name in ("responses", "ranks"))
    ranks = [_number(rank, "a rank", where) for rank in given]
    if any(not rank.is_integer() for rank in ranks):
        raise BadRow(where, f"ranks are {given}", "ranks are whole numbers, 1 is best")
    texts = [_as(str, text, f"responses[{index}]", where) for index, text in enumerate(responses)]
    return Ranking(prompt=_asked(row, where), responses=texts, ranks=[int(rank) for rank in ranks])


def _ultrafeedback(row: Row, where: str) -> Ranking:
    """An instruction with scored completions; a rank is one more than the number of better scores."""
    completions = _rows(row["completions"], "completions", where)
    names = ("overall_score", "fine-grained_score", "score")
    name = next((name for name in names if all(_has(item, name) for item in completions)), names[0])
    scores = [_number(item.get(name), f"completions.{name}", where) for item in completions]
    texts = [_as(str, item.get("response"), "completions.response", where) for item in completions]
    ranks = [1 + sum(other > score for other in scores) for score in scores]
    return Ranking(prompt=_asked(row, where), responses=texts, ranks=ranks)


def _rating(row: Row, where: str) -> Rating:
    name = "completion" if _has(row, "completion") else "response"
    head, answer = _answer(row[name], name, where)
    return Rating(prompt=_joined(_asked(row, where), head, where), response=answer, label=_label(row, where))


def _rated_chat(row: Row, where: str) -> Rating:
    prompt, answer = _answer([*_chat(row, where)], "messages", where)
    return Rating(prompt=prompt, response=answer, label=_label(row, where))


def _dialogue(row: Row, where: str) -> Example | Prompt:
    """A conversation: a demonstration, or a prompt where the assistant never speaks."""
    turns = _chat(row, where)
    if all(turn["role"] != "assistant" for turn in turns):
        return Prompt(prompt=turns, meta=_meta(row))
    if row.get("train") not in (None, "all", "last"):
        raise BadRow(where, f"train is {row['train']!r}", "it must be 'all' or 'last'")
    return Example(messages=turns, train="last" if row.get("train") == "last" else "all")


def _answered(row: Row, where: str) -> Example:
    """TRL's prompt and completion, Alpaca, dolly: a question and one answer."""
    name = next(name for name in ("completion", "output", "response") if _has(row, name))
    head, answer = _answer(row[name], name, where)
    prompt = _joined(_asked(row, where), head, where)
    return Example(messages=[*prompt, {"role": "assistant", "content": answer}], train="last")


def _plain(row: Row, where: str) -> Record:
    """Text as it is, or the dialogue in it where it is a transcript."""
    text = _as(str, row["text"], "text", where)
    mark = HH if text.startswith("\n\nHuman:") else GUANACO if text.lstrip().startswith("### Human:") else None
    return _dialogue({"messages": _transcript(text, mark)}, where) if mark else Text(text=text)


def _waiting(row: Row, where: str) -> Prompt:
    # A row with an unreadable answer is a mistake, not a prompt.
    if ANSWERS & row.keys():
        raise _unknown(row, where)
    return Prompt(prompt=_asked(row, where), meta=_meta(row))


QUESTIONS = ("instruction", "question")
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
    best: tuple[float, tuple[str, ...], dict[str, str]] = (0.0, (), {})
    for form, _ in FORMS:
        near = {name: difflib.get_close_matches(name, list(row), n=1, cutoff=0.7) for name in form if name not in row}
        likeness = 1 - sum(0.2 if match else 1.0 for match in near.values()) / len(form)
        if near and likeness > best[0]:
            best = (likeness, form, {name: match[0] if match else "..." for name, match in near.items()})
    return best[1], best[2]
