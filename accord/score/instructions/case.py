"""Kinds about the language of an answer and its capital letters."""

from __future__ import annotations

import re
from typing import TypeAlias

from accord.data.language import CODES, language
from accord.score.instructions.amount import Relation, enough

Code: TypeAlias = str  # a key of CODES

# What NLTK's word tokeniser parts from words, whichever side it is on; of brackets, quotes and marks no count depends.
APART = re.compile(r"[«»“”\u2018\u2019„`;@#$%&*?!<>()\[\]{}\"\u2012-\u2015]|--|\.\.+|[:,](?!\d)")
QUOTE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)|'(?=\s|$)", re.IGNORECASE)
CLITIC = re.compile(r"(?<=[^'\s])('s|'m|'d|'ll|'re|'ve|n't)(?=\s|$)", re.IGNORECASE)
JOINED = re.compile(r"\b(CAN)(NOT)\b|\b(GIM)(ME)\b|\b(GON)(NA)\b|\b(GOT)(TA)\b|\b(LEM)(ME)\b|\b(WAN)(NA)(?=\s|$)")


def response_language(text: str, *, language: Code) -> bool:
    """The answer is in the language of this ISO 639-1 code; an answer without letters is in any."""
    return not any(map(str.isalpha, text)) or spoken(text) == CODES[language]


def english_capital(text: str) -> bool:
    """English, and no small letter."""
    return text.isupper() and _english(text)


def english_lowercase(text: str) -> bool:
    """English, and no capital letter."""
    return text.islower() and _english(text)


def capital_word_frequency(text: str, *, capital_relation: Relation, capital_frequency: int) -> bool:
    """Words in capitals, as NLTK's tokeniser parts words: `WELL-KNOWN` is one, `DON'T` is two."""
    return enough(capital_words(text), capital_relation, capital_frequency)


def capital_words(text: str) -> int:
    """How many words have capital letters and no small ones."""
    for pattern in (APART, QUOTE):
        text = pattern.sub(" ", text)
    text = CLITIC.sub(r" \1", text)
    text = JOINED.sub(lambda match: " ".join(part for part in match.groups() if part), text)
    return sum(word.isupper() for word in text.split())


def spoken(text: str) -> str:
    """The language of a whole answer."""
    return language(text, first=None)


def _english(text: str) -> bool:
    """English, or without words to tell by: names, a title."""
    return spoken(text) in ("English", "unclear")
