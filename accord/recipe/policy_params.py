"""Params of the policy objectives, and presets that set them as systems of record do."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from accord.recipe.base import Positive, Probability, Section, Table

Advantage: TypeAlias = Literal["gae", "leave_one_out", "group", "baseline"]
Estimator: TypeAlias = Literal["k1", "k2", "k3"]
Level: TypeAlias = Literal["token", "answer"]
Length: TypeAlias = Literal["answer", "token", "constant"]


class PolicyParams(Section):
    """What the params of all policy objectives have in common."""

    advantage: ClassVar[Advantage]

    preset: Literal["accord", "oai2019", "instructgpt", "nplus"] | None = None
    """Defaults of a known system for all that is not given here, in `rollout` and in `optim`: see `PRESETS`."""
    kl: float = Field(default=0.05, ge=0)
    """Weight beta of the KL from the reference; with `kl_target` or `kl_end`, its first value."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where it counts: as a price on each token's reward, or as a term of the loss."""
    kl_estimator: Estimator = "k1"
    """Schulman's k1, k2 or k3. In the reward k1 leads to the optimum (k2 and k3 collapse), in the loss k2 of whole answers (k1
    holds nothing, k3 goes elsewhere)."""
    kl_level: Level = "token"
    """In the loss: the estimate of each token, or that of the whole answer."""
    kl_end: float | None = Field(default=None, ge=0)
    """Where a beta ends that goes there in equal steps over the run."""
    kl_target: float | None = Field(default=None, gt=0)
    """Nats per answer that beta steers to; unset keeps beta fixed."""
    kl_control: Literal["adaptive", "constraint"] = "adaptive"
    """How: `adaptive` is proportional control (Ziegler et al. 2019), `constraint` makes beta the multiplier of KL <=
    `kl_target`, 0 while that holds."""
    kl_horizon: Positive = 10_000
    """Rollouts over which an adaptive beta reacts."""
    kl_rate: float = Field(default=0.01, gt=0)
    """How much a multiplier grows for each nat too many."""
    kl_budget: float | None = Field(default=None, gt=0)
    """Largest KL, in nats per answer on held-out prompts, that a kept checkpoint may have."""
    kl_stop: float | None = Field(default=None, gt=0)
    """Leave out what is left of a rollout batch's updates once `policy/approx_kl`, KL(old || new), is over this."""
    entropy: float = Field(default=0.0, ge=0)
    """Weight of an entropy bonus, per token."""
    missing_eos: float = Field(default=1.0, ge=0)
    """What an answer that did not end costs: subtracted from its score."""
    missing_eos_how: Literal["subtract", "replace"] = "subtract"
    """`replace` makes minus `missing_eos` its score (lm-human-preferences)."""
    length_penalty: float = Field(default=0.0, ge=0)
    """Subtracted from the score for each token of the answer."""
    reward_norm: bool = False
    """Shift and scale scores to mean 0 and variance 1 over all rollouts so far."""
    reward_clip: float | None = Field(default=None, gt=0)
    """Largest size of a score, after `reward_norm` and before penalties."""
    whiten: bool = False
    """Shift and scale advantages to mean 0 and variance 1 over the rollout batch."""
    bessel: bool = False
    """Whiten with the sample's variance (n - 1, as TRL did) instead of the population's (n, as OpenAI did)."""
    logp_temperature: bool = True
    """Recompute log-probs at the sampling temperature. Without it the policy that is updated is not the one that sampled."""
    epochs: Positive = 1
    """Passes over each rollout batch."""

    @model_validator(mode="after")
    def _one_control(self) -> Self:
        if self.kl_end is not None and self.kl_target is not None:
            raise ValueError("kl_end and kl_target both steer beta; keep one of them")
        return self


class Clipped(PolicyParams):
    clip: float = Field(default=0.2, gt=0)
    """Range of the probability ratio outside of which it earns nothing more."""
    epochs: Positive = 2


