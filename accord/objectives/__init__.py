"""What is optimised: pure functions `(out, batch, **params) -> Loss` of tensors.

A loss returns sums, never means. The engine divides each by the number of its units over all micro-batches and processes,
so that splitting a batch never changes its gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, cast, get_args

from torch import Tensor

from accord.data.batch import Batch, Unit
from accord.errors import DataError, RecipeError
from accord.functions import is_reference, load_function, running
from accord.outputs import OF_SCORER, Output, Outputs

Sum: TypeAlias = tuple[Tensor, Unit]  # a 0-d sum, and what it is to be averaged over
Term: TypeAlias = tuple[Tensor, Unit, float]  # the same, and its weight in the total loss


@dataclass(frozen=True)
class Loss:
    """Named terms of a loss, and metrics beside it: sums over the units of one micro-batch.

    `extremes` are the largest (`..._max`) or smallest (`..._min`) of something.
    """

    terms: dict[str, Term]
    metrics: dict[str, Sum] = field(default_factory=dict)
    extremes: dict[str, Tensor] = field(default_factory=dict)

    def reported(self, *, part: bool = False) -> dict[str, Sum]:
        """What is to be averaged and shown beside the loss: metrics, and the terms where there is more than one, be it in
        another `part`."""
        terms = self.terms if part or len(self.terms) > 1 else {}
        return {**{name: (value, unit) for name, (value, unit, _) in terms.items()}, **self.metrics}


class Function(Protocol):
    """The signature of an objective."""

    def __call__(self, out: Outputs, batch: Batch, /, **params: object) -> Loss: ...


@dataclass(frozen=True)
class Objective:
    """A loss function and what it needs: outputs of the forward pass, columns of the batch."""

    function: Callable[..., Loss]
    outputs: Sequence[Output] = ("logp",)
    needs: Sequence[str] = ()
    unless: Mapping[str, str] = field(default_factory=dict)  # a column, and the parameter that makes it needless
    reference: str = ""  # `file.py:fn` of one of the user's
    # Losses that add up to this one, each of one model: one after the other they need less memory than together.
    parts: Sequence[Objective] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def needed(self, params: Mapping[str, object]) -> list[str]:
        """The columns of the batch that are read under these parameters."""
        return [column for column in self.needs if not params.get(self.unless.get(column, ""))]

    def divided(self, params: Mapping[str, object]) -> list[tuple[Objective, dict[str, object]]]:
        """Its parts, each with the outputs of its model and those of the parameters that it takes; TypeError where none takes
        one."""
        if foreign := params.keys() - keywords(self).keys():
            raise TypeError(f"{self.name}() takes no {', '.join(sorted(foreign))}")
        found: list[tuple[Objective, dict[str, object]]] = []
        for part in self.parts:
            of_scorer, taken = OF_SCORER.issuperset(part.outputs), keywords(part)
            outputs = [name for name in self.outputs if (name in OF_SCORER) == of_scorer]
            found.append((replace(part, outputs=outputs), {k: v for k, v in params.items() if k in taken}))
        return found

    def __call__(self, out: Outputs, batch: Batch, **params: object) -> Loss:
        if not self.reference:
            return self.function(out, batch, **params)
        with running(self.reference):
            found = self.function(out, batch, **params)
        _check_loss(found, self.reference)
        return found


def _check_loss(found: object, reference: str) -> None:
    """DataError unless an objective of the user's has returned sums with their units."""
    if not isinstance(found, Loss):
        raise DataError(reference, f"returned {type(found).__name__}", "an objective returns an accord.Loss")
    for held, size in ((found.terms, 3), (found.metrics, 2)):
        for name, part in cast("dict[str, object]", held).items():
            if not isinstance(part, tuple) or len(part) != size or part[1] not in get_args(Unit):
                form = "a term is (sum, unit, weight), a metric (sum, unit)"
                raise DataError(
                    reference, f"'{name}' is no sum with its unit", form, f"units: {', '.join(get_args(Unit))}"
                )


def objective(
    *, outputs: Sequence[Output] = ("logp",), needs: Sequence[str] = (), unless: Mapping[str, str] | None = None,
    parts: Sequence[Objective] = (),
) -> Callable[[Callable[..., Loss]], Objective]:  # fmt: skip
    """Declare what an objective needs: `outputs` of the forward pass and columns (`needs`) of the batch.

    `unless` names, for a column that is not always read, the parameter that makes it needless when it is set. `parts` as in
    `Objective`.
    """
    return lambda function: Objective(function, outputs, needs, unless or {}, parts=parts)


def token_metrics(out: Outputs, batch: Batch) -> dict[str, Sum]:
    """Of the train tokens, where the pass was asked for them: the mean entropy of their distributions, and the share that were
    the likeliest."""
    known = {"entropy": "entropy", "token_accuracy": "likeliest"}
    return {
        name: ((out.values[of].detach() * batch.train).sum(), "token") for name, of in known.items() if of in out.values
    }


def resolve(name: str, known: dict[str, Objective], where: str) -> Objective:
    """A built-in objective by name, or one of the user's by reference (`my_loss.py:my_loss`)."""
    if not is_reference(name):
        return known[name]
    found = load_function(name, where)
    made = found if isinstance(found, Objective) else Objective(cast(Callable[..., Loss], found))
    return replace(made, reference=name)


def keywords(chosen: Objective) -> dict[str, inspect.Parameter]:
    """The parameters of an objective, by name: those of its parts, if it has any."""
    if chosen.parts:
        return {name: parameter for part in chosen.parts for name, parameter in keywords(part).items()}
    every = inspect.signature(chosen.function).parameters
    return {name: parameter for name, parameter in every.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def check_params(chosen: Objective, params: dict[str, object], where: str) -> None:
    """RecipeError unless `params` fit the objective's signature."""
    allowed = keywords(chosen)
    for name in params:
        if name not in allowed:
            raise RecipeError(f"{where}.{name}", f"objective '{chosen.name}' has no such parameter",
                              f"known: {', '.join(allowed) or '(none)'}")  # fmt: skip
    for name, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and name not in params:
            raise RecipeError(f"{where}.{name}", f"objective '{chosen.name}' needs it", "add it to the recipe")
