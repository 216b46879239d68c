"""Evaluation suites: which prompts, judged by what. One's own is a function that returns a Suite."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from accord.data.records import Message, Meta, Record
from accord.errors import RecipeError
from accord.estimate import Estimate
from accord.functions import is_reference, load_function, running
from accord.sampler import Rollout
from accord.score import Score, Scorer, careful


@dataclass(frozen=True)
class Answered:
    """Answers to a suite's records, in their order, with what each scorer thought of them.

    Answers of one cluster are not independent: standard errors are clustered by it.
    """

    rollouts: Sequence[Rollout]
    scores: Mapping[str, Sequence[Score]]
    clusters: Sequence[int]


@dataclass(frozen=True)
class Question:
    """A choice among texts that is read off their likelihood. Without a prompt the options are whole texts."""

    prompt: list[Message]
    options: list[str]
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True)
class Likelihoods:
    """What a model says of a question's options: log-probability in nats and length in tokens of each."""

    question: Question
    logp: list[float]
    tokens: list[int]


@dataclass(frozen=True)
class Suite:
    """Prompts and what judges the answers to them; questions that are answered by likelihood.

    The mean of each scorer is reported under its name. `whole` adds numbers that are no mean over single answers, `grade`
    those of the questions; a model that tells no likelihoods (a server, ready answers) has none of the latter.
    """

    name: str
    records: Sequence[Record] = ()
    scorers: dict[str, Scorer] = field(default_factory=dict)
    whole: Callable[[Answered], Mapping[str, Estimate]] | None = None
    questions: Sequence[Question] = ()
    grade: Callable[[Sequence[Likelihoods]], Mapping[str, Estimate]] | None = None


Maker: TypeAlias = Callable[[Sequence[Record], Scorer | None], Suite]

SUITES = (  # each a file of this folder, with a function of the same name
    "prompts",
    "demo",
    "ifeval",
    "xstest",
    "harmful",
    "toxicity",
    "hallucination",
    "truthfulqa",
    "bbq",
    "crows_pairs",
    "occupations",
    "sycophancy",
    "confidence",
    "persona",
)


def resolve(name: str, where: str) -> Maker:
    """A built-in suite by name, or a function of the user's `(records, reward) -> Suite`."""
    if not is_reference(name):
        if name not in SUITES:
            raise RecipeError(where, f"unknown suite '{name}'", f'known: {", ".join(SUITES)}, or "file.py:fn"')
        return cast(Maker, getattr(importlib.import_module(f"accord.suites.{name}"), name))
    function = load_function(name, where)

    def made(records: Sequence[Record], reward: Scorer | None) -> Suite:
        with running(name):
            suite = function(records, reward)
        if not isinstance(suite, Suite):
            raise RecipeError(where, f"{name} returned {type(suite).__name__}", "return an accord.suites.Suite")
        own = {key: scorer if scorer is reward else careful(scorer, name) for key, scorer in suite.scorers.items()}
        return replace(suite, scorers=own)

    return made