class PpoParams(Clipped):
    """Params of objective `ppo` (Schulman et al. 2017; Ziegler et al. 2019)."""

    advantage = "gae"

    gamma: Probability = 1.0
    """Discount per token."""
    lam: Probability = 0.95
    """Lambda of generalised advantage estimation."""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of the value loss."""
    value_clip: float = Field(default=0.2, ge=0)
    """Range around the old value in which the new one is trusted; 0 switches value clipping off."""
    critic: str = "reward"
    """What the critic starts from: `reward` (the first reward model), `policy` (a copy, new head), `trunk` (a head on the
    policy itself, whose weights then learn values too: half the memory, and a worse policy where values matter), or a model."""
    critic_layers: Positive | None = None
    """How many of the critic's last layers learn, for less memory and a faster update; unset, all. Half of them may do where
    the critic starts from the reward model and that alone rewards."""
    critic_lr: float | None = Field(default=None, gt=0)
    """Learning rate of the critic; unset means the policy's."""
    critic_warmup: int = Field(default=0, ge=0)
    """Rollout batches in which only the critic learns."""
    score_at: Literal["last", "after"] = "last"
    """Which position earns the score: the `last` token sampled, or, of an answer that ended with room to spare, the one `after`
    its end token, with a value of its own (summarize_from_feedback_details, TRL)."""
    whiten: bool = True
    whiten_rewards: bool = False
    """Scale each token's reward to variance 1 over the rollout batch, its mean kept."""


class RlooParams(Clipped):
    """Params of objective `rloo` (Ahmadian et al. 2024)."""

    advantage = "leave_one_out"

    epochs: Positive = 1


class GrpoParams(Clipped):
    """Params of objective `grpo` (Shao et al. 2024)."""

    advantage = "group"

    kl_in: Literal["reward", "loss"] = "loss"
    kl_estimator: Estimator = "k3"
    std: bool = True
    """Divide by the deviation of the group's rewards. Without it and with `length = "constant"` this is Dr. GRPO."""
    length: Length = "answer"
    """`answer`: tokens average within their answer; `token`: all tokens alike; `constant`: a sum over `max_new_tokens`."""
    epochs: Positive = 1


class ReinforceParams(PolicyParams):
    """Params of objective `reinforce` (Williams 1992), whose baseline is the mean reward of the others in the batch."""

    advantage = "baseline"


class OwnParams(PpoParams):
    """Params of an objective of the user's: PPO's credit, and what the function takes."""

    model_config = ConfigDict(extra="allow")


PARAMS: dict[str, type[PolicyParams]] = {
    "ppo": PpoParams, "rloo": RlooParams, "grpo": GrpoParams, "reinforce": ReinforceParams
}  # fmt: skip

# What systems of record do, by the sources named; sizes, steps and learning rates depend on the model and stay yours.
PRESETS: dict[str, dict[str, Table]] = {
    "accord": {},
    # openai/lm-human-preferences cbfd210 (Ziegler et al. 2019), which samples past the end token to a fixed length.
    "oai2019": {
        "params": {
            "kl": 0.15, "kl_target": 6.0, "kl_horizon": 10_000, "clip": 0.2, "gamma": 1.0, "lam": 0.95, "value_coef": 0.1,
            "value_clip": 0.2, "critic": "trunk", "epochs": 4, "whiten": True, "whiten_rewards": True,
            "missing_eos": 1.0, "missing_eos_how": "replace",
        },
        "rollout": {"temperature": 0.7},
        "optim": {"schedule": "linear", "eps": 1e-5, "clip": 0.0},
    },
    # Ouyang et al. 2022, appendix C.4; its pre-training gradients are the table `mix`.
    "instructgpt": {
        "params": {"kl": 0.02, "clip": 0.2, "gamma": 1.0, "lam": 0.95, "critic": "reward", "epochs": 1},
        "rollout": {"temperature": 1.0},
        "optim": {"schedule": "constant", "warmup": 10},
    },
    # vwxyzjn/summarize_from_feedback_details ee77a9a (Huang et al. 2024, https://arxiv.org/abs/2403.17031).
    "nplus": {
        "params": {
            "kl": 0.05, "clip": 0.2, "gamma": 1.0, "lam": 0.95, "value_coef": 0.1, "value_clip": 0.2, "critic": "reward",
            "epochs": 4, "whiten": True, "score_at": "after", "missing_eos": 1.0, "missing_eos_how": "replace",
        },
        "rollout": {"temperature": 0.7},
        "optim": {"schedule": "linear", "eps": 1e-5, "clip": 0.0},
    },
}  # fmt: skip
