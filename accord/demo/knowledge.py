"""What is true in the embedded world: concepts of semiconductor test, and the ways to say each fact about them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["problem", "method"]
Field: TypeAlias = Literal["is", "like", "cause", "effect", "fix", "check"]

# The ways to say a fact in a sentence: {x} is the concept, {p} the fact's phrase. The first is plain, the rest vary in
# length and in how sure they sound.
SENTENCES: dict[Kind, dict[Field, tuple[str, ...]]] = {
    "problem": {
        "is": ("{x} is {p}.", "{x} means {p}."),
        "like": ("{x} is like {p}.", "Think of {p}."),
        "cause": ("One cause of {x} is {p}.", "{x} often comes from {p}.", "{p} can lead to {x}."),
        "effect": ("One effect of {x} is {p}.", "{x} can lead to {p}.", "{x} results in {p}."),
        "fix": ("To prevent {x}, {p}.", "It helps to {p}."),
        "check": ("{x} is measured with {p}.", "Engineers check {x} with {p}."),
    },
    "method": {
        "is": ("{x} is {p}.", "{x} means {p}."),
        "like": ("{x} is like {p}.", "Think of {p}."),
        "cause": ("One reason for {x} is {p}.", "{x} is often needed because of {p}."),
        "effect": ("One effect of {x} is {p}.", "{x} can lead to {p}.", "{x} results in {p}."),
        "fix": ("To get {x} right, {p}.", "It helps to {p}."),
        "check": ("{x} is checked with {p}.", "Engineers verify {x} with {p}."),
    },
}


@dataclass(frozen=True)
class Concept:
    """A thing that can be asked about, with the phrases that are true of it."""

    name: str
    kind: Kind
    phrases: dict[Field, tuple[str, ...]]


@dataclass(frozen=True)
class Fact:
    """One true phrase: the `index`-th of a field of a concept."""

    concept: str
    field: Field
    index: int


def capital(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


@cache
def concepts() -> dict[str, Concept]:
    """Every concept by its name, as the files in facts/ have them."""
    found: dict[str, Concept] = {}
    for file in ("problems.toml", "methods.toml"):
        with Path(__file__).with_name("facts").joinpath(file).open("rb") as handle:
            for row in tomllib.load(handle)["concept"]:
                phrases: dict[Field, tuple[str, ...]] = {
                    "is": (row["is"],),
                    "like": (row["like"],),
                    "cause": tuple(row["causes"]),
                    "effect": tuple(row["effects"]),
                    "fix": tuple(row["fixes"]),
                    "check": tuple(row["checks"]),
                }
                found[row["name"]] = Concept(row["name"], row["kind"], phrases)
    return found


def facts(concept: str, field: Field) -> list[Fact]:
    """The facts of one field of a concept."""
    return [Fact(concept, field, index) for index in range(len(concepts()[concept].phrases[field]))]


def phrase(fact: Fact) -> str:
    """The fact's phrase, as it stands in the middle of a sentence."""
    return concepts()[fact.concept].phrases[fact.field][fact.index]


def sentences(fact: Fact) -> list[str]:
    """Every sentence that says the fact."""
    wordings = SENTENCES[concepts()[fact.concept].kind][fact.field]
    return [capital(wording.format(x=fact.concept, p=phrase(fact))) for wording in wordings]


def item(fact: Fact) -> str:
    """The fact as an item of a list: its phrase alone."""
    return capital(phrase(fact)) + "."


@cache
def sayings() -> dict[str, tuple[Fact, bool]]:
    """Every way to say every fact, as `plain` has it -> the fact, and whether it is a sentence."""
    found: dict[str, tuple[Fact, bool]] = {}
    for concept in concepts().values():
        for field, phrases in concept.phrases.items():
            for index in range(len(phrases)):
                fact = Fact(concept.name, field, index)
                found |= {plain(text): (fact, True) for text in sentences(fact)}
                # An imperative is a sentence as it stands; other phrases are not.
                found[plain(item(fact))] = (fact, field == "fix")
    return found


def plain(text: str) -> str:
    """A sentence as it is looked up: without its full stop, the first letter small; nothing else is forgiven."""
    text = re.sub(r"[.!]$", "", text.strip())
    return text[:1].lower() + text[1:]
