"""Multiple choice: rows of several forms, the probabilities of the options, which option an answer in words names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from accord.data.records import Message, Meta, Prompt, Record, as_prompt, named
from accord.data.turns import BadRow, Row, asked, expect, has, items
from accord.errors import DataError
from accord.estimate import Estimate
from accord.suites import Likelihoods, Question

LETTER = re.compile(r"^\W*(?:the )?(?:answer|option|choice)?(?: is)?\W*\(?([a-z])(?:\)|[.:](?:\s|$)|$)")


def record(row: Row, where: str) -> Prompt:
    """A question with its options: `{question, options, answer}`, where `answer` is a number from 0, a letter or the
    option itself and may be missing, or a row of TruthfulQA, whose MC1 options it takes.

    A row without options holds the `answer` in words, and `wrong`, one that is not true, where a suite needs it.
    """
    if has(row, "mc1_choices", "mc1_labels"):
        labels = items(row["mc1_labels"], "mc1_labels", where)
        told = {"answer": labels.index(1)} if labels.count(1) == 1 else {}
        kept = {name: row[name] for name in ("question", "category") if has(row, name)}
        row = {**kept, **told, "options": row["mc1_choices"]}
    name = "choices" if has(row, "choices") and not has(row, "options") else "options"
    prompt = asked(row, where)
    if not prompt:
        raise BadRow(where, "no question", "give question (or prompt), options and answer")
    meta: Meta = {"category": row["category"]} if has(row, "category") else {}
    if has(row, name):
        given = texts(row[name], name, where)
        options = list(dict.fromkeys(option for option in given if option))  # real rows have some twice, and empty ones
        if len(options) < 2:
            raise BadRow(where, f"{name} holds {len(options)} different texts", "a choice needs two or more")
        answer = _index(row.get("answer"), given, where)
        place = None if answer is None else options.index(given[answer])
        return Prompt(prompt=prompt, meta=meta | {"options": options, "answer": place})
    words = {key: expect(str, row[key], key, where).strip() for key in ("answer", "wrong") if has(row, key)}
    return Prompt(prompt=prompt, meta=meta | words)


def texts(value: object, name: str, where: str) -> list[str]:
    """A list of texts, each without the space around it."""
    return [expect(str, item, f"{name}[{i}]", where).strip() for i, item in enumerate(items(value, name, where))]


def _index(answer: object, options: Sequence[str], where: str) -> int | None:
    """Which option is the right one, None where the row does not say."""
    if answer is None:
        return None
    if isinstance(answer, str) and answer.strip() in options:
        return options.index(answer.strip())
    if isinstance(answer, str) and re.fullmatch(r"\W*[A-Za-z]\W*", answer):
        answer = ord(re.sub(r"\W", "", answer).lower()) - ord("a")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options) and options[answer]:
        return answer
    raise BadRow(where, f"answer is {answer!r}", f"it must name one of {len(options)} options: a number from 0, a letter, "
                 "or the option's text")  # fmt: skip


def options_of(meta: Mapping[str, object]) -> list[str]:
    """The options of a record, none where its answer is free text."""
    return cast("list[str]", meta.get("options", []))


def answer_of(meta: Mapping[str, object]) -> int | None:
    """The number of the right option, where it is known."""
    answer = meta.get("answer")
    return answer if isinstance(answer, int) else None


def question_of(given: Record, suite: str) -> Prompt:
    """A record that a suite of questions can use; anything else is a mistake of the user's."""
    prompt = as_prompt(given)
    if not prompt.meta:
        raise DataError(suite, f"{named(given)} without what the suite needs to know of it",
                        f"give the suite data of its own: {suite}=file.jsonl")  # fmt: skip
    return prompt


def plain(prompt: Prompt) -> Question:
    """The options as answers to the question, nothing else shown."""
    return Question(prompt.prompt, options_of(prompt.meta), prompt.meta)


def listed(prompt: Sequence[Message], options: Sequence[str], tail: str = "") -> list[Message]:
    """The question with its options under letters, for an answer in words."""
    lines = [f"({chr(ord('a') + i)}) {option}" for i, option in enumerate(options)]
    last = prompt[-1]
    asking: Message = {"role": last["role"], "content": "\n".join([last["content"], *lines, *([tail] if tail else [])])}
    return [*prompt[:-1], asking]


def shuffled(options: Sequence[str]) -> list[int]:
    """An order of the options that depends on their texts alone, so that the right one has no place of its own."""
    return sorted(range(len(options)), key=lambda i: hashlib.blake2b(options[i].encode(), digest_size=8).digest())


def probabilities(found: Likelihoods, *, per_token: bool = False) -> np.ndarray:
    """The probability of each option among them all, [options]: a softmax of the log-probabilities, or of their means
    over tokens."""
    logp = np.asarray(found.logp, dtype=float)
    logp = logp / np.maximum(1, np.asarray(found.tokens)) if per_token else logp
    raised = np.exp(logp - logp.max())
    return raised / raised.sum()


def named_option(text: str, options: Sequence[str], names: Sequence[str] | None = None) -> int | None:
    """Which option an answer in words names: the same text, its letter, or the only one that is in it; None if unsure.

    `names` are shorter ways to say the options, tried last. Case, space and a full stop at the end do not count.
    """
    said = _tidy(text)
    tidy = [_tidy(option) for option in options]
    if tidy.count(said) == 1:
        return tidy.index(said)
    letter = LETTER.match(said)
    if letter and ord(letter[1]) - ord("a") < len(options):
        return ord(letter[1]) - ord("a")
    for wordings in (tidy, [_tidy(name) for name in names or ()]):
        inside = [i for i, wording in enumerate(wordings) if says(said, wording)]
        # "Known" is in "Not known": an option inside a longer one that is there too does not count.
        inside = [
            i for i in inside if not any(wordings[i] != wordings[k] and wordings[i] in wordings[k] for k in inside)
        ]
        if len(inside) == 1:
            return inside[0]
    return None


def says(text: str, phrase: str) -> bool:
    """Whether a phrase is in a text as whole words, whatever their case."""
    return bool(_tidy(phrase)) and re.search(rf"(?<!\w){re.escape(_tidy(phrase))}(?!\w)", _tidy(text)) is not None


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().lower().replace("\u2019", "'")).rstrip(".").strip()


def known(found: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    """What was measured: estimates over nothing are left out."""
    return {name: estimate for name, estimate in found.items() if estimate is not None}
