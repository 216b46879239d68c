"""The select stage: best of n."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.recipe.base import Positive
from accord.recipe.evaluate import Sampling
from accord.recipe.policy import Rewards
from accord.recipe.training import Sources, Stage


class Select(Stage):
    """Best-of-n: sample answers, keep by reward, leave records for later stages (`data = "@name"`).

    With `keep = "best"` and an sft stage after it this is rejection-sampling fine-tuning; with `pair` and a preference stage
    one round of on-policy preference optimisation. Answers that did not end are never kept.
    """

    kind: Literal["select"] = "select"
    model: str
    """Who answers: hub id, folder, or `@stage`."""
    data: Sources
    """Prompts."""
    rewards: Rewards = Field(min_length=1)
    """What chooses: reward models (`@reward`, folders) and functions (`file.py:fn`), with weights."""
    n: Annotated[int, Field(ge=2)] = 8
    """Answers to each prompt."""
    keep: Literal["best", "pair", "ranking"] = "best"
    """`best` leaves a demonstration, `pair` the best against the worst, `ranking` all, ordered by reward."""
    above: float | None = None
    """Leave out prompts whose best answer does not earn more than this."""
    sampling: Sampling = Sampling()
    """How answers are sampled."""
    max_tokens: Positive | None = None
    """Longest prompt with its answer, in tokens; unset takes the model's context."""
    micro_tokens: Positive = 4096
    """Token budget of one forward pass of the reward models."""
