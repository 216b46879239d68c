"""`accord check RUN --release`: a checklist, each box measured."""

from __future__ import annotations

from pathlib import Path

from accord.console import Box, checklist, say
from accord.data.records import Message
from accord.errors import CheckFailed, ModelError
from accord.recipe_file import load
from accord.report import release as told
from accord.report.read import read_run
from accord.report.release import Subject
from accord.run import Run
from accord.stages import release


def check_release(folder: Path, name: str | None) -> None:
    """Print which model is meant and every box; CheckFailed names the open ones."""
    of = told.subject(read_run(folder), name)
    found = boxes(folder, of)
    print(f"model: {of}\n{checklist(found)}")
    shut = [box.name for box in found if not box.holds]
    if shut:
        raise CheckFailed(
            str(folder / of.stage.name),
            f"{len(shut)} of {len(found)} boxes are open: {', '.join(shut)}",
            "close them as said",
        )


def boxes(folder: Path, of: Subject) -> list[Box]:
    """The whole checklist of a model, in the order of a run."""
    model = folder / of.stage.name / "model"
    if not model.is_dir():
        raise ModelError(
            str(model), "is not there", f"run its stage: accord run {folder / 'recipe.toml'} --out {folder}"
        )
    say(f"{of.stage.name}: reading its training data ...")
    recipe = load(folder / "recipe.toml")
    run = Run(recipe, folder)
    data = release.training_data(recipe, run, release.needed(recipe, of.stage.name))
    judges = [stage.name for stage in of.run.stages if any(stage.comparison is compared for compared, _ in of.measured)]
    asked = prompts(of)
    held = release.held_prompts(asked, recipe, run, judges)
    clean, leaks = release.data_boxes(data, held)
    say(f"{of.stage.name}: opening it in plain transformers ...")
    some = release.some(data) if "cannot be read" not in clean.evidence else []
    tokens = release.tokenizer_box(model, some)
    results, better, harm, votes, alarms = told.boxes(of)
    last = [release.merged_box(model), release.export_box(model, asked), alarms]
    return [clean, leaks, tokens, results, better, harm, votes, *last]


def prompts(of: Subject) -> list[list[Message]]:
    """Every prompt that the model has answered in an evaluation, once."""
    answers = [a for compared, name in of.measured for a in compared.answers if a.model == name]
    distinct = dict.fromkeys(answer.prompt for answer in answers)
    return [[{"role": turn.role or "user", "content": turn.content} for turn in prompt] for prompt in distinct]
