"""`accord report A B C`: one page, or JSON, that holds several runs or evaluations against each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from accord.errors import RecipeError
from accord.report import duration
from accord.report.answers import cards
from accord.report.compared import draw_compared
from accord.report.comparison import boards
from accord.report.page import Grid, Page, render
from accord.report.paired import Difference, difference_boards, differences
from accord.report.read import Stage
from accord.report.results import Comparison, main_trial
from accord.report.several import (
    Differing,
    Member,
    draw_over_steps,
    draw_time,
    facts_rows,
    headline,
    members,
    merged,
    only,
    pairs,
    recipe_rows,
    stage_seconds,
)
from accord.report.svg import Drawing, Sheet, finish, theme, tone
from accord.report.values import Measure
from accord.report.words import named
from accord.run import write_file

NOTE = (
    "Values are means ± one standard error. Win rates and KL are against the baseline of each run; bold is the best value of "
    "its column where it beats the first run's baseline by more than two standard errors of the difference."
)


def write_comparison(folders: Sequence[Path], out: Path | None) -> Path:
    """Write the page of several runs to `out`, or beside the first of them, and return its path."""
    every = members(folders)
    name = "-against-".join(member.label for member in every[:2]) + (f"-and-{len(every) - 2}-more" * (len(every) > 2))
    target = out or folders[0].resolve().parent / f"{name.replace('/', '-')}.html"
    if target.is_dir():
        target = target / "report.html"
    if not target.parent.is_dir():
        raise RecipeError("--out", f"there is no folder {target.parent}", "make it, or name a file in another")
    page = render(page_of(every))
    write_file(target, lambda draft: draft.write_bytes(page))
    return target


def page_of(every: Sequence[Member]) -> Page:
    """All that is to be said of several runs."""
    compared = merged(every)
    found = differences(compared, pairs(every, compared)) if compared else []
    labels = [member.label for member in every]
    leaders = list(dict.fromkeys(name for member in every if (name := headline(member))))
    shown = only(compared, leaders) if compared and len(leaders) > 1 else None
    return Page(
        kind="Comparison",
        name=" against ".join(labels) if len(labels) < 4 else f"{len(labels)} runs",
        said=f"{len(every)} runs or evaluations side by side; what is a difference is one from {labels[0]}, the first.",
        baseline=compared.baseline if compared else "",
        lines=tuple(in_short(found, compared)) if compared else (),
        grids=tuple(grids(every)),
        boards=tuple(boards(compared)) if compared else (),
        note=NOTE if compared else "",
        differences=tuple(difference_boards(found)),
        drawings=drawn(every, shown),
        cards=cards(shown, shown.models[-1]) if shown and shown.answers else (),
        colours={name: tone(at) for at, name in enumerate(shown.models)} if shown else {},
    )


def in_short(found: Sequence[Difference], compared: Comparison) -> list[str]:
    """A sentence for each pair of models, on what the comparison is about first."""
    main = main_trial(compared)
    own = [one for one in found if (one.trial.suite, one.trial.sampling) == (main.suite, main.sampling)]
    metric = next((name for name in ("gold", "reward", *main.metrics) if any(one.metric == name for one in own)), "")
    said: list[str] = []
    for one in own:
        if one.metric == metric:
            clear = {1: "above", -1: "below", 0: "not clearly apart from"}[one.gap.sure]
            how = f"paired over {one.prompts:,} prompts" if one.prompts else "unpaired"
            said.append(f"{one.model} is {clear} {one.against}: {named(metric)} {one.gap}, {how}.")
    return said


def grids(every: Sequence[Member]) -> list[Grid]:
    """The runs themselves, what differs in their recipes, and in their machines."""
    runs = [member.run for member in every]
    labels = tuple(member.label for member in every)
    about = {
        "status": [run.status for run in runs],
        "seed": [run.seed or None for run in runs],
        "started": [run.started[:16].replace("T", " ") or None for run in runs],
        "time": [None if run.seconds is None else duration(run.seconds) for run in runs],
    }
    names = dict.fromkeys(stage.name for run in runs for stage in run.stages)
    for name in names if any(len(run.stages) > 1 for run in runs) else ():
        seconds = [stage_seconds(run).get(name) for run in runs]
        about[f"time of {name}"] = [duration(s) if isinstance(s, float) else None for s in seconds]
    rows = [(key, tuple(values)) for key, values in about.items() if any(values)]
    found = [Grid("Runs", labels, tuple(rows))]
    with_recipe = [member for member in every if member.run.recipe]
    if len(with_recipe) > 1:
        differs, same = recipe_rows([member.run for member in with_recipe])
        said = f"{same:,} other settings are the same." if differs else f"All {same:,} settings are the same."
        found.append(Grid("What differs in the recipes", tuple(m.label for m in with_recipe), _cells(differs), said))
    if machines := facts_rows([member.run for member in with_recipe]):
        found.append(Grid("Machines and versions", tuple(m.label for m in with_recipe), _cells(machines)))
    return found


def _cells(rows: Sequence[Differing]) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    return tuple((row.key, row.values) for row in rows)


def drawn(every: Sequence[Member], shown: Comparison | None) -> tuple[Drawing, ...]:
    """The figures of the models that stand for their runs, then the curves of the stages, then the time."""
    with theme():
        sheets: list[Sheet] = []
        if shown:
            sheets += draw_compared(Stage("", "evaluate", "", None, (), {}, {}, (), (), shown, ()))
        sheets += draw_over_steps(every)
        sheets += filter(None, [draw_time(every)])
        return tuple(finish(sheet, f"f{at}") for at, sheet in enumerate(sheets))


# ---------------------------------------------------------------------------------------------------------------- JSON


def comparison_json(folders: Sequence[Path]) -> str:
    """The same as JSON, for programs."""
    every = members(folders)
    compared = merged(every)
    found = differences(compared, pairs(every, compared)) if compared else []
    recipes = [member for member in every if member.run.recipe]
    differs, _ = recipe_rows([member.run for member in recipes])
    whole = {
        "runs": [
            {"name": m.label, "folder": str(m.folder), "status": m.run.status, "seed": m.run.seed, "seconds": m.run.seconds,
             "stages": stage_seconds(m.run)} for m in every
        ],
        "recipe": {
            row.key: {m.label: value for m, value in zip(recipes, row.values, strict=True) if value is not None}
            for row in differs
        },
        "baseline": compared.baseline if compared else "",
        "results": _results(compared) if compared else {},
        "differences": [
            {"model": one.model, "against": one.against, "metric": _key(one.trial.suite, one.trial.sampling, one.metric),
             "value": one.gap.value, "stderr": one.gap.stderr, "paired": one.prompts is not None, "n": one.prompts}
            for one in found
        ],
    }  # fmt: skip
    return json.dumps(whole, indent=1, ensure_ascii=False)


def _results(compared: Comparison) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in compared.models}
    for trial in compared.trials:
        for metric, values in trial.metrics.items():
            for name, value in values.items():
                found[name][_key(trial.suite, trial.sampling, metric)] = _json(value)
    return found


def _key(suite: str, sampling: str, metric: str) -> str:
    return f"{suite}{'' if sampling == 'sampled' else f'@{sampling}'}/{metric}"


def _json(value: Measure) -> dict[str, float]:
    found = {"value": value.value, "stderr": value.stderr, "n": value.n}
    return {name: number for name, number in found.items() if number is not None}
