"""Data, optimizer, machine, adapters: what the stages that train have in common."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from accord.recipe.base import Fraction, NotEmpty, Positive, Section, Seed, as_table, formed


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
    part: Annotated[str, formed(r"\d{1,3}:\d{1,3}", 'a range in percent, as in "0:80"')] | None = None
    """Percent range of a hash of the first user turn, `"0:80"`: parts that do not overlap never share a conversation."""
    weight: float = Field(default=1.0, gt=0)
    """How often each record comes in a pass: 2 is twice, 0.25 takes a quarter of them, by a hash of the first user turn."""


AnySource: TypeAlias = Annotated[Source, as_table("source")]
Sources: TypeAlias = Annotated[
    list[AnySource], Field(min_length=1), BeforeValidator(lambda value: value if isinstance(value, list) else [value])
]
# A number is a fraction, anything else is sources; told apart first, so that a mistake is answered for what was meant.
Held: TypeAlias = Annotated[
    Annotated[Fraction, Tag("fraction")] | Annotated[Sources, Tag("sources")],
    Discriminator(lambda value: "fraction" if isinstance(value, int | float) else "sources"),
]


Decay = Annotated[float, Field(ge=0, lt=1)]


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
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's decay rates."""
    eps: float = Field(default=1e-8, gt=0)
    """Adam's epsilon; the original PPO code uses 1e-5."""
    micro_tokens: Positive = 4096
    """Token budget of one forward and backward pass, with padding where a model reads it. Changes memory and speed, never the
    gradient."""
    checkpointing: bool = False
    """Keep the input of every layer alone and compute the layer again in the backward pass: less memory, about a third
    slower."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; keep one of them")
        return self


class Compute(Section):
    """Facts of the machine. They change speed and rounding, not the method."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is autocast: weights, optimizer and losses stay float32. `auto` takes it on GPUs that have it."""
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """CPU threads of each process; unset shares PyTorch's choice among them."""
    processes: Positive = 1
    """Processes on a CPU, started with the run: for small models two are faster than one with twice the threads. Each holds
    every model. On several GPUs start the run with `accelerate launch` instead."""


class Stage(Section):
    """What every stage has."""

    seed: Seed | None = None
    """Of new heads, orders and samples; unset takes the recipe's. Reward models that check one another need different ones."""


class Fitted(Stage):
    """What every stage has that fits a model."""

    save: Positive = 50
    """Steps between saved states, from which an interrupted stage resumes."""
    eval: Positive | None = None
    """Steps between evaluations on `eval_data`; unset means about ten over the run, more than there are the end only."""


def _layers(value: object) -> object:
    """ValueError unless this is all layers or some, in words that name both."""
    some = isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
    if value != "all-linear" and not some:
        raise ValueError('this must be "all-linear", or a list of names as in ["q_proj", "v_proj"]')
    return value


class Lora(Section):
    """Low-rank adapters in place of all weights (Hu et al. 2021)."""

    r: Positive = 16
    """Rank."""
    alpha: float | None = Field(default=None, gt=0)
    """The adapter counts alpha / r times; unset means 2 r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the adapter's input while training. Results then depend on how a batch is split; policy stages have none."""
    targets: Annotated[Literal["all-linear"] | list[str], BeforeValidator(_layers)] = "all-linear"
    """Last parts of the names of the layers that get one; `all-linear` is every linear layer but the heads."""

    @property
    def scale(self) -> float:
        """What the adapter's output is multiplied with."""
        return 2.0 if self.alpha is None else self.alpha / self.r


class Trained(Fitted):
    """What every stage has that fits a model to records."""

    model: NotEmpty
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
