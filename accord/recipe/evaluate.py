"""The evaluate stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from accord.recipe.base import NotEmpty, Positive, Probability, Section, one_of
from accord.recipe.policy import Rewards
from accord.recipe.training import Sources, Stage


class Decoding(Section):
    """What shapes the distribution of the next token beside the temperature, in the order given here, and what ends an
    answer beside end tokens. As set, everything stays as it is. The definitions are those of transformers."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Makes tokens of prompt and answer less likely to come again: a positive logit is divided by it, a negative one
    multiplied (Keskar et al. 2019); 1.1 is usual, under 1 asks for repetition. Greedy answers heed it too."""
    top_k: int = Field(default=0, ge=0)
    """Draw from this many most likely tokens (0 = from all)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the fewest most likely tokens that together are at least this likely (Holtzman et al. 2020)."""
    min_p: Probability = 0.0
    """Leave out tokens less likely than this times the most likely one: 0.05 cuts the tail where the model is sure, and
    little where it is not."""
    stop: Annotated[tuple[NotEmpty, ...], BeforeValidator(lambda x: [x] if isinstance(x, str) else x)] = ()
    """An answer ends where it says one of these texts, which does not count as part of it: `["\\n\\n", "User:"]`."""


class Sampling(Decoding):
    """How an evaluation or a selection samples."""

    max_new_tokens: Positive = 128
    """Longest answer, its end token included."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampled answers; an evaluation also answers each prompt greedily."""


class Evaluate(Stage):
    """Any number of models, side by side on the same prompts."""

    kind: Literal["evaluate"] = "evaluate"
    models: dict[str, NotEmpty] = Field(min_length=1)
    """Name in the table = hub id, folder or `@stage`."""
    baseline: str = Field(default="", validate_default=True)
    """The model that win rate and KL refer to; unset means the first."""
    data: Sources
    """Prompts; where records bring an answer, perplexity is measured on it."""
    rewards: Rewards = {}
    """What judges the answers: held-out reward models or functions."""
    suites: list[str] = Field(default=["prompts"], min_length=1)
    """Names under which results are reported: `prompts`, or a function of yours (`file.py:fn`)."""
    sampling: Sampling = Sampling()
    """How answers are sampled. Those behind `curves` come from the whole distribution at temperature 1, which KL is of."""
    curves: dict[str, str] = {}
    """Name = `@stage` of policy stages with `checkpoints`: reward and gold of each over KL, in curves.json."""
    best_of: int = Field(default=0, ge=0)
    """Beside each curve, best-of-n from where the policy started, for n up to this (0 = none)."""
    max_tokens: Positive | None = None
    """Longest prompt with its answer, in tokens; unset takes the models' context."""
    micro_tokens: Positive = 4096
    """Token budget of one forward pass."""

    @field_validator("baseline")
    @classmethod
    def _known(cls, baseline: str, info: ValidationInfo) -> str:
        models = list(info.data.get("models", [baseline]))  # not there where they are a mistake themselves
        one_of("model", baseline or models[0], models)
        return baseline or models[0]
