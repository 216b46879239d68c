"""The preference stage: DPO and its family."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from accord.recipe.base import Section, Table, objective_in
from accord.recipe.training import Optim, Trained


class PreferenceOptim(Optim):
    lr: float = Field(default=1e-6, gt=0)
    warmup: float = Field(default=0.1, ge=0)


class DpoParams(Section):
    """Params of `dpo` (Rafailov et al. 2023)."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly the policy is held to the reference."""
    average: bool = False
    """Take log-ratios per token instead of per answer, so that length counts less; beta must then be larger (5 in Tülu 3,
    Lambert et al. 2024)."""
    reference_free: bool = False
    """Leave the reference out: its log-probs count as 0 and it is never opened."""
    sft: float = Field(default=0.0, ge=0)
    """Weight of the better answer's own loss, per token, beside the objective."""


class HingeParams(DpoParams):
    """Params of `hinge` (Zhao et al. 2023; Liu et al. 2023)."""

    beta: float = Field(default=0.1, gt=0)
    """The margin of log-ratios that is asked for is 1 / beta nats."""


class IpoParams(DpoParams):
    """Params of `ipo` (Azar et al. 2023)."""

    beta: float = Field(default=0.1, gt=0)
    """The paper's tau: the margin of log-ratios that is aimed at is 1 / (2 beta) nats."""
    average: bool = False
    """Take log-ratios per token, as TRL does, instead of per answer, as in the equation."""


class CdpoParams(DpoParams):
    """Params of `cdpo` (Mitchell 2023)."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)
    """The share of labels taken to be flipped; 0 is `dpo`."""


class RobustParams(DpoParams):
    """Params of `robust` (Chowdhury et al. 2024)."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)
    """The share of labels that are flipped; 0 is `dpo`."""


class SimpoParams(Section):
    """Params of `simpo` (Meng et al. 2024)."""

    beta: float = Field(default=2.0, gt=0)
    """Scale of the log-probs per token: 2 to 2.5 in the paper, up to 10 in its later models."""
    gamma: float = Field(default=1.0, ge=0)
    """The margin that is asked for, as in the paper's equation; its code has gamma / beta instead, 0.5 to begin with."""
    sft: float = Field(default=0.0, ge=0)
    """Weight of the better answer's own loss, per token, beside the objective."""


class OrpoParams(Section):
    """Params of `orpo` (Hong et al. 2024), which has the better answer's own loss built in."""

    lam: float = Field(default=0.1, ge=0)
    """Weight of the odds ratio beside that loss."""


class KtoParams(Section):
    """Params of `kto` (Ethayarajh et al. 2024)."""

    beta: float = Field(default=0.1, gt=0)
    """How soon gains and losses saturate: 0.01 to 0.1 after fine-tuning on the same data, up to 0.5 from an aligned model."""
    desirable: float = Field(default=1.0, gt=0)
    """Weight of good answers. Where they are few or many, choose the weights so that desirable x good answers is 1 to 1.5
    times undesirable x bad answers (the paper's eq. 9)."""
    undesirable: float = Field(default=1.0, gt=0)
    """Weight of bad answers."""
    sft: float = Field(default=0.0, ge=0)
    """Weight of the good answers' own loss, per token, beside the objective."""


PREFERENCE_PARAMS: dict[str, type[Section]] = {
    "dpo": DpoParams,
    "hinge": HingeParams,
    "ipo": IpoParams,
    "cdpo": CdpoParams,
    "robust": RobustParams,
    "simpo": SimpoParams,
    "orpo": OrpoParams,
    "kto": KtoParams,
}


class Preference(Trained):
    """Preference optimisation without a reward model."""

    kind: Literal["preference"] = "preference"
    objective: Annotated[str, objective_in(PREFERENCE_PARAMS)] = "dpo"
    """`dpo`, `hinge`, `ipo`, `cdpo`, `robust`, `simpo`, `orpo` on pairs; `kto` on rated answers, where a pair counts as a good
    and a bad one; or a function of yours, `my_loss.py:my_loss`."""
    params: Table = Field(default={}, validate_default=True)
    """Keyword arguments of the objective."""
    reference: str | None = None
    """The frozen reference; unset means `model` as it enters the stage. `simpo` and `orpo` have none."""
    optim: PreferenceOptim = PreferenceOptim()

    @field_validator("params")
    @classmethod
    def _fit(cls, params: Table, info: ValidationInfo) -> Table:
        section = PREFERENCE_PARAMS.get(info.data.get("objective", ""))
        return section.model_validate(params).model_dump() if section else params
