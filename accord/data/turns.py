"""Read the values of a row, and the turns of a conversation among them; what cannot be read is a `BadRow`."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import TypeAlias, TypeVar, cast

from accord.data.records import Message
from accord.errors import DataError

Row: TypeAlias = dict[str, object]
Turns: TypeAlias = list[Message]
T = TypeVar("T")

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}
NAMES = {str: "text", dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
TEXT = "text or a list of messages"
HH = re.compile(r"\n\n(Human|Assistant):")


class BadRow(DataError):
    """A row that does not hold what its form needs; `reason` is what it is counted under when it is skipped."""

    def __init__(self, where: str, *said: str, reason: str = "bad_row") -> None:
        super().__init__(where, *said, 'mend the row, or leave such rows out with on_error = "skip"')
        self.reason = reason


# --------------------------------------------------------------------------------------------------------------- values


def has(row: Row, *columns: str) -> bool:
    """Whether a row has all these columns, and none of them null."""
    return all(row.get(column) is not None for column in columns)


def expect(kind: type[T], value: object, name: str, where: str, wanted: str = "") -> T:
    """The value itself, if it is of this kind; `wanted` says in words what it must be."""
    if not isinstance(value, kind):
        said = NAMES.get(type(value), "null" if value is None else type(value).__name__)
        raise BadRow(where, f"{name} is {said}", f"it must be {wanted or NAMES[kind]}")
    return value


def items(value: object, name: str, where: str) -> list[object]:
    """A list of anything."""
    return cast(list[object], expect(list, value, name, where))


def objects(value: object, name: str, where: str) -> list[Row]:
    """A list of objects."""
    return [
        cast(Row, expect(dict, item, f"{name}[{index}]", where)) for index, item in enumerate(items(value, name, where))
    ]


def number(value: object, name: str, where: str) -> float:
    """A number; text that reads as one is taken too, as CSV has nothing else."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            if math.isfinite(found := float(value)):
                return found
    raise BadRow(where, f"{name} is {value!r}", "it must be a number")


def optional(row: Row, name: str, where: str) -> float | None:
    """A number, or None where the column is not there or empty."""
    return None if row.get(name) in (None, "") else number(row[name], name, where)


def label(row: Row, where: str) -> bool | float:
    """The judgement under `label`: true, false or a number."""
    value = row["label"]
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else number(value, "label", where)


# ---------------------------------------------------------------------------------------------------------------- turns


def chat(row: Row, where: str) -> Turns:
    """The conversation under `messages` or `conversations`, with the row's system prompt before it."""
    name = "messages" if has(row, "messages") else "conversations"
    return _with_system(_turns(row[name], name, where), row)


def asked(row: Row, where: str) -> Turns:
    """The prompt of a row: messages or text under `prompt`, ShareGPT turns, or a question with its input or context."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        turns = transcript(prompt) if is_transcript(prompt) else _user(prompt)
    elif prompt is not None:
        turns = _turns(expect(list, prompt, "prompt", where, TEXT), "prompt", where)
    elif has(row, "conversations"):
        turns = chat(row, where)
    elif has(row, "instruction") or has(row, "question"):
        parts = [_first(row, "instruction", "question", where), _first(row, "input", "context", where)]
        turns = _user("\n\n".join(part for part in parts if part))
    else:
        return []
    return _with_system(turns, row)


def split_answer(value: object, name: str, where: str) -> tuple[Turns, str]:
    """An answer and the turns before it, from text, a transcript, one message, or messages that end with the answer."""
    if isinstance(value, str) and is_transcript(value):
        head, mark, answer = value.rpartition("\n\nAssistant:")
        if not mark or HH.search(answer):
            raise BadRow(where, f"{name} ends with a human's turn", "it must end with the answer")
        return transcript(head), answer.strip()
    if isinstance(value, str):
        return [], value
    turns = _turns([value] if isinstance(value, dict) else expect(list, value, name, where, TEXT), name, where)
    return split_last(turns, name, where)


def split_last(turns: Turns, name: str, where: str) -> tuple[Turns, str]:
    """The last turn, which must be the assistant's, and the turns before it."""
    if turns[-1]["role"] != "assistant":
        raise BadRow(where, f"{name} ends with a turn of {turns[-1]['role']}", "it must end with the answer")
    return turns[:-1], turns[-1]["content"]


def joined(row: Row, head: Turns, where: str) -> Turns:
    """The whole prompt, from the prompt's column and the turns that precede the answer in the answer's column."""
    prompt = asked(row, where)
    if not prompt and not head:
        wanted = "prompt, instruction, question or conversations must hold it"
        raise BadRow(where, "an answer without a prompt", wanted, reason="missing_column")
    if not head or not prompt or head[0]["role"] == "assistant":
        return prompt + head
    if not all(turn in head for turn in prompt):
        wanted = "they must start with it or leave it out"
        raise BadRow(where, "the answer's messages lack the prompt", wanted, reason="no_common_prompt")
    return head


def is_transcript(text: str) -> bool:
    """Whether text is a dialogue as hh-rlhf writes it."""
    return text.startswith("\n\nHuman:")


def transcript(text: str, mark: re.Pattern[str] = HH) -> Turns:
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


def _user(content: str) -> Turns:
    return [{"role": "user", "content": content}]


def _first(row: Row, name: str, other: str, where: str) -> str:
    """The text of the first of two columns that is there, stripped."""
    name = name if has(row, name) else other
    return expect(str, row[name], name, where).strip() if has(row, name) else ""


def _with_system(turns: Turns, row: Row) -> Turns:
    system = row.get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0]["role"] != "system":
        return [{"role": "system", "content": system}, *turns]
    return turns


def _turns(value: object, name: str, where: str) -> Turns:
    """Messages from a list of `{role, content}` or `{from, value}`."""
    turns = [_turn(item, f"{name}[{index}]", where) for index, item in enumerate(objects(value, name, where))]
    if not turns:
        raise BadRow(where, f"{name} is an empty list", "it must hold messages")
    return turns


def _turn(table: Row, name: str, where: str) -> Message:
    said = table.get("role") or table.get("from")
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise BadRow(where, f"{name} has the role {said!r}", f"known: {', '.join(ROLES)}")
    content = table["content"] if has(table, "content") else table.get("value")
    texts = [_content(content, f"{name}.content", where)]
    if table.get("tool_calls"):  # in the form of ShareGPT's function_call, so that both train the same text
        calls = objects(table["tool_calls"], f"{name}.tool_calls", where)
        texts += [json.dumps(call.get("function", call), ensure_ascii=False) for call in calls]
    turn: Message = {"role": role, "content": "\n".join(text for text in texts if text)}
    if isinstance(called := table.get("name"), str) and called:
        turn["name"] = called
    return turn


def _content(value: object, name: str, where: str) -> str:
    """The text of a turn: a string, or a list of text parts; null, as beside a tool call, says nothing."""
    if value is None:
        return ""
    if isinstance(value, list):
        parts = objects(value, name, where)
        return "".join(expect(str, part.get("text"), f"a part of {name}", where) for part in parts)
    return expect(str, value, name, where)
