"""What a model of some shape holds and computes: where it learns, and where it is asked.

Layers but the first and the last are alike, so the model is counted with one and with two, and the rest follows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from transformers import PretrainedConfig, PreTrainedModel

from accord import attention, lora, norm
from accord.data.batch import Batch
from accord.model import TRAINED, checkpoint_layers, learn_last, narrow, skeleton
from accord.outputs import Output, Roles, packs, token_kl
from accord.plan.counting import Counter, Work, size_of, without_memory
from accord.recipe import Lora


@dataclass(frozen=True)
class Pass:
    """What it takes to run a model once."""

    work: Work
    kept: float = 0.0  # bytes that stay: what the backward pass needs, or keys and values
    # Bytes at most beside them: a chunk of logits, gradients on their way, what lives for a moment.
    working: float = 0.0

    def before(self, other: Pass) -> Pass:
        """One model forwards and backwards, then the other."""
        most = max(self, other, key=lambda each: each.kept + each.working)
        return replace(most, work=self.work + other.work)

    def beside(self, other: Pass) -> Pass:
        """Both models forwards, then both backwards."""
        return Pass(self.work + other.work, self.kept + other.kept, max(self.working, other.working))


@dataclass(frozen=True)
class Conditions:
    """How models are run."""

    precision: str  # "float32" or "bfloat16"
    fused: bool  # attention is one kernel, which keeps no probabilities, as on a GPU
    checkpointing: bool = False  # layers are computed again in the backward pass

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def entered(self) -> ExitStack:
        """A context in which they hold."""
        stack = ExitStack()
        stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"))
        stack.enter_context(attention.fused(self.fused))
        return stack


@dataclass(frozen=True)
class Shape:
    """A language model, or with `scorer` one with a scalar head; all its weights learn, with `lora` an adapter's, with
    `learning` those of so many of its last layers."""

    config: PretrainedConfig
    scorer: bool = False
    lora: Lora | None = None
    learning: int | None = None

    def made(self, layers: int | None = None, learning: int | None = None) -> PreTrainedModel:
        """The model, with so many layers in place of its own, of which so many learn, on the meta device."""
        config = copy.deepcopy(self.config)
        if self.scorer:
            config.num_labels = 1
        if layers is not None:
            config.num_hidden_layers = layers
        model = skeleton(config, "plan", scorer=self.scorer)
        norm.quicken(model)
        if self.lora:
            model.requires_grad_(False)
            lora.attach(model, TRAINED, lora.new(model, self.lora), dropout=self.lora.dropout)
            for weight in lora.own_parameters(lora.bind(model, TRAINED)):
                weight.requires_grad_(True)
        if self.learning:
            learn_last(model, learning or self.learning)
        return model

    @cached_property
    def key(self) -> Hashable:
        """What tells it from other shapes, but for the folder that it is read from."""
        return self.config.to_json_string(), self.scorer, self.lora and self.lora.model_dump_json(), self.learning

    @cached_property
    def packs(self) -> bool:
        """Whether it reads tokens without padding."""
        return packs(self.made(1))

    @cached_property
    def weights(self) -> int:
        """Bytes of all weights."""
        return sum(map(size_of, self.made().parameters()))

    def inner(self, under: Conditions) -> int:
        """Bytes of all weights of a model that is only read, as `Engine.place` keeps an inner one."""
        model = self.made()
        if under.dtype == torch.bfloat16 and packs(model):
            narrow(model, under.dtype)
        return sum(map(size_of, model.parameters()))

    @cached_property
    def trained(self) -> int:
        """Bytes of those that learn."""
        return sum(size_of(weight) for weight in self.made().parameters() if weight.requires_grad)


def learns(shape: Shape, batch: Batch, outputs: Sequence[Output], under: Conditions) -> Pass:
    """A forward and a backward pass, beside gradients that earlier ones have left."""

    def count(model: PreTrainedModel) -> Pass:
        roles = Roles(scorer=model) if shape.scorer else Roles(policy=model)
        if under.checkpointing:
            checkpoint_layers(model)
        for weight in model.parameters():
            weight.grad = torch.empty_like(weight) if weight.requires_grad else None
        counter = Counter(model)
        with counter, under.entered():
            total = sum(values.sum() for values in roles(batch, outputs).values())
        kept = counter.alive
        with counter, under.entered():
            torch.as_tensor(total).backward()
        return Pass(counter.work, kept, counter.peak - kept)

    return at_depth(shape, ("learns", *_read(batch), *outputs, under), count)


def looks(shape: Shape, batch: Batch, outputs: Sequence[Output], under: Conditions) -> Pass:
    """A forward pass alone."""

    def count(model: PreTrainedModel) -> Pass:
        roles, counter = Roles(scorer=model) if shape.scorer else Roles(policy=model), Counter(model)
        with counter, torch.no_grad(), under.entered():
            roles(batch, outputs)
        return Pass(counter.work, working=counter.peak)

    return at_depth(replace(shape, learning=None), ("looks", *_read(batch), *outputs, under), count)


def compares(shape: Shape, reference: Shape, batch: Batch, under: Conditions) -> Pass:
    """The KL from a reference, taken to have as many layers."""

    def count(model: PreTrainedModel) -> Pass:
        other = without_memory(reference.made(model.config.num_hidden_layers))
        counter = Counter(model, other)
        with counter, torch.no_grad(), under.entered():
            token_kl(model, other, batch)
        return Pass(counter.work, working=counter.peak)

    return at_depth(shape, ("compares", reference.key, *_read(batch), under), count)


def _read(batch: Batch) -> tuple[bytes, ...]:
    """All of a batch that what a model computes depends on."""
    return tuple(x.numpy().tobytes() for x in (batch.tokens, batch.attend, batch.train, batch.group))


_COUNTED: dict[Hashable, Pass] = {}  # a recipe has the same model read the same batch many times


def at_depth(shape: Shape, what: Hashable, count: Callable[[PreTrainedModel], Pass]) -> Pass:
    """What `count` comes to for all layers, counted once for each `what`."""

    def counted(layers: int, learning: int | None = None) -> Pass:
        return count(without_memory(shape.made(layers, learning)))

    key, every, learning = (shape.key, what), shape.config.num_hidden_layers, shape.learning
    if key not in _COUNTED:
        # Below the first weight that learns nothing runs backwards, and of the last layer not all is computed: in each count.
        if learning is None:
            least = counted(1)
            further = [(counted(2), every - 1)]
        else:
            least = counted(2, 1)
            further = [(counted(3, 1), every - learning - 1), (counted(3, 2), learning - 1)]
        found = replace(least, working=further[-1][0].working)
        for more, times in further:
            work = found.work + (more.work + least.work * -1.0) * times
            found = replace(found, work=work, kept=found.kept + (more.kept - least.kept) * times)
        _COUNTED[key] = found
    return _COUNTED[key]
