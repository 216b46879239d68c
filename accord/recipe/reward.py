"""The reward stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from accord.recipe.base import Positive
from accord.recipe.training import Optim, Trained


class Reward(Trained):
    """A reward model: language model with a scalar head, Bradley-Terry on pairs."""

    kind: Literal["reward"] = "reward"
    optim: Optim = Optim()
    ensemble: Positive = 1
    """Members, alike but for their seed (head, order of rows)."""
    disjoint: bool = False
    """Each member learns from its own share of `data`, split by prompt: members of other labels err less alike."""
    folds: int = Field(default=0, ge=0)
    """Cross-validation: accuracy on data not trained on, from this many further fits (0 = none, else at least 2)."""

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("1 fold would leave nothing to train on; use 0 or at least 2")
        return folds
