"""Kinds about how long an answer is, in words, sentences and paragraphs."""

from __future__ import annotations

import re

from accord.score.instructions.amount import Relation, enough
from accord.score.instructions.sentences import sentences


def number_words(text: str, *, relation: Relation, num_words: int) -> bool:
    """Words are runs of letters, digits and underscores: `don't` is two."""
    return enough(len(re.findall(r"\w+", text)), relation, num_words)


def number_sentences(text: str, *, relation: Relation, num_sentences: int) -> bool:
    """Sentences as Punkt counts them."""
    return enough(len(sentences(text)), relation, num_sentences)


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, set apart by `***`; empty ones may stand first and last alone."""
    first, *rest = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    inner, last = rest[:-1], rest[-1:]
    return all(inner) and bool(first) + len(inner) + sum(map(bool, last)) == num_paragraphs


def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """So many paragraphs, set apart by an empty line, and the n-th of them begins with the word.

    As in IFEval empty paragraphs are not counted, but have a place in the order.
    """
    parts = [part.strip() for part in text.split("\n\n")]
    count = sum(map(bool, parts))
    if count != num_paragraphs or not 1 <= nth_paragraph <= count or not parts[nth_paragraph - 1]:
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()
