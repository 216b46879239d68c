"""Stage after stage: what is done is skipped, what was interrupted goes on, the rest is run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import cast

from accord import processes
from accord.console import duration, say
from accord.data.sources import fingerprint
from accord.engine import Engine
from accord.errors import EngineError, Interrupted, RecipeError
from accord.functions import source_of
from accord.machine import process_count
from accord.recipe import AnyStage, Evaluate, Mix, Recipe, Reward, Source
from accord.recipe_file import dump, parse, references
from accord.run import RECORDS, Run, digest, file_digest, locked, write_text
from accord.stages.check import functions, inspect, read_now
from accord.stages.check_models import model_print, models
from accord.stages.fit import Context, stop_on_signal
from accord.stages.select import NothingKept
from accord.track import check_trackers, trackers

# What changes where and how fast a stage runs, but not its result.
NOT_RESULTS: dict[str, bool | set[str]] = {
    "save": True, "micro_tokens": True, "optim": {"micro_tokens"}, "server": True
}  # fmt: skip


def run(recipe: Recipe, out: Path, *, only: Sequence[str] = (), inspected: bool = False) -> Run:
    """Run a recipe's stages into a folder and return the run.

    `only` names the stages to run, if not all. Every input is read and checked first, unless it has been (`inspected`).
    """
    for name in only:
        if name not in recipe.stage:
            raise RecipeError("--only", f"there is no stage '{name}'", f"known: {', '.join(recipe.stage)}")
    check_trackers(recipe.trackers)
    made = Run(recipe, out)
    if not inspected:
        made.check()
        inspect(recipe)
    prints = fingerprints(recipe)

    def again(folder: Path) -> list[str]:
        """The command line of another process of the same run."""
        write_text(folder / "recipe.toml", dump(recipe))
        return ["accord.stages", str(folder / "recipe.toml"), str(out), *only]

    with ExitStack() as stack:
        stack.enter_context(processes.others(process_count(recipe.compute), again))
        engine = Engine(recipe.compute)
        stack.enter_context(locked(out))
        made.open()
        facts = {"precision": engine.precision, "device": str(engine.device), "threads": engine.threads}
        made.note("running", **facts)
        status = "failed"
        try:
            with stop_on_signal() as stop, trackers(recipe, out) as track:
                for name, stage in recipe.stage.items():
                    if not only or name in only:
                        run_stage(Context(made, engine, name, made.stage(name), stop, track), stage, prints)
            status = "done"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            processes.leave()
            with nullcontext() if status == "done" else suppress(EngineError):  # what went wrong first is what counts
                made.note(status)
    return made


def run_stage(context: Context, stage: AnyStage, prints: dict[str, str]) -> None:
    """Skip, resume or begin one stage, by the fingerprint it left."""
    record, wanted = context.folder.record, prints[context.name]
    same = record.get("fingerprint") == wanted
    if same and record.get("status") == "done":
        say(f"{context.name:<10} done before, skipped")
        return
    for _, name in references(stage):
        other = context.run.stage(name).record
        if other.get("status") != "done" or other.get("fingerprint") != prints[name]:
            raise RecipeError(context.where, f"needs stage '{name}', which is not done as the recipe has it now",
                              f"run it too: --only {name} --only {context.name}")  # fmt: skip
    if not same:
        context.folder.clear()
    began, before = time.time(), cast(float, record.get("seconds", 0.0)) if same else 0.0
    context.folder.note(kind=stage.kind, fingerprint=wanted, status="running")
    say(f"{context.name:<10} {'goes on' if same else 'begins'}")
    try:
        method = importlib.import_module(f"accord.stages.{stage.kind}")
        method.run(context, with_files(context.run, stage))
    except BaseException:
        processes.leave()
        context.folder.note(seconds=round(before + time.time() - began, 1))
        raise
    seconds = before + time.time() - began
    context.folder.note(status="done", seconds=round(seconds, 1))
    context.folder.drop_state()
    context.engine.release()
    say(f"{context.name:<10} done in {duration(seconds)}")


def with_files(run: Run, stage: AnyStage) -> AnyStage:
    """A stage whose data is read from the files that earlier stages left, where it names stages (`data = "@best"`)."""

    def located(found: list[Source]) -> list[Source]:
        return [
            source.model_copy(update={"source": str(run.stage(source.source[1:]).path / RECORDS)})
            if source.source.startswith("@")
            else source
            for source in found
        ]

    changed: dict[str, object] = {"data": located(stage.data)}
    if isinstance(stage, Evaluate):
        changed["remember"] = located(stage.remember) if stage.remember else None
        changed["suites"] = [f"{name}={located([own])[0].source}" if own else name for name, own in stage.asked]
    held, mix = getattr(stage, "eval_data", None), getattr(stage, "mix", None)
    if isinstance(held, list):
        changed["eval_data"] = located(held)
    if isinstance(stage, Reward) and stage.normalise.data:
        data = located(stage.normalise.data)
        changed["normalise"] = stage.normalise.model_copy(update={"data": data})
    if isinstance(mix, Mix):
        changed["mix"] = mix.model_copy(update={"data": located(mix.data)})
    return stage.model_copy(update=changed)


def rehearse(recipe: Recipe, folder: Path) -> None:
    """Run every stage on a few rows for one step, into a folder that is thrown away: the same code on a small scale."""
    table = recipe.model_dump(mode="json", exclude_none=True)
    cast("dict[str, object]", table["compute"])["processes"] = 1
    table["trackers"] = []
    for stage in cast("dict[str, dict[str, object]]", table["stage"]).values():
        _shrink(stage)
    try:
        run(parse(table), folder, inspected=True)
    except NothingKept as nothing:  # of a few short answers: says nothing about many
        say(f"{nothing.args[0]}: {nothing.args[1]} of the rehearsal; the stages after it are not rehearsed")


def _shrink(stage: dict[str, object]) -> None:
    """Make a stage as small as it can be and still go through all of its code."""
    few = {"limit": 64}
    stage["data"] = [{**source, **few} for source in cast("list[dict[str, object]]", stage["data"])]
    if isinstance(stage.get("eval_data"), list):
        stage["eval_data"] = [{**source, "limit": 16} for source in cast("list[dict[str, object]]", stage["eval_data"])]
    elif "eval_data" in stage:
        stage["eval_data"] = 0.3
    if "optim" in stage:
        optim = cast("dict[str, object]", stage["optim"])
        optim.pop("epochs", None)
        stage["optim"] = {**optim, "steps": 1, "batch_size": 2}
    if "mix" in stage:
        mix = cast("dict[str, object]", stage["mix"])
        stage["mix"] = {**mix, "data": [{**s, **few} for s in cast("list[dict[str, object]]", mix["data"])]}
    if "ensemble" in stage:
        stage |= {"ensemble": 1, "folds": 0, "learning_curve": []}
    if "normalise" in stage:
        scale = cast("dict[str, object]", stage["normalise"])
        shown = cast("list[dict[str, object]]", scale.get("data", []))
        stage["normalise"] = {**scale, "max_new_tokens": 4} | ({"data": [{**s, **few} for s in shown]} if shown else {})
    if "rollout" in stage:
        rollout = cast("dict[str, int]", stage["rollout"])
        stage["rollout"] = {**rollout, "batch_size": 2 * rollout["group_size"], "max_new_tokens": 4}
    if "n" in stage:
        stage["n"] = 2
    if "suites" in stage:
        stage["limit"] = 64
    if "sampling" in stage:
        sampling = cast("dict[str, int]", stage["sampling"])
        longest = min(sampling["max_new_tokens"], 64) if "n" in stage else 4  # of select only answers that end are kept
        stage["sampling"] = {**sampling, "max_new_tokens": longest}


# --------------------------------------------------------------------------------------------------------- fingerprints


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """What each stage's result depends on: its settings, the stages before it, its data, functions and models."""
    found: dict[str, str] = {}
    for name, stage in recipe.stage.items():
        found[name] = digest(
            {
                "settings": _moveable(stage.model_dump(mode="json", exclude=cast("dict[str, bool]", NOT_RESULTS))),
                "seed": recipe.seed,
                "stages": [(key, found[target]) for key, target in references(stage)],
                "data": {f"{key}-{i}": fingerprint(source) for i, (key, source) in enumerate(read_now(stage))},
                "functions": {key: source_of(reference) for key, reference in functions(stage)},
                "models": {key: model_print(model) for key, model in models(stage)},
                **(
                    {"files": {key: file_digest(path) for key, path in stage.files}}
                    if isinstance(stage, Evaluate)
                    else {}
                ),
            }
        )
    return found


def _moveable(settings: object) -> object:
    """Settings with the names of files instead of their paths: their contents count, not where they lie."""
    if isinstance(settings, dict):
        return {_moveable(key): _moveable(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_moveable(value) for value in settings]
    if isinstance(settings, str) and "=/" in settings:  # a suite with its data
        name, _, path = settings.partition("=/")
        return f"{_moveable(name)}={Path(path).name}"
    return Path(settings).name if isinstance(settings, str) and settings.startswith("/") else settings
