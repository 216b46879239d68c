"""The loop. Every stage that trains comes through here."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TypeAlias, cast

import torch
from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from accord import demo, processes
from accord.console import Progress as Line
from accord.console import say
from accord.data.batch import Batch, collate, order, step_count
from accord.data.loaded import Loaded, load
from accord.data.prepare import Asked, Limits, prompts
from accord.data.rows import Group, Rows
from accord.engine import Engine, Learner, Part, Progress, reduction, schedule
from accord.errors import Interrupted, RecipeError
from accord.health import NotFinite
from accord.model import context_of, load_config
from accord.objectives import Objective
from accord.outputs import Roles
from accord.pitfalls import live
from accord.recipe import Evaluate, Fitted, Optim, Policy, Preference, Pretrain, Reward, Select, Sft, Trained
from accord.run import Run, StageFolder, write_file
from accord.track import Track


@dataclass
class Context:
    """What a stage is given: its recipe, its folder, and the machine."""

    run: Run
    engine: Engine
    name: str
    folder: StageFolder
    stop: threading.Event
    track: Track

    @property
    def where(self) -> str:
        """How messages name the stage."""
        return f"stage.{self.name}"

    @property
    def seed(self) -> int:
        """The stage's seed, or the recipe's."""
        own = self.run.recipe.stage[self.name].seed
        return self.run.recipe.seed if own is None else own

    def path(self, reference: str) -> str:
        """The folder or hub id that a model reference stands for."""
        if reference.startswith("@"):
            return str(self.run.stage(reference[1:]).model)
        if reference.startswith("accord:"):
            return str(demo.model(reference))
        return reference

    def members(self, reference: str) -> list[str]:
        """The same for each member of an ensemble."""
        if reference.startswith("@"):
            return [str(path) for path in self.run.stage(reference[1:]).members()]
        return (
            [str(path) for path in StageFolder(Path(reference).parent).members()]
            if _is_model(reference)
            else [reference]
        )


def _is_model(reference: str) -> bool:
    """Whether a folder is a stage's `model/`, whose further members stand beside it."""
    return Path(reference).name == "model" and Path(reference).is_dir()


@dataclass
class Step:
    """One turn of the loop: batches that are each an optimizer step, and numbers to log beside the objective's."""

    batches: list[Batch]
    numbers: dict[str, float] = field(default_factory=dict)
    params: dict[str, object] = field(default_factory=dict)  # on top of the stage's
    mix: list[Part] = field(default_factory=list)  # one beside each batch, or none
    enough: Callable[[dict[str, float]], bool] | None = None  # after an update with such numbers, leave out the rest


Evaluation: TypeAlias = Callable[[int], dict[str, float]]
# Adds to batches that count together what couples their rows.
Complete: TypeAlias = Callable[[Sequence[Batch]], list[Batch]]
# Sees to it that groups, by their places, have all their numbers before they become a batch.
Ready: TypeAlias = Callable[[Sequence[int]], object]
Offline: TypeAlias = Pretrain | Sft | Reward | Preference  # stages that fit to records as they are


