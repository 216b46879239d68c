"""Metrics to TensorBoard and Weights & Biases, where a recipe asks for it. metrics.jsonl is written in any case.

Weights & Biases goes by its own environment: WANDB_MODE=offline keeps everything on this machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from accord import processes
from accord.errors import RecipeError
from accord.recipe import Recipe

Track: TypeAlias = Callable[[str, int, Mapping[str, float]], None]  # a series' name, its step, its numbers
PACKAGES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}


def check_trackers(names: Sequence[str]) -> None:
    """RecipeError for a tracker whose package is not installed."""
    for name in names:
        _package(name)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(PACKAGES[name])
    except ImportError as error:
        raise RecipeError("trackers", f"{name} cannot be imported ({error})", f"pip install {name}") from None


@contextmanager
def trackers(recipe: Recipe, folder: Path) -> Iterator[Track]:
    """Send numbers to all trackers of a recipe until the block ends."""
    with ExitStack() as stack:
        opened = [stack.enter_context(OPEN[name](recipe, folder)) for name in recipe.trackers]

        def track(series: str, step: int, numbers: Mapping[str, float]) -> None:
            for send in opened:
                send(series, step, numbers)

        yield track


@contextmanager
def tensorboard(recipe: Recipe, folder: Path) -> Iterator[Track]:
    """Event files under `tensorboard/` in the run folder, a folder for each series."""
    package, writers = _package("tensorboard"), {}

    def send(series: str, step: int, numbers: Mapping[str, float]) -> None:
        if not processes.first():
            return
        if series not in writers:  # what a stopped run has said of later steps counts no more
            writers[series] = package.SummaryWriter(str(folder / "tensorboard" / series), purge_step=step)
        for name, value in numbers.items():
            writers[series].add_scalar(name, value, step)

    try:
        yield send
    finally:
        for writer in writers.values():
            writer.close()


@contextmanager
def wandb(recipe: Recipe, folder: Path) -> Iterator[Track]:
    """One run of the project that has the recipe's name; a run that goes on goes on there too."""
    if not processes.speaks():
        yield lambda *_: None
        return
    package = _package("wandb")
    try:
        run = package.init(
            project=recipe.name, name=folder.name, id=f"{recipe.name}-{folder.name}", dir=str(folder), resume="allow",
            config=recipe.model_dump(mode="json"),
        )  # fmt: skip
    except package.Error as error:
        raise RecipeError("trackers", f"wandb does not begin ({error})", "wandb login, or WANDB_MODE=offline") from None
    known: set[str] = set()

    def send(series: str, step: int, numbers: Mapping[str, float]) -> None:
        if series not in known:  # every series counts its own steps
            known.add(series)
            run.define_metric(f"{series}/*", step_metric=f"{series}/step")
        run.log({f"{series}/step": step, **{f"{series}/{name}": value for name, value in numbers.items()}})

    try:
        yield send
    finally:
        run.finish()


OPEN = {"tensorboard": tensorboard, "wandb": wandb}
