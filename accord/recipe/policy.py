"""The policy stage: rewards, rollouts, PPO."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from accord.recipe.base import Positive, Probability, Section, as_table
from accord.recipe.training import Lora, Optim, Sources, Trained


class PolicyOptim(Optim):
    lr: float = Field(default=1e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    eps: float = Field(default=1e-5, gt=0)


class RewardTerm(Section):
    """One part of the reward. A bare number stands for its weight."""

    weight: float = 1.0
    combine: Literal["mean", "min", "uwo"] = "mean"
    """How the members of an ensemble become one value; `uwo` is mean - penalty * variance (Coste et al. 2023)."""
    penalty: float = Field(default=0.5, ge=0)
    """Weight of the variance under `uwo`."""
    outside: float = Field(default=0.0, ge=0)
    """Subtracted from the (normalised) reward of an answer outside the training range of a reward stage that keeps one."""


Rewards: TypeAlias = dict[str, Annotated[RewardTerm, as_table("weight")]]


class PpoParams(Section):
    """Params of objective `ppo` (Schulman et al. 2017; Ziegler et al. 2019)."""

    clip: float = Field(default=0.2, gt=0)
    """Range of the probability ratio outside of which it earns nothing more."""
    kl: float = Field(default=0.05, ge=0)
    """Weight beta of the per-token KL penalty in the reward; with `kl_target`, its first value."""
    kl_target: float | None = Field(default=None, gt=0)
    """Nats per answer that an adaptive beta steers to; unset keeps beta fixed."""
    kl_horizon: Positive = 10_000
    """Rollouts over which an adaptive beta reacts."""
    kl_budget: float | None = Field(default=None, gt=0)
    """Largest KL, in nats per answer on held-out prompts, that a kept checkpoint may have."""
    gamma: Probability = 1.0
    """Discount per token."""
    lam: Probability = 0.95
    """Lambda of generalised advantage estimation."""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of the value loss."""
    value_clip: float = Field(default=0.2, ge=0)
    """Range around the old value in which the new one is trusted; 0 switches value clipping off."""
    critic: str = "reward"
    """What the critic starts from: `reward` (the first reward model), `policy` (its trunk, new head), or a model."""
    critic_lr: float | None = Field(default=None, gt=0)
    """Learning rate of the critic; unset means the policy's."""
    critic_warmup: int = Field(default=0, ge=0)
    """Rollout batches in which only the critic learns."""
    missing_eos: float = Field(default=1.0, ge=0)
    """Subtracted from the score of an answer that did not end."""
    whiten: bool = True
    """Shift and scale advantages to mean 0 and (population) variance 1 over the rollout batch."""
    epochs: Positive = 2
    """Passes over each rollout batch."""


class RolloutParams(Section):
    """How a policy stage samples."""

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
    objective: Literal["ppo"] = "ppo"
    rewards: Rewards = Field(min_length=1)
    """What is optimised: reward models (`@reward`, folders) and functions (`file.py:fn`), with weights."""
    eval_rewards: Rewards = {}
    """What chooses the checkpoint on `eval_data`: a reward model the policy never sees. Unset falls back to `rewards`."""
    reference: str | None = None
    """The frozen reference; unset means `model` as it enters the stage."""
    checkpoints: bool = False
    """Keep the policy of every evaluation on `eval_data` in `checkpoints/<step>/`, for curves over training."""
    params: PpoParams = PpoParams()
    rollout: RolloutParams = RolloutParams()
    mix: Annotated[Mix, as_table("data")] | None = None
    """Data to learn from beside the reward."""
    optim: PolicyOptim = PolicyOptim()

    @field_validator("lora")
    @classmethod
    def _exact(cls, lora: Lora | None) -> Lora | None:
        if lora and lora.dropout:
            raise ValueError(
                "dropout must be 0 in a policy stage: what is updated would not be the policy that sampled"
            )
        return lora
