"""Kinds about words and letters that an answer must or must not hold; upper and lower case are the same."""

from __future__ import annotations

import re

from accord.score.instructions.amount import Relation, enough


def existence(text: str, *, keywords: list[str]) -> bool:
    """Each keyword is in the text, also as a part of a word."""
    return all(_times(keyword.strip(), text) for keyword in keywords)


def frequency(text: str, *, keyword: str, relation: Relation, frequency: int) -> bool:
    """The keyword is there `relation` ("at least" or "less than") `frequency` times, also as a part of words."""
    return enough(_times(keyword.strip(), text), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    """None of the words is in the text; as a part of a longer word it may be."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_relation: Relation, let_frequency: int) -> bool:
    """The letter, or any other character, is there `let_relation` `let_frequency` times."""
    return enough(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _times(keyword: str, text: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))
