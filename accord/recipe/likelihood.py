"""Stages that raise the likelihood of their data: pretrain and sft."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from accord.recipe.base import NotEmpty, Positive, Section
from accord.recipe.training import Fitted, Held, Optim, Sources, Trained


class SftOptim(Optim):
    lr: float = Field(default=2e-5, gt=0)
    warmup: float = Field(default=0.03, ge=0)


class Shape(Section):
    """Size of a model made from scratch (Llama architecture, tied embeddings)."""

    layers: Positive = 4
    width: Positive = 128
    heads: Positive = 4
    feed_forward: Positive = 352
    vocab: int = Field(default=1024, ge=261)
    """Tokens; every byte is one, and there are five special ones."""
    context: int = Field(default=256, ge=2)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads}")
        return self


class Pretrain(Fitted):
    """Next-token loss on plain text: a small base model from scratch, byte-pair tokenizer and Llama, or more of `model`."""

    kind: Literal["pretrain"] = "pretrain"
    model: NotEmpty | None = None
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
