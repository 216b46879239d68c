"""What is true about the garden: an exact judge, for reporting only. Nothing that trains or chooses may see it."""

from __future__ import annotations

import re

from accord.demo import CLOSINGS, PLANTS, QUESTIONS, SENTENCES
from accord.sampler import Rollout
from accord.score import Score


def gold(rollout: Rollout) -> Score:
    """1 for the fact that was asked for, alone or with a closing; 0.5 where more is said beside it; else 0."""
    plant, kind = asked(rollout.prompt[-1]["content"])
    true = {text.format(plant=plant, value=PLANTS[plant][kind]) for text in SENTENCES[kind]}
    said = [part for part in re.split(r"(?<=[.!])\s+", rollout.text) if part]
    if rollout.finish != "stop" or not true & set(said):
        return Score(0.0, why="the fact is missing or the answer does not end")
    alone = all(part in true or part in {closing.strip() for closing in CLOSINGS} for part in said)
    return Score(1.0 if alone and len(said) <= 2 else 0.5, why="" if alone else "more is said than was asked")


def asked(question: str) -> tuple[str, str]:
    """The plant and the kind of fact that a question of this world is about."""
    return next(
        (plant, kind)
        for plant in PLANTS
        for kind, wordings in QUESTIONS.items()
        if any(question.endswith(wording.format(plant=plant)) for wording in wordings)
    )
