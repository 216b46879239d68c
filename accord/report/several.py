"""Several runs or evaluations as one: what differs in their recipes, their models in one comparison, their curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from accord.report import flat
from accord.report.case import open_case
from accord.report.curves import Line, draw_line, label
from accord.report.paired import APART
from accord.report.read import Run, Stage, judged, read_run
from accord.report.results import Answer, Comparison, Trial
from accord.report.svg import HEX, Key, Sheet, number_axis, percent, tone
from accord.report.sweep import draw_frontiers
from accord.report.values import Row, Table, table
from accord.report.words import is_share

# By kind of stage: what is drawn over steps, a line for each run. Of two that say the same the first counts.
OVER_STEPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "pretrain": (("eval/loss", "loss"),),
    "sft": (("eval/loss", "loss"),),
    "reward": (("eval/accuracy", "accuracy"), ("eval/loss", "loss")),
    "preference": (("eval/accuracy", "accuracy"), ("eval/margin", "margin"), ("eval/chosen_logp", "chosen_logp")),
    "policy": (("reward/mean",), ("kl/mean",), ("rollout/length",), ("policy/entropy",)),
}
SAME = ("name",)  # keys that differ by nature


@dataclass(frozen=True)
class Member:
    """One of the runs that are compared, under the name that the page gives it."""

    label: str
    folder: Path
    run: Run


@dataclass(frozen=True)
class Differing:
    """A setting that is not the same in all runs; None where a run has none of that name."""

    key: str
    values: tuple[str | None, ...]


def members(folders: Sequence[Path]) -> list[Member]:
    """The runs of some folders, each under a name that no other has."""
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = ["/".join(folder.resolve().parts[-2:]) for folder in folders]
    unique = [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, 1)]
    return [Member(*found) for found in zip(unique, folders, runs, strict=True)]


# ------------------------------------------------------------------------------------------------------------- recipes


def differing(runs: Sequence[Run]) -> tuple[list[Differing], int]:
    """The settings that differ among runs, and how many are the same; a stage that only some have is one of them."""
    tables = [dict(_settings(run)) for run in runs]
    keys = list(dict.fromkeys(key for found in tables for key in found))
    rows = [Differing(key, tuple(found.get(key) for found in tables)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1], sum(len(set(row.values)) == 1 for row in rows)


def _settings(run: Run) -> Iterator[tuple[str, str]]:
    whole = {key: value for key, value in run.recipe.items() if key not in ("stage", *SAME)}
    yield from flat(whole)
    for name, settings in table(run.recipe.get("stage")).items():
        yield f"stage.{name}", str(table(settings).get("kind", ""))
        yield from flat({key: value for key, value in table(settings).items() if key != "kind"}, f"stage.{name}.")


def recipe_rows(runs: Sequence[Run]) -> tuple[list[Differing], int]:
    """As `differing`, with the settings of a stage that some runs do not have left out: that it is there says enough."""
    rows, same = differing(runs)
    partial = {row.key for row in rows if row.key.count(".") == 1 and row.key.startswith("stage.")}
    return [row for row in rows if ".".join(row.key.split(".")[:2]) not in partial or row.key in partial], same


def facts_rows(runs: Sequence[Run]) -> list[Differing]:
    """What differs in machines and versions."""
    tables: list[dict[str, str]] = [dict(flat(run.facts)) for run in runs]
    keys = list(dict.fromkeys(key for found in tables for key in found))
    rows = [Differing(key, tuple(found.get(key) for found in tables)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


# ------------------------------------------------------------------------------------------------------------- results


def merged(every: Sequence[Member]) -> Comparison | None:
    """All models of all runs in one comparison, as `run/model`; its baseline is the first run's."""
    trials: dict[tuple[str, str], Trial] = {}
    models: list[str] = []
    answers: list[Answer] = []
    baseline = ""
    for member in every:
        for compared in _comparisons(member.run):
            baseline = baseline or (f"{member.label}/{compared.baseline}" if compared.baseline else "")
            models += [f"{member.label}/{name}" for name in compared.models]
            for trial in compared.trials:
                into = trials.setdefault((trial.suite, trial.sampling), Trial(trial.suite, trial.sampling, {}))
                for metric, values in trial.metrics.items():
                    of = {f"{member.label}/{name}": value for name, value in values.items()}
                    into.metrics.setdefault(metric, {}).update(of)
            answers += [replace(answer, model=f"{member.label}/{answer.model}") for answer in compared.answers]
    if not models:
        return None
    return Comparison(baseline, tuple(dict.fromkeys(models)), tuple(trials.values()), tuple(answers))


def _comparisons(run: Run) -> list[Comparison]:
    """What a run's evaluations measured; where several measured the same suite, the last of them counts."""
    found: list[Comparison] = []
    taken: set[str] = set()
    for stage in reversed(run.stages):
        if stage.comparison:
            trials = tuple(trial for trial in stage.comparison.trials if trial.suite not in taken)
            answers = tuple(answer for answer in stage.comparison.answers if answer.suite not in taken)
            taken |= {trial.suite for trial in trials}
            found.insert(0, replace(stage.comparison, trials=trials, answers=answers))
    return found


def headline(member: Member) -> str | None:
    """The model that stands for a run: the best that it trained, or else the last that it measured."""
    case, stage = open_case(member.run), judged(member.run)
    if case:
        return f"{member.label}/{case.best}"
    return f"{member.label}/{stage.comparison.models[-1]}" if stage and stage.comparison else None


