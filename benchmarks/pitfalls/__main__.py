"""`python -m benchmarks.pitfalls`: make runs, healthy and with planted causes, and count what the detectors say of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer

from accord.recipe_file import parse
from accord.report.pitfalls import findings
from accord.report.read import read_run
from accord.run import append, read_rows, remove, write_json
from accord.stages import run as run_recipe
from benchmarks.pitfalls import figure, table, world
from benchmarks.pitfalls.planted import PLANTED, hotter
from benchmarks.pitfalls.recipes import HEALTHY, Made, Table

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
PAGE = Path(__file__).parents[2] / "docs/evaluation/pitfalls"
COMPUTE: Table = {"device": "cpu", "precision": "float32", "threads": 1}


@app.command()
def main(
    only: Annotated[str, typer.Option(help="Kinds of healthy runs and pitfalls, by comma; all if empty.")] = "",
    healthy: Annotated[int, typer.Option(help="Healthy runs in all, spread evenly over their kinds.")] = 60,
    sick: Annotated[int, typer.Option(help="Runs with each planted cause.")] = 5,
    seed: Annotated[int, typer.Option(help="The first seed; those below 1000 are for choosing thresholds.")] = 1000,
    out: Annotated[Path, typer.Option(help="Where runs and runs.jsonl go.")] = Path("runs/pitfalls"),
    again: Annotated[bool, typer.Option(help="Only let the detectors look again at the runs that are there.")] = False,
    page: Annotated[
        bool, typer.Option(help="Write docs/evaluation/pitfalls.json and .png from what is there.")
    ] = False,
) -> None:
    """Runs that are there already are kept, so that the same command goes on."""
    wanted = {name.strip() for name in only.split(",")} if only else {*HEALTHY, *PLANTED}
    if not again:
        made = prepare(out)
        done = {str(row["name"]) for row in read_rows(out / "runs.jsonl")}
        for name, cause, number in plans(wanted, healthy, sick, seed):
            if name not in done:
                append(out / "runs.jsonl", [one(made, out / "runs" / name, name, cause, number)])
    rows = [look(out / "runs" / str(row["name"]), dict(row)) for row in read_rows(out / "runs.jsonl")]
    kept = [row for row in rows if int(str(row["seed"])) >= seed]
    found = table.counted(kept)
    print(table.text(found))
    if page:
        write_json(PAGE.with_suffix(".json"), {"detectors": found, "runs": kept})
        figure.draw({str(row["name"]): out / "runs" / str(row["name"]) for row in kept}, kept, PAGE.with_suffix(".png"))


def plans(wanted: set[str], healthy: int, sick: int, seed: int) -> Iterator[tuple[str, str, int]]:
    """Name, cause ("" of a healthy run) and seed of each run."""
    kinds = [kind for kind in HEALTHY if kind in wanted]
    for i in range(healthy if kinds else 0):
        kind = kinds[i % len(kinds)]
        yield f"healthy-{kind}-{seed + i}", "", seed + i
    for cause in PLANTED:
        for i in range(sick if cause in wanted else 0):
            yield f"{cause.replace(' ', '-')}-{seed + i}", cause, seed + i


def one(made: Made, folder: Path, name: str, cause: str, seed: int) -> Table:
    """Make one run; of its folder all but the models is kept."""
    began = time.process_time()
    dice = random.Random(name)
    recipe = PLANTED[cause] if cause else HEALTHY[name.split("-")[1]]
    remove(folder)
    stages = recipe(made, seed, dice)
    with hotter(dice.choice([0.7, 1.4])) if cause == "sampler mismatch" else nullcontext():
        start(stages, folder, seed)
    for model in [*folder.glob("*/model*"), *folder.glob("*/checkpoints"), *folder.glob("*/critic")]:
        shutil.rmtree(model)
    return {"name": name, "cause": cause, "seed": seed, "seconds": round(time.process_time() - began, 1)}


def start(stages: dict[str, Table], folder: Path, seed: int) -> None:
    """Run stages into a folder."""
    run_recipe(parse({"name": folder.name, "seed": seed, "compute": COMPUTE, "stage": stages}), folder)  # pyright: ignore


def look(folder: Path, row: Table) -> Table:
    """What detectors say of a run now, and said while it trained."""
    run = read_run(folder)
    told = [finding.name for stage in run.stages for finding in findings(run, stage)]
    live = [str(finding["name"]) for finding in read_live(folder)]
    return {**row, "kind": run.stages[0].kind, "stages": [s.name for s in run.stages], "found": told, "live": live,
            "curves": any(stage.series for stage in run.stages)}  # fmt: skip


def read_live(folder: Path) -> list[Table]:
    """The findings that the training stage has told."""
    return json.loads((folder / "it/stage.json").read_text()).get("findings", [])


def prepare(out: Path) -> Made:
    """The start that all runs have in common, made once: a model that knows the facts, its answers, two reward models."""
    made = Made(out / "made")
    if (made.folder / "judge/it/model").exists():
        return made
    remove(made.folder)
    made.folder.mkdir(parents=True)
    world.fresh(made.folder / "base", 0)
    dice = random.Random(0)
    data = made.file("chats", list(world.chats(dice, 20)))
    optim: Table = {"lr": 5e-3, "batch_size": 32, "epochs": 12}
    start(
        {"it": {"kind": "sft", "model": made.base, "data": data, "eval_data": 0.1, "optim": optim}},
        made.folder / "start",
        0,
    )
    for i, name in enumerate(("reward", "judge")):
        rollouts = world.answered(Path(made.start), world.TRAIN, world.EACH, i)
        made.file("sampled", [{"prompt": r.prompt, "text": r.text} for r in rollouts])
        pairs = made.file(f"pairs-{name}", world.pairs(world.sampled(made.folder / "sampled.jsonl"), world.EACH, dice))
        optim = {"lr": 2e-3, "batch_size": 16, "epochs": 2}
        start({"it": {"kind": "reward", "model": made.start, "data": pairs, "eval_data": 0.1, "optim": optim}},
              made.folder / name, i)  # fmt: skip
    return made


if __name__ == "__main__":
    app()