def fit(
    context: Context,
    learner: Learner,
    steps: Iterator[Step],
    objective: Objective,
    *,
    params: dict[str, object],
    stage: Fitted,
    optim: Optim,
    total: int,
    progress: Progress,
    evaluate: Evaluation | None = None,
    done: Callable[[], bool] = lambda: False,
    tags: dict[str, int] | None = None,
) -> None:
    """Train until `total` steps or all is `done`: update, log, evaluate, save. `tags` go into every line of metrics.jsonl.

    Raises Interrupted, with the state saved, when the process is told to stop.
    """
    label = context.name + "".join(f" {key} {value}" for key, value in (tags or {}).items())
    line = Line(label, total)
    every = stage.eval or max(1, total // 10)
    wanted = every <= total or isinstance(stage, Policy)  # whose start is a candidate for the checkpoint to keep
    settings = cast("dict[str, JsonValue]", stage.model_dump(mode="json"))
    watch, looks = live.watch(context.folder, settings, progress.step), max(every, total // live.LOOKS)
    if evaluate and progress.step == 0 and wanted:
        _log(context, 0, found := evaluate(0), tags)
        watch.add(0, found)
    if progress.step == 0:
        live.look(context.folder, watch, label, step=0, total=total)
    while progress.step < total and not done():
        began = time.perf_counter()
        step = next(steps)
        updating = time.perf_counter()
        numbers = _update(context, learner, step, objective, params, schedule(optim, progress.step, total))
        if step.numbers:
            numbers["time/update"] = time.perf_counter() - updating
        progress.step += 1
        seconds = time.perf_counter() - began
        tokens = sum(int(batch.attend.sum()) for batch in [*step.batches, *(part.batch for part in step.mix)])
        numbers |= {**step.numbers, "seconds": seconds, "tokens_per_second": tokens / seconds}
        if evaluate and (progress.step % every == 0 or progress.step == total):
            numbers |= evaluate(progress.step)
        _log(context, progress.step, numbers, tags)
        watch.add(progress.step, numbers)
        line.step(progress.step, numbers)
        if progress.step % looks == 0 or progress.step == total:
            live.look(context.folder, watch, label, step=progress.step, total=total)
        stopping = any(processes.gather(context.stop.is_set()))
        if stopping or (progress.step % stage.save == 0 and progress.step < total):
            progress.sizes = context.folder.sizes()
            context.engine.save_state(learner, progress, context.folder.state)
        if stopping:
            raise Interrupted(context.where, f"stopped at step {progress.step} of {total}, state saved",
                              "run the same command to go on")  # fmt: skip


def fit_groups(
    context: Context,
    stage: Offline,
    roles: Roles,
    objective: Objective,
    groups: Sequence[Group],
    held: Sequence[Group],
    *,
    pad: int,
    seed: int,
    params: dict[str, object] | None = None,
    tags: dict[str, int] | None = None,
    complete: Complete = list,
    ready: Ready | None = None,
) -> dict[str, float]:
    """Fit models to groups of rows, in passes of shuffled batches; returns the last evaluation on `held`.

    `complete` is called on each batch just before its update, and on all held-out ones together before their evaluation;
    `ready` on the places of its groups before it is made.
    """
    engine, optim = context.engine, stage.optim
    learner = engine.learner(roles, optim)
    progress = engine.load_state(learner, context.folder.state)
    context.folder.cut_back(progress.sizes)
    batches = [collate(held[i : i + 64], pad) for i in range(0, len(held), 64)]

    def evaluate(_: int) -> dict[str, float]:
        whole = complete(batches)
        found = engine.evaluate(learner.roles, whole, objective, params or {}, micro_tokens=optim.micro_tokens)
        if stage.kind in {"sft", "pretrain"}:
            found["perplexity"] = math.exp(min(found["loss"], 700))
        progress.memory["last"] = found
        return {f"eval/{name}": value for name, value in found.items()}

    fit(
        context,
        learner,
        steps(groups, pad, optim.batch_size, seed=seed, start=progress.step, complete=complete, ready=ready),
        objective,
        params=params or {},
        stage=stage,
        optim=optim,
        total=step_count(len(groups), optim.batch_size, epochs=optim.epochs, steps=optim.steps),
        progress=progress,
        evaluate=evaluate if held else None,
        tags=tags,
    )
    return cast(dict[str, float], progress.memory.get("last", {}))


def steps(
    groups: Sequence[Group], pad: int, batch_size: int, *, seed: int, start: int, complete: Complete = list,
    ready: Ready | None = None,
) -> Iterator[Step]:  # fmt: skip
    """Batches of groups without end, from step `start` on, each completed when it is asked for."""
    rows = Rows.of(groups)
    for index in order(len(groups), batch_size, seed=seed, start=start):
        if ready:
            ready(index)
        yield Step(complete([collate(rows.select(index), pad)]))


def limits_of(stage: Trained, path: str, context: Context) -> Limits:
    """How long a row may be: as the stage says, at most what the model takes."""
    longest = context_of(load_config(path, f"{context.where}.model"))
    return Limits(min(stage.max_tokens or longest, longest), stage.truncate == "cut")


def room_for(answer: int, longest: int, where: str) -> int:
    """The tokens that a prompt may have beside an answer in a row of `longest`; RecipeError where there are none."""
    if answer >= longest:
        said = (
            f"{answer} tokens leave no room for a prompt: a row holds {longest}, by the model's context or max_tokens"
        )
        raise RecipeError(where, said, f"give fewer than {longest}")
    return longest - answer


def read_prompts(
    context: Context, stage: Select | Evaluate, tokenizer: PreTrainedTokenizerBase, path: str
) -> tuple[list[Asked], int]:
    """The prompts of a stage that trains nothing, and the tokens that each may have beside its answer."""
    loaded, _ = load(stage.limited(stage.data) if isinstance(stage, Evaluate) else stage.data, None, context.where)
    longest = stage.max_tokens or context_of(load_config(path, context.where))
    room = room_for(stage.sampling.max_new_tokens, longest, f"{context.where}.sampling.max_new_tokens")
    asked = prompts(loaded, tokenizer, room=room, where=f"{context.where}.data")
    note_data(context, loaded, len(asked), None, 0)
    return asked, room


def note_data(context: Context, train: Loaded, kept: int, held: Loaded | None, held_kept: int) -> None:
    """Write down, and say, how many records a stage uses and what was left out."""
    report = {"train": train.report(kept)} | ({"eval": held.report(held_kept)} if held else {})
    context.folder.note(data=report)
    say_kept(context, "data", train, kept)
    if held:
        say_kept(context, "eval_data", held, held_kept)


def say_kept(context: Context, key: str, loaded: Loaded, kept: int) -> None:
    """Say how many records a stage uses and what was left out."""
    say(f"{context.name:<10} {key}: {kept} kept of {kept + loaded.dropped.total}")
    for reason, dropped in loaded.dropped.reasons.items():
        say(f"{'':<10}   left out, {reason}: {dropped.count}, as {dropped.example}")


def _update(
    context: Context, learner: Learner, step: Step, objective: Objective, params: dict[str, object], factor: float
) -> dict[str, float]:
    """The updates of one step, with their numbers averaged. A batch whose loss is not finite is kept for inspection."""
    lr = learner.set_lr(factor)
    found: list[dict[str, float]] = []
    for batch, part in zip_longest(step.batches, step.mix):
        try:
            found.append(context.engine.update(learner, batch, objective, {**params, **step.params}, mix=part))
        except NotFinite as error:
            path = context.folder.path / "not-finite.pt"
            kept = {"batch": vars(batch), "mix": vars(part.batch) if part else None}
            write_file(path, lambda draft, kept=kept: torch.save(kept, draft))
            raise NotFinite(context.where, *map(str, error.args[1:]), f"the batch is in {path}") from None
        if step.enough and step.enough(found[-1]):
            break
    left_out = {"updates": float(len(found))} if step.enough else {}
    return {name: _over([numbers[name] for numbers in found], name) for name in found[0]} | left_out | {"lr": lr}


def _over(values: list[float], name: str) -> float:
    """A number of one step from those of its updates: the mean, or the extreme."""
    found = reduction(name)(values)
    return found if name.endswith(("_max", "_min")) else found / len(values)


def _log(context: Context, step: int, numbers: dict[str, float], tags: dict[str, int] | None) -> None:
    context.folder.log(step, {**(tags or {}), **numbers})
    series = "-".join([context.name, *(f"{key}-{value}" for key, value in (tags or {}).items())])
    context.track(series, step, numbers)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals belong to the main thread
        return

    def handle(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