def pairs(every: Sequence[Member], compared: Comparison) -> list[tuple[str, str]]:
    """Which models are held against each other: those of later runs against the first run's of the same name, and the one
    that stands for a run against the first run's where the names differ."""
    first, *others = every
    found: list[tuple[str, str]] = []
    for member in others:
        own = [name for name in compared.models if name.startswith(f"{member.label}/")]
        same = [(name, f"{first.label}/{name.removeprefix(f'{member.label}/')}") for name in own]
        same = [(ours, theirs) for ours, theirs in same if theirs in compared.models]
        ours, theirs = headline(member), headline(first)
        if ours and theirs and (ours, theirs) not in same:
            found.append((ours, theirs))
        found += same
    return [pair for pair in found if not _alike(compared, *pair)]


def _alike(compared: Comparison, ours: str, theirs: str) -> bool:
    """Whether two models gave the very same answers: a base that both runs began with says nothing."""
    both = [[(a.prompt, a.sampling, a.response, a.scores) for a in compared.answers if a.model == name]
            for name in (ours, theirs)]  # fmt: skip
    return bool(both[0]) and both[0] == both[1]


def only(compared: Comparison, models: Sequence[str]) -> Comparison:
    """The comparison of some of the models, the first of them the baseline; without what refers to another one."""
    trials = tuple(
        replace(trial, metrics={metric: {name: values[name] for name in models if name in values}
                                for metric, values in trial.metrics.items()
                                if metric not in APART and any(name in values for name in models)})
        for trial in compared.trials
    )  # fmt: skip
    answers = tuple(answer for answer in compared.answers if answer.model in models)
    return Comparison(models[0], tuple(models), trials, answers)


# -------------------------------------------------------------------------------------------------------------- curves


def draw_over_steps(every: Sequence[Member]) -> Iterator[Sheet]:
    """A figure for each metric of each stage that two runs or more have, with a line for each run."""
    names = list(dict.fromkeys(stage.name for member in every for stage in member.run.stages))
    for name in names:
        stages = {m.label: s for m in every for s in m.run.stages if s.name == name and s.metrics}
        kinds = {stage.kind for stage in stages.values()}
        if len(stages) < 2 or len(kinds) > 1:
            continue
        tones = {member.label: tone(at) for at, member in enumerate(every)}
        for keys in OVER_STEPS.get(kinds.pop(), ()):
            if sheet := _over_steps(name, keys, stages, tones):
                yield sheet
        if sheet := draw_frontiers(name, {label: [(stage,)] for label, stage in stages.items()}, tones):
            yield sheet


def _over_steps(name: str, keys: Sequence[str], stages: dict[str, Stage], tones: dict[str, str]) -> Sheet | None:
    """One metric over steps, the first of `keys` that all stages have; None where it went the same way in all runs."""
    for key in keys:
        lines = {of: line for of, stage in stages.items() if (line := _line(stage.metrics, key, of))}
        if len(lines) == len(stages) and len({(*line.steps, *line.values) for line in lines.values()}) > 1:
            sheet = Sheet(f"{name}: {label(key)}")
            ax = sheet.figure.subplots()
            for of, line in lines.items():
                draw_line(sheet, ax, line, tones[of], mixed=False)
            number_axis(ax, "step")
            if is_share(key):
                ax.yaxis.set_major_formatter(percent)
            if windows := sorted({line.window for line in lines.values() if line.window}):
                of_points = f"thin: every point; thick: moving average of {' or '.join(map(str, windows))} points"
                sheet.legend.append(Key(of_points, "muted", "faint"))
            return sheet
    return None


def _line(rows: Sequence[Row], key: str, of: str) -> Line | None:
    """A metric over steps, the mean over the members of an ensemble; None with a single point."""
    found: dict[float, list[float]] = {}
    for row in rows:
        step, value = row.get("step"), row.get(key)
        if step is not None and value is not None and row.get("fold") is None and row.get("share") is None:
            found.setdefault(step, []).append(value)
    steps = sorted(found)
    return (
        Line(key, of, np.array(steps), np.array([np.mean(found[step]) for step in steps])) if len(steps) > 1 else None
    )


def draw_time(every: Sequence[Member]) -> Sheet | None:
    """The time of each run as a bar, in parts for its stages."""
    spent = {m.label: {s.name: s.seconds for s in m.run.stages if s.seconds} for m in every}
    names = list(dict.fromkeys(name for stages in spent.values() for name in stages))
    if not names:
        return None
    longest = max(sum(stages.values()) for stages in spent.values())
    unit, word = (3600, "hours") if longest > 5400 else (60, "minutes") if longest > 90 else (1, "seconds")
    sheet = Sheet("Time by stage", height=max(180, 60 + 34 * len(spent)))
    ax = sheet.figure.subplots()
    for at, stages in enumerate(spent.values()):
        left = 0.0
        for name, seconds in stages.items():
            ax.barh(at, seconds / unit, 0.6, left, color=HEX[tone(names.index(name))], alpha=0.8)
            left += seconds / unit
    sheet.legend += [Key(name, tone(at), "fill") for at, name in enumerate(names)]
    ax.set_yticks(range(len(spent)), [label if len(label) <= 18 else f"{label[:17]}…" for label in spent])
    ax.set_ylim(len(spent) - 0.4, -0.6)
    ax.grid(visible=False)
    number_axis(ax, word, whole=False, values=False)
    return sheet


def stage_seconds(run: Run) -> Table:
    """Seconds of each stage that has been timed."""
    return {stage.name: stage.seconds for stage in run.stages if stage.seconds is not None}
