"""Ends of dialogues of HH-RLHF (harmless-base, test; Bai et al. 2022) with labels of a language model.

They say what the answer does with the last message, as XSTest's annotators would, and whether either is rude, by itself.

The dialogues stay where they are; dialogues.json knows them by a hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.safety.files import digest, lines

LABELS = Path(__file__).with_name("dialogues.json")
KINDS = ("compliance", "full", "partial")


class End(NamedTuple):
    """The last message of a person, two answers to it, and which of them people preferred, the first."""

    prompt: str
    chosen: str
    rejected: str


def ends(data: Path) -> Iterator[End]:
    """All pairs whose dialogues differ in the last answer alone, in the order of the file."""
    for row in lines(data / "hh_rlhf" / "harmless-base.test.jsonl.gz"):
        (prompt, chosen), (other, rejected) = _end(row["chosen"]), _end(row["rejected"])
        if prompt == other:
            yield End(prompt, chosen, rejected)


def kind(prompt: str, answer: str) -> str | None:
    """What an answer does; None without a label, or where labellers were not of one mind."""
    key = digest(prompt, answer)
    return next((name for name in KINDS if key in _labels()[name]), None)


def toxic(text: str) -> bool | None:
    """Whether a labelled text is rude; None where labellers were not of one mind."""
    key = digest("", text)
    return None if key in _labels()["disputed"] else key in _labels()["toxic"]


@cache
def _labels() -> dict[str, frozenset[str]]:
    return {name: frozenset(keys) for name, keys in json.loads(LABELS.read_text(encoding="utf-8")).items()}


def _end(dialogue: str) -> tuple[str, str]:
    """The last message and its answer."""
    before, _, answer = dialogue.strip().rpartition("\n\nAssistant:")
    return before.rpartition("\n\nHuman:")[2].strip().removeprefix("Human:").strip(), answer.strip()
