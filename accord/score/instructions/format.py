"""Kinds about marks in an answer that can be found: titles, lists, highlights, sections, placeholders."""

from __future__ import annotations

import json
import re

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def json_format(text: str) -> bool:
    """The whole answer is JSON, with or without the fence of a code block."""
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A title in double angular brackets, `<<title>>`."""
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """At least so many `*highlights*` or `**bold ones**`, none of them over more than a line."""
    single = [found.strip("*") for found in re.findall(r"\*[^\n*]*\*", text)]
    double = [found[2:-2] for found in re.findall(r"\*\*[^\n*]*\*\*", text)]
    return sum(bool(found.strip()) for found in single + double) >= num_highlights


def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `* ` or `-`."""
    stars = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE)) == num_bullets


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many headings of the form `Section 1`."""
    return len(re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", text)) >= num_sections


def constrained_response(text: str) -> bool:
    """One of the three answers that IFEval allows is in the text."""
    return any(option in text for option in OPTIONS)


def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, `[address]`."""
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """A postscript that begins with the marker; `P.S.` and `P.P.S` may have spaces between."""
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, re.escape(marker.lower())), text.lower()) is not None
