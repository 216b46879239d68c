"""An evaluation by itself: what a recipe's stage does, with its files directly in a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from accord.console import duration, say
from accord.engine import Engine
from accord.errors import Interrupted, RecipeError
from accord.recipe import Evaluate, Recipe
from accord.run import Run, StageFolder, locked, remove
from accord.stages import evaluate, fingerprints, with_files
from accord.stages.check import inspect
from accord.stages.evaluate_rescore import rescore
from accord.stages.fit import Context, stop_on_signal

OWN = (evaluate.RESULTS, evaluate.ANSWERS, evaluate.SHEETS, evaluate.VERDICTS, "stage.json", "recipe.toml", "run.json")


def run(recipe: Recipe, out: Path, *, again: bool = False) -> None:
    """Run the one stage of a recipe, an evaluation, into a folder; what is there and of the same settings goes on.

    With `again` the stored answers are judged anew and no model is asked.
    """
    ((name, stage),) = recipe.stage.items()
    folder, stage = StageFolder(out), cast(Evaluate, stage)
    if not again:
        free(folder)
    inspect(recipe)
    wanted = fingerprints(recipe)[name]
    made = Run(recipe, out)
    with locked(out), stop_on_signal() as stop:
        same = folder.record.get("fingerprint") == wanted
        if same and folder.record.get("status") == "done" and not again:
            say(f"{out}: done before")
            return
        if not same and not again:
            clear(folder)
        began, before = time.time(), cast(float, folder.record.get("seconds", 0.0)) if same else 0.0
        engine = Engine(recipe.compute)
        made.note("running", precision=engine.precision, device=str(engine.device), threads=engine.threads)
        made.open()
        folder.note(kind=stage.kind, fingerprint=wanted, status="running")
        context = Context(made, engine, name, folder, stop, lambda *_: None)
        status = "failed"
        try:
            stage = cast(Evaluate, with_files(made, stage))
            (rescore if again else evaluate.run)(context, stage)
            folder.note(status="done", seconds=round(before + time.time() - began, 1))
            status = "done"
            say(f"{out}: done in {duration(before + time.time() - began)}")
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            made.note(status)


def free(folder: StageFolder) -> None:
    """RecipeError where the folder holds what no evaluation by itself has left, and would be lost."""
    there = [name for name in OWN if (folder.path / name).exists()]
    if there and folder.record.get("kind") != "evaluate":
        said = f"{folder.path / there[0]} is there already and not of an evaluation"
        raise RecipeError("--out", said, "name another folder with --out")


def clear(folder: StageFolder) -> None:
    """Remove what an evaluation of other settings has left; other files of the folder stay."""
    for name in OWN:
        remove(folder.path / name)
