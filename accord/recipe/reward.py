"""The reward stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from accord.recipe.base import Fraction, Positive, Section, Table, as_table, objective_in
from accord.recipe.training import Optim, Sources, Trained


class BradleyTerryParams(Section):
    """Params of objective `bradley_terry`."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the labels that are taken to be the wrong way round."""
    margin: bool = False
    """Ask of the better answer to be better by the pair's `margin` (Llama 2). Every pair needs one; rankings have none."""
    centre: float = Field(default=0.0, ge=0)
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards near 0; 0.01 is usual (TRL's center_rewards_coefficient)."""
    ties: bool = False
    """Two answers of one rank are a comparison with the soft label 1/2; else they are none. (Pairs have `prob`.)"""


class NoParams(Section):
    """Params of an objective that has none."""


REWARD_PARAMS: dict[str, type[Section]] = {
    "bradley_terry": BradleyTerryParams,
    "plackett_luce": NoParams,
    "best_of_k": NoParams,
    "regression": NoParams,
}


class Normalise(Section):
    """What rewards are measured on after training, so that accord's scores come out near mean 0 and variance 1."""

    on: Literal["data", "samples", "demonstrations"] = "data"
    """`data`: training rows. `samples`: answers of a policy to training prompts, what a policy stage starts with.
    `demonstrations`: their mean reward becomes 0, and the spread is that of training rows (InstructGPT)."""
    data: Sources | None = None
    """The demonstrations."""
    policy: str | None = None
    """Whose answers `samples` are; unset means `model`."""
    max_new_tokens: Positive = 128
    """Longest sampled answer."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if (self.on == "demonstrations") != (self.data is not None):
            raise ValueError('on = "demonstrations" and their data go together: give both or neither')
        if self.policy is not None and self.on != "samples":
            raise ValueError('a policy answers for on = "samples" alone')
        return self


class Reward(Trained):
    """A reward model: language model with a scalar head, by default Bradley-Terry on pairs or rankings."""

    kind: Literal["reward"] = "reward"
    objective: Annotated[str, objective_in(REWARD_PARAMS)] = "bradley_terry"
    """`bradley_terry` (pairs, or every comparison of a ranking), `plackett_luce` (rankings as successive choices),
    `best_of_k` (the best answer of a ranking against all), `regression` (ratings), or a function, `my_loss.py:my_loss`."""
    params: Table = Field(default={}, validate_default=True)
    """Keyword arguments of the objective."""
    split_rankings: bool = False
    """Every comparison of a ranking is a pair of its own, shuffled with all others, instead of the ranking being one element
    of the batch: what InstructGPT found to overfit, for comparison. Of `bradley_terry` and functions."""
    pooling: Literal["last", "mean"] | None = None
    """Where the reward is read: at the `last` token, or as the `mean` of the head over the answer's tokens, which accord
    alone computes: plain transformers always reads the last. Unset takes that of `model`, `last` for a new head."""
    normalise: Annotated[Normalise, as_table("on")] = Normalise()
    """What `reward_mean` and `reward_std` are measured on."""
    training_range: bool = False
    """Keep beside each model how its hidden states of training answers are spread. Policy stages then log the share of
    answers outside of it (`reward/outside`): further off than 99 % of held-out answers, or of training answers set aside."""
    optim: Optim = Optim()
    ensemble: Positive = 1
    """Members, alike but for their seed (head, order of rows)."""
    disjoint: bool = False
    """Each member learns from its own share of `data`, split by prompt: members of other labels err less alike."""
    folds: int = Field(default=0, ge=0)
    """Cross-validation: accuracy on data not trained on, from this many further fits (0 = none, else at least 2)."""
    learning_curve: list[Fraction] = []
    """Shares of `data`, each within the next, that further fits learn from and are judged by on `eval_data`, to see what
    more labels would bring: `[0.125, 0.25, 0.5]`. They take `optim` as it is: passes shrink with the data, `steps` do not."""

    @field_validator("params")
    @classmethod
    def _fit(cls, params: Table, info: ValidationInfo) -> Table:
        known = REWARD_PARAMS.get(info.data.get("objective", ""))
        return known.model_validate(params).model_dump() if known else params

    @field_validator("split_rankings")
    @classmethod
    def _splits(cls, split: bool, info: ValidationInfo) -> bool:
        objective = info.data.get("objective", ".py:")
        if split and objective != "bradley_terry" and ".py:" not in objective:
            raise ValueError(f"{objective} reads whole rankings; leave split_rankings out, or use bradley_terry")
        return split

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("1 fold would leave nothing to train on; use 0 or at least 2")
        return folds

    @field_validator("learning_curve")
    @classmethod
    def _growing(cls, shares: list[float], info: ValidationInfo) -> list[float]:
        if shares and info.data.get("eval_data") is None:
            raise ValueError("needs eval_data, which every share is judged by")
        if shares != sorted(set(shares)):
            raise ValueError("shares must grow, as in [0.125, 0.25, 0.5]")
        return shares
