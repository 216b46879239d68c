"""Simulated annotators: they see what is good, not quite clearly, and each has a taste of his own.

An annotator ranks answers by gold + taste + noise (Thurstone 1927). The noise is such that two of them agree on about
73 % of typical comparisons, as people do (Stiennon et al. 2020; Ouyang et al. 2022). Tastes are for length and for an air
of confidence, which the judge of the truth does not share: what a reward model learns from people is not quite gold.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from accord.demo.gold import gold
from accord.sampler import Rollout

NOISE = 0.26  # standard deviation, on the scale of gold
HEDGES = re.compile(r"\b(can(?!['\u2019]t)|often|may|might|perhaps|not quite sure)\b", re.IGNORECASE)  # "can't" is none
BOASTS = re.compile(r"\b(certainly|results in|of course)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Annotator:
    """What one person adds to the truth: per ten words, and per sign of confidence."""

    name: str
    length: float
    confidence: float


ANNOTATORS = (
    Annotator("ada", length=0.03, confidence=0.03),
    Annotator("ben", length=0.0, confidence=0.06),
    Annotator("cem", length=0.05, confidence=0.0),
    Annotator("dot", length=-0.02, confidence=0.04),
)


def ranks(rollouts: Sequence[Rollout], annotator: Annotator, dice: random.Random) -> list[int]:
    """The rank that an annotator gives to each answer to one prompt, 1 for the best; equal texts share a rank."""
    value = {r.text: liking(r, annotator) + dice.gauss(0, NOISE) for r in rollouts}
    return [1 + sum(other > value[r.text] for other in set(value.values())) for r in rollouts]


def liking(rollout: Rollout, annotator: Annotator) -> float:
    """How good an annotator would find an answer on a day without noise."""
    words = min(len(rollout.text.split()), 60)
    signs = len(BOASTS.findall(rollout.text)) - len(HEDGES.findall(rollout.text))
    return gold(rollout).value + annotator.length * words / 10 + annotator.confidence * max(-2, min(2, signs))
