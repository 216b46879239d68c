"""Every knob of accord, as one tree of pydantic models: what a recipe may say, its defaults, and what each key means.

Reading a recipe file is recipe_file.py. Nothing heavier than pydantic is imported, so a mistake is answered at once.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Table: TypeAlias = dict[str, JsonValue]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of a recipe: unknown keys are errors, attribute docstrings are the documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def unknown(what: str, given: str, known: list[str], more: str = "") -> list[str]:
    """What to say about a name that is not known: the nearest that is, and all of them."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    said = [f"unknown {what} '{given}'" if given else f"{what} is missing"]
    said += [f"did you mean '{near[0]}'?"] if near else []
    return [*said, f"known: {', '.join(known) or '(none)'}{' ' + more if more else ''}"]


def one_of(what: str, given: str, known: list[str], more: str = "") -> None:
    """ValueError, for pydantic, unless `given` is known."""
    if given not in known:
        raise ValueError("; ".join(unknown(what, given, known, more)))


# ---------------------------------------------------------------------------------------------------- data and training


def _as_table(key: str) -> BeforeValidator:
    """Let `value` stand for `{ key = value }`."""
    return BeforeValidator(lambda value: value if isinstance(value, dict | BaseModel) else {key: value})


class Source(Section):
    """Where records come from. A bare string stands for `{ source = "..." }`."""

    source: str
    """Hub id, file (.jsonl, .json, .csv, .parquet, .txt, also .gz), `file.py:fn`, or embedded data (`accord:demo/chats`)."""
    split: str = "train"
    """Split of a hub dataset."""
    config: str | None = None
    """Configuration of a hub dataset."""
    map: dict[str, str] = {}
    """Our field = your column, for rows in a form of your own: `{ prompt = "question", chosen = "best" }`."""
    limit: Positive | None = None
    """Read at most this many records (after `part`)."""
    on_error: Literal["stop", "skip"] = "stop"
    """A row that does not hold what it should (an empty answer, a missing column): `stop` with its line number, or `skip`
    it and count it."""
    part: str | None = Field(default=None, pattern=r"^\d{1,3}:\d{1,3}$")
    """Percent range of a hash of the first user turn, `"0:80"`: parts that do not overlap never share a conversation."""
    weight: float = Field(default=1.0, gt=0)
    """How often each record comes in a pass: 2 is twice, 0.25 takes a quarter of them, by a hash of the first user turn."""


AnySource: TypeAlias = Annotated[Source, _as_table("source")]
Sources: TypeAlias = Annotated[
    list[AnySource], Field(min_length=1), BeforeValidator(lambda value: value if isinstance(value, list) else [value])
]
# A number is a fraction, anything else is sources; told apart first, so that a mistake is answered for what was meant.
Held: TypeAlias = Annotated[
    Annotated[Fraction, Tag("fraction")] | Annotated[Sources, Tag("sources")],
    Discriminator(lambda value: "fraction" if isinstance(value, int | float) else "sources"),
]


class Optim(Section):
    """Optimizer, schedule and batch size."""

    name: Literal["adamw", "sgd"] = "adamw"
    """`sgd` is plain gradient descent without momentum."""
    lr: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the rate falls to 0 after the warm-up; `constant` stays."""
    warmup: float = Field(default=0.0, ge=0)
    """Steps of linear warm-up, or a fraction of all steps when under 1."""
    batch_size: Positive = 32
    """Rows, pairs or rollouts per optimizer step, over all micro-batches and processes."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data (1 when neither `epochs` nor `steps` is given)."""
    steps: Positive | None = None
    """Optimizer steps; for policy stages, rollout batches."""
    clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0 switches clipping off."""
    skip: float = Field(default=0.0, ge=0)
    """Leave out updates whose loss or gradient norm is this many standard deviations above the last 128 (6 is usual; 0 =
    never); `skipped` counts them."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW, plain L2 for SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    eps: float = Field(default=1e-8, gt=0)
    """Adam's epsilon; the original PPO code uses 1e-5."""
    micro_tokens: Positive = 4096
    """Token budget of one forward and backward pass, padding included. Changes memory and speed, never the gradient."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; keep one of them")
        return self


class SftOptim(Optim):
    lr: float = Field(default=2e-5, gt=0)
    warmup: float = Field(default=0.03, ge=0)


class PreferenceOptim(Optim):
    lr: float = Field(default=1e-6, gt=0)
    warmup: float = Field(default=0.1, ge=0)


class PolicyOptim(Optim):
    lr: float = Field(default=1e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    eps: float = Field(default=1e-5, gt=0)


class Compute(Section):
    """Facts of the machine. They change speed and rounding, not the method."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is autocast: weights, optimizer and losses stay float32. `auto` takes it on GPUs that have it."""
    threads: Positive | None = None
    """CPU threads of each process; unset shares PyTorch's choice among them."""
    processes: Positive = 1
    """Processes on a CPU, started with the run: for small models two are faster than one with twice the threads. Each holds
    every model. On several GPUs start the run with `accelerate launch` instead."""


# --------------------------------------------------------------------------------------------------------------- stages


class Stage(Section):
    """What every stage has."""

    seed: int | None = None
    """Of new heads, orders and samples; unset takes the recipe's. Reward models that check one another need different ones."""


class Fitted(Stage):
    """What every stage has that fits a model."""

    save: Positive = 50
    """Steps between saved states, from which an interrupted stage resumes."""
    eval: Positive | None = None
    """Steps between evaluations on `eval_data`; unset means about ten over the run, more than there are the end only."""


