"""Kinds about the language of an answer and its capital letters."""

from __future__ import annotations

import re

from accord.data.language import CODES, language
from accord.errors import DataError
from accord.score.instructions.amount import enough

# What NLTK's word tokeniser parts from words, whichever side it is on; of brackets, quotes and marks no count depends.
APART = re.compile(r"[«»“”‘’„`;@#$%&*?!<>()\[\]{}\"\u2012-\u2015]|--|\.\.+|[:,](?!\d)")
QUOTE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)|'(?=\s|$)", re.IGNORECASE)
CLITIC = re.compile(r"(?<=[^'\s])('S|'M|'D|'LL|'RE|'VE|N'T)(?=\s|$)")
JOINED = re.compile(r"\b(CAN)(NOT)\b|\b(GIM)(ME)\b|\b(GON)(NA)\b|\b(GOT)(TA)\b|\b(LEM)(ME)\b|\b(WAN)(NA)(?=\s|$)")


def response_language(text: str, *, language: str) -> bool:
    """The answer is in the language of this ISO 639-1 code; an answer without letters is in any."""
    code = language.partition("-")[0]
    if code not in CODES:
        raise DataError("language", f"{language!r} is not known", f"known: {', '.join(CODES)}")
    return not _letters(text) or spoken(text) == CODES[code]


def english_capital(text: str) -> bool:
    """English, and no small letter."""
    return text.isupper() and _english(text)


def english_lowercase(text: str) -> bool:
    """English, and no capital letter."""
    return text.islower() and _english(text)


def capital_word_frequency(text: str, *, capital_relation: str, capital_frequency: int) -> bool:
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
    """English, or too short to tell."""
    return spoken(text) in ("English", "unclear")


def _letters(text: str) -> bool:
    return any(letter.isalpha() for letter in text)
