"""The preference stage: DPO and its family."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from accord.recipe.base import Section, Table, one_of
from accord.recipe.training import Optim, Trained


class PreferenceOptim(Optim):
    lr: float = Field(default=1e-6, gt=0)
    warmup: float = Field(default=0.1, ge=0)


class DpoParams(Section):
    """Params of objective `dpo`."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly the policy is held to the reference."""
    sft: float = Field(default=0.0, ge=0)
    """Weight of the chosen answer's own loss, per token, beside the objective."""


class Preference(Trained):
    """Preference optimisation without a reward model."""

    kind: Literal["preference"] = "preference"
    objective: str = "dpo"
    """`dpo`, or a function of yours, `my_loss.py:my_loss`."""
    params: Table = Field(default={}, validate_default=True)
    """Keyword arguments of the objective."""
    reference: str | None = None
    """The frozen reference; unset means `model` as it enters the stage."""
    optim: PreferenceOptim = PreferenceOptim()

    @field_validator("objective")
    @classmethod
    def _known(cls, objective: str) -> str:
        if ".py:" not in objective:
            one_of("objective", objective, ["dpo"], 'or a function of yours, "file.py:fn"')
        return objective

    @field_validator("params")
    @classmethod
    def _fit(cls, params: Table, info: ValidationInfo) -> Table:
        ours = ".py:" not in info.data.get("objective", ".py:")
        return DpoParams.model_validate(params).model_dump() if ours else params
