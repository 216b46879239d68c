"""Kinds about an answer as a whole: how it begins and ends, what it repeats, what it must not hold anywhere."""

from __future__ import annotations


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the request, word for word; upper and lower case are the same."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(text: str) -> bool:
    """Two different answers, set apart by six asterisks; empty ones may stand first and last alone."""
    parts = [part.strip() for part in text.split("******")]
    said = [part for part in parts if part]
    return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]


def end_checker(text: str, *, end_phrase: str) -> bool:
    """The answer ends with the phrase; a quotation mark may follow."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """The answer is wrapped in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


def no_comma(text: str) -> bool:
    """No comma anywhere."""
    return "," not in text