class Lora(Section):
    """Low-rank adapters in place of all weights (Hu et al. 2021)."""

    r: Positive = 16
    """Rank."""
    alpha: float | None = Field(default=None, gt=0)
    """The adapter counts alpha / r times; unset means 2 r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the adapter's input while training. Results then depend on how a batch is split; policy stages have none."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Last parts of the names of the layers that get one; `all-linear` is every linear layer but the heads."""

    @property
    def scale(self) -> float:
        """What the adapter's output is multiplied with."""
        return 2.0 if self.alpha is None else self.alpha / self.r


class Trained(Fitted):
    """What every stage has that fits a model to records."""

    model: str
    """Where to start: hub id, folder, or `@stage`."""
    data: Sources
    """Training records: one source or a list of them."""
    eval_data: Held | None = None
    """Held-out records, or a fraction of `data` split off by a hash of the first user turn. Nothing is held out unless set."""
    max_tokens: Positive | None = None
    """Longest row, in tokens; unset takes the model's context."""
    truncate: Literal["drop", "cut"] = "drop"
    """Rows over `max_tokens`: `drop` leaves them out, `cut` keeps their start and drops those left without any answer.
    Both are counted and shown. Pairs are never cut: half an answer cannot be compared."""
    lora: Lora | None = None
    """Train an adapter beside frozen weights; `{}` takes the defaults. An incoming adapter of the same form goes on
    learning, and the reference is the model as it came in. Unset trains all weights, an incoming adapter merged into them."""


class Shape(Section):
    """Size of a model made from scratch (Llama architecture, tied embeddings)."""

    layers: Positive = 4
    width: Positive = 128
    heads: Positive = 4
    feed_forward: Positive = 352
    vocab: Positive = 1024
    context: Positive = 256

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads}")
        return self


class Pretrain(Fitted):
    """Next-token loss on plain text: a small base model from scratch, byte-pair tokenizer and Llama, or more of `model`."""

    kind: Literal["pretrain"] = "pretrain"
    model: str | None = None
    """Where to go on from: hub id, folder, or `@stage`; unset makes a new model of `shape`."""
    data: Sources
    """Text records."""
    eval_data: Held | None = None
    """Held-out text, or a fraction of `data`."""
    shape: Shape = Shape()
    """Size of a new model."""
    optim: SftOptim = SftOptim(lr=3e-3, batch_size=32)


class Sft(Trained):
    """Supervised fine-tuning on demonstrations; the loss is on the assistant's tokens only."""

    kind: Literal["sft"] = "sft"
    optim: SftOptim = SftOptim()


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


class RewardTerm(Section):
    """One part of the reward. A bare number stands for its weight."""

    weight: float = 1.0
    combine: Literal["mean", "min", "uwo"] = "mean"
    """How the members of an ensemble become one value; `uwo` is mean - penalty * variance (Coste et al. 2023)."""
    penalty: float = Field(default=0.5, ge=0)
    """Weight of the variance under `uwo`."""


Rewards: TypeAlias = dict[str, Annotated[RewardTerm, _as_table("weight")]]


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
    mix: Annotated[Mix, _as_table("data")] | None = None
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


class Sampling(Section):
    """How an evaluation samples."""

    max_new_tokens: Positive = 128
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampled answers; each prompt is also answered greedily."""


class Evaluate(Stage):
    """Any number of models, side by side on the same prompts."""

    kind: Literal["evaluate"] = "evaluate"
    models: dict[str, str] = Field(min_length=1)
    """Name in the table = hub id, folder or `@stage`."""
    baseline: str = ""
    """The model that win rate and KL refer to; unset means the first."""
    data: Sources
    """Prompts; where records bring an answer, perplexity is measured on it."""
    rewards: Rewards = {}
    """What judges the answers: held-out reward models or functions."""
    suites: list[str] = ["prompts"]
    """Names under which results are reported: `prompts`, or a function of yours (`file.py:fn`)."""
    sampling: Sampling = Sampling()
    curves: dict[str, str] = {}
    """Name = `@stage` of policy stages with `checkpoints`: reward and gold of each over KL, in curves.json."""
    best_of: int = Field(default=0, ge=0)
    """Beside each curve, best-of-n from where the policy started, for n up to this (0 = none)."""
    max_tokens: Positive | None = None
    """Longest prompt with its answer, in tokens; unset takes the models' context."""
    micro_tokens: Positive = 4096
    """Token budget of one forward pass."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        object.__setattr__(self, "baseline", self.baseline or next(iter(self.models)))
        one_of("baseline", self.baseline, list(self.models))
        return self


AnyStage: TypeAlias = Pretrain | Sft | Reward | Preference | Policy | Evaluate
KINDS: dict[str, type[Stage]] = {
    "pretrain": Pretrain,
    "sft": Sft,
    "reward": Reward,
    "preference": Preference,
    "policy": Policy,
    "evaluate": Evaluate,
}


class Recipe(Section):
    """What to do, stage after stage in the order of the file."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Names the run folder, `runs/<name>`."""
    seed: int = 0
    compute: Compute = Compute()
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Where metrics go beside metrics.jsonl. Weights & Biases sends them out, but with WANDB_MODE=offline."""
    stage: dict[str, Annotated[AnyStage, Field(discriminator="kind")]] = Field(min_length=1)
