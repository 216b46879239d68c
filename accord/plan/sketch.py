"""A stage before it runs: what each of its phases holds in memory, and the work of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from torch import Tensor

from accord.data.batch import Batch, collate, order
from accord.data.packed import pack
from accord.data.rows import Group, Row
from accord.outputs import Output
from accord.plan.answering import answers
from accord.plan.counting import Work
from accord.plan.shapes import Conditions, Pass, Shape, compares, learns, looks
from accord.recipe import Optim
from accord.sampler import Ask

SEEN = 16  # batches that stand for all of a stage
Model = tuple[Shape, Sequence[Output]]  # and what it is asked for
Count = Callable[[Shape, Batch, Sequence[Output], Conditions], Pass]


@dataclass(frozen=True)
class Phase:
    """What one process holds in a phase of a stage, in bytes."""

    name: str = ""
    base: float = 0.0  # Python and libraries; of a GPU CUDA's own
    data: float = 0.0  # records and rows
    weights: float = 0.0  # of models that learn
    frozen: float = 0.0  # of models that stand still
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    working: float = 0.0  # a chunk of logits, and whatever else lives for a moment
    cache: float = 0.0  # of a sampler: keys and values, and its second copy of the weights
    allocator: float = 0.0  # freed and kept

    @property
    def total(self) -> float:
        """All of it."""
        return sum(value for value in vars(self).values() if not isinstance(value, str))


@dataclass
class Sketch:
    """The phases of a stage, and the work of one of the processes that share it."""

    under: Conditions
    processes: int
    budget: int  # tokens of a micro-batch
    phases: list[Phase] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)  # by what it is for

    def add(self, name: str, work: Work) -> None:
        """More work of a kind."""
        self.work[name] = self.work.get(name, Work()) + work

    def learn(
        self, held: Phase, models: Sequence[Model], batches: Sequence[Batch], times: float, *, later: bool = False,
        apart: bool = False,
    ) -> None:  # fmt: skip
        """`times` updates on batches like these; `later` says that gradients are there before, `apart` that one model's pass
        ends before the next begins."""
        passes = self._run("update", learns, models, batches, times, apart=apart)
        phase = replace(held, name="update", activations=passes.kept, working=passes.working)
        if not later and not apart and max(len(self._micros(models, batch)) for batch in batches) <= self.processes:
            early = passes.kept + passes.working > held.gradients  # they come while activations go
            phase = replace(phase, gradients=0.0) if early else replace(phase, activations=0.0, working=0.0)
        self.phases.append(phase)

    def look(self, name: str, held: Phase, models: Sequence[Model], batches: Sequence[Batch], times: float) -> None:
        """`times` batches like these, forward passes alone."""
        seen = self._run(name, looks, models, batches, times)
        self.phases.append(replace(self._without_gradients(held), name=name, working=seen.working))

    def compare(self, held: Phase, shape: Shape, reference: Shape, batches: Sequence[Batch], times: float) -> None:
        """The KL from a reference on `times` batches like these."""

        def count(model: Shape, batch: Batch, _: Sequence[Output], under: Conditions) -> Pass:
            return compares(model, reference, batch, under)

        seen = self._run("KL", count, [(shape, ())], batches, times)
        self.phases.append(replace(self._without_gradients(held), name="KL", working=seen.working))

    def answer(
        self, held: Phase, shape: Shape, prompts: Sequence[int], most: int, *, each: int = 1, times: float = 1.0,
        precision: str = "",
    ) -> None:  # fmt: skip
        """`times` over: answers of `most` tokens, `each` so many to every one of some prompts of so many tokens.

        `precision` is that of products where it is not the run's.
        """
        under = replace(self.under, precision=precision or self.under.precision)
        asks = [Ask(prompt=[], tokens=[i] * size, number=0) for i, size in enumerate(prompts) for _ in range(each)]
        call = answers(shape, asks[:: self.processes], most, under)
        self.add("rollout", call.work * times)
        phase = self._without_gradients(held)
        self.phases.append(replace(phase, name="rollout", cache=call.kept, working=call.working))

    def _without_gradients(self, held: Phase) -> Phase:
        """What is held between updates, of several processes with the buckets that they exchange gradients in."""
        return replace(held, gradients=held.gradients / 2 if self.processes > 1 else 0.0)

    def optimize(self, trained: float, optim: Optim, times: float) -> None:
        """What each process does by itself in an update: norm and scale of the gradient, then weights and moments."""
        self.add("update", Work(moved=trained * (3 + 3 + (4 if optim.name == "adamw" else 0))) * times)

    def copy(self, size: float, times: float = 1.0) -> None:
        """So many bytes read from files, or written."""
        self.add("files", Work(moved=3 * size) * times)

    def _run(
        self, name: str, count: Count, models: Sequence[Model], batches: Sequence[Batch], times: float, *,
        apart: bool = False,
    ) -> Pass:  # fmt: skip
        """The largest pass, with the work of `times` batches added, which goes with their tokens."""
        packed = models[0][0].packs
        micros = [batch.select(rows) for batch in batches for rows in self._micros(models, batch)]
        sizes = [(pack(micro).tokens if packed else micro.tokens).numel() for micro in micros]
        largest = max(range(len(micros)), key=lambda i: sizes[i])
        most = self._together(count, models, micros[largest], apart)
        work = replace(most.work * (sum(sizes) / sizes[largest]), calls=most.work.calls * len(micros))
        self.add(name, work * (times / len(batches) / self.processes))
        return most

    def _micros(self, models: Sequence[Model], batch: Batch) -> list[Tensor]:
        return batch.micro(self.budget, self.processes, packed=all(shape.packs for shape, _ in models))

    def _together(self, count: Count, models: Sequence[Model], micro: Batch, apart: bool) -> Pass:
        first, *others = [count(shape, micro, outputs, self.under) for shape, outputs in models]
        for other in others:
            first = first.before(other) if apart else first.beside(other)
        return first


def holding(models: Sequence[Shape], optim: Optim, *, frozen: float = 0.0, processes: int = 1) -> Phase:
    """What stays in memory while models learn. Several processes exchange gradients in buckets as large as those."""
    trained = sum(shape.trained for shape in models)
    return Phase(
        weights=sum(shape.weights for shape in models),
        frozen=frozen,
        gradients=trained * (2 if processes > 1 else 1),
        optimizer=trained * (2 if optim.name == "adamw" else 0),
    )


def some(groups: Sequence[Group], size: int, *, seed: int, steps: float = math.inf) -> list[Batch]:
    """The first batches of a stage, a few at most, without what only objectives read."""
    count = int(min(SEEN, steps, math.ceil(len(groups) / size)))
    chosen = islice(order(len(groups), size, seed=seed), count)
    return [bare([groups[i] for i in index]) for index in chosen]


def share(batches: Sequence[Batch], count: int) -> float:
    """How many batches like these `count` groups are."""
    return count * len(batches) / sum(len(batch.group.unique()) for batch in batches)


def bare(groups: Sequence[Group]) -> Batch:
    """Groups as a batch of tokens and masks alone."""
    return collate([[Row(row.tokens, row.train) for row in group] for group in groups], 0)
