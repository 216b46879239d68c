"""The policy stage: rewards, rollouts, PPO."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, SerializeAsAny, ValidationInfo, field_validator, model_validator

from accord.recipe.base import Positive, Section, Table, as_table, objective_in
from accord.recipe.policy_params import PARAMS, PRESETS, OwnParams, PolicyParams, PpoParams
from accord.recipe.training import Lora, Optim, Sources, Trained


class PolicyOptim(Optim):
    lr: float = Field(default=1e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    eps: float = Field(default=1e-5, gt=0)


class RewardTerm(Section):
    """One part of the reward. A bare number stands for its weight."""

    weight: float = 1.0
    """What its value counts for in the sum of all parts."""
    combine: Literal["mean", "min", "uwo"] = "mean"
    """How the members of an ensemble become one value; `uwo` is mean - penalty * variance (Coste et al. 2023)."""
    penalty: float = Field(default=0.5, ge=0)
    """Weight of the variance under `uwo`."""
    outside: float = Field(default=0.0, ge=0)
    """Subtracted from the (normalised) reward of an answer outside the training range of a reward stage that keeps one."""


Rewards: TypeAlias = dict[str, Annotated[RewardTerm, as_table("weight")]]


class RolloutParams(Section):
    """How a policy stage samples: from the whole distribution, which is the one that an update compares log-probs of."""

    batch_size: Positive = 64
    """Rollouts per batch: prompts times `group_size`."""
    group_size: Positive = 1
    """Answers per prompt."""
    max_new_tokens: Positive = 128
    """Longest answer, its end token included."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; log-probs of policy and reference carry it too."""

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.batch_size % self.group_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of group_size {self.group_size}")
        return self


class Mix(Section):
    """Data whose likelihood rises beside the reward, so that the policy keeps what it knows (PPO-ptx, Ouyang et al. 2022,
    eq. 2)."""

    data: Sources
    """Demonstrations (of pairs the chosen answer, of rankings the best) and plain text."""
    coef: float = Field(default=1.0, gt=0)
    """Weight of its loss, a mean over tokens, beside the policy's, a mean over tokens as well."""
    batch_size: Positive = 32
    """Rows in each update."""


class Policy(Trained):
    """Reinforcement learning on sampled answers."""

    kind: Literal["policy"] = "policy"
    objective: Annotated[str, objective_in(PARAMS)] = "ppo"
    """`ppo`, `rloo`, `grpo`, `reinforce`, or a function of yours, `my_loss.py:my_loss`."""
    rewards: Rewards = Field(min_length=1)
    """What is optimised: reward models (`@reward`, folders) and functions (`file.py:fn`), with weights."""
    eval_rewards: Rewards = {}
    """What chooses the checkpoint on `eval_data`: a reward model the policy never sees. Unset falls back to `rewards`."""
    reference: str | None = None
    """The frozen reference; unset means `model` as it enters the stage."""
    checkpoints: bool = False
    """Keep the policy of every evaluation on `eval_data` in `checkpoints/<step>/`, for curves over training."""
    params: SerializeAsAny[PolicyParams] = Field(default=PpoParams(), validate_default=True)
    """Params of the objective."""
    patience: Positive | None = None
    """Stop after this many evaluations in a row without a better checkpoint; unset trains to the end."""
    rollout: RolloutParams = RolloutParams()
    mix: Annotated[Mix, as_table("data")] | None = None
    """Data to learn from beside the reward."""
    optim: PolicyOptim = PolicyOptim()

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Table) -> Table:
        """What a preset says, wherever the recipe says nothing."""
        params = given.get("params")
        name = params.get("preset") if isinstance(params, dict) else None
        if not isinstance(name, str) or name not in PRESETS:
            return given
        return given | {key: _filled(given.get(key), table) for key, table in PRESETS[name].items()}

    @field_validator("params", mode="before")
    @classmethod
    def _fit(cls, params: object, info: ValidationInfo) -> PolicyParams:
        section = PARAMS.get(info.data.get("objective", "ppo"), OwnParams)
        if isinstance(params, PolicyParams):
            params = params.model_dump(exclude_unset=True)
        return section.model_validate(params)

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if self.params.advantage in {"leave_one_out", "group"} and self.rollout.group_size < 2:
            raise ValueError(
                f"objective '{self.objective}' compares answers to one prompt: rollout.group_size must be at least 2"
            )
        if isinstance(self.params, PpoParams):
            self._critic(self.params)
        return self

    def _critic(self, params: PpoParams) -> None:
        if self.lora and params.critic == "trunk":
            raise ValueError('with lora the critic shares the frozen weights anyway: params.critic = "policy"')
        if params.critic_layers and (self.lora or params.critic == "trunk"):
            whose = "the policy's" if params.critic == "trunk" else "an adapter's"
            raise ValueError(f"what the critic learns is {whose} weights here: leave params.critic_layers out")

    @field_validator("lora")
    @classmethod
    def _exact(cls, lora: Lora | None) -> Lora | None:
        if lora and lora.dropout:
            raise ValueError(
                "dropout must be 0 in a policy stage: what is updated would not be the policy that sampled"
            )
        return lora


def _filled(given: JsonValue, defaults: Table) -> JsonValue:
    """A table with defaults where it says nothing; what is no table is left for its own mistake."""
    if given is None:
        return defaults
    return {**defaults, **given} if isinstance(given, dict) else given
