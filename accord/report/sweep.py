"""The page of a sweep: reward against KL of every setting, with bands over seeds, and what the evaluations say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from urllib.parse import quote

import numpy as np

from accord.report import put
from accord.report.comparison import Board, Cell
from accord.report.page import Page, render
from accord.report.read import Stage, read_run
from accord.report.svg import HEX, Drawing, Key, Sheet, finish, number_axis, theme, tone
from accord.report.values import table, text
from accord.report.words import MINUS

SHOWN = ("gold", "reward", "win_rate", "kl", "perplexity", "length")


@dataclass(frozen=True)
class Setting:
    """One combination of the swept values, and the run folder of each seed."""

    label: str
    folders: tuple[Path, ...]


def write_sweep(folder: Path, name: str, settings: Sequence[Setting], stages: Sequence[str]) -> Path:
    """Write `<folder>/report.html` on the stages that the settings change, and return its path."""
    found = {setting.label: [read_run(path).stages for path in setting.folders] for setting in settings}
    with theme():
        sheets = [sheet for stage in stages if (sheet := draw_frontiers(stage, found))]
        drawings: tuple[Drawing, ...] = tuple(finish(sheet, f"s{i}") for i, sheet in enumerate(sheets))
    metrics = {label: [measured(run, stages) for run in runs] for label, runs in found.items()}
    columns = list(dict.fromkeys(key for runs in metrics.values() for run in runs for key in run))
    rows: dict[str, list[Cell | None]] = {
        label: [spread([run[column] for run in runs if column in run]) for column in columns]
        for label, runs in metrics.items()
    }
    seeds = max(len(runs) for runs in found.values())
    said = (
        f"{len(found)} settings, {seeds} seed{'s' * (seeds != 1)} each. Bands and ± are one standard error over seeds."
    )
    board = Board("Evaluated at the end", tuple(columns), (None,) * len(columns), {"": rows})
    links = tuple((path.name, f"{quote(path.name)}/report.html") for setting in settings for path in setting.folders)
    boards = (board,) if columns else ()
    page = Page("Sweep", name, said, head="setting", drawings=drawings, boards=boards, links=links)
    return put(render(page), folder)


def measured(stages: Sequence[Stage], changed: Sequence[str]) -> dict[str, float]:
    """What the evaluations of a run say of the models that the sweep changes, by metric."""
    found: dict[str, float] = {}
    for stage in stages:
        models = table(stage.settings.get("models"))
        for trial in stage.comparison.trials if stage.comparison else ():
            for metric in SHOWN:
                for model, value in trial.metrics.get(metric, {}).items():
                    if text(models.get(model)).removeprefix("@") in changed:
                        way = "" if trial.sampling == "sampled" else f" {trial.sampling}"
                        found[f"{model} {metric}{way}"] = value.value
    return found


def spread(values: Sequence[float]) -> Cell:
    """A mean over seeds with its standard error."""
    if not values:
        return Cell("-")
    error = f"± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return Cell(f"{fmean(values):.3f}".replace("-", MINUS), error)


def draw_frontiers(
    name: str, found: Mapping[str, Sequence[tuple[Stage, ...]]], tones: Mapping[str, str] | None = None
) -> Sheet | None:
    """Held-out reward against KL over the steps of a policy stage, a line for each setting, a band over its seeds."""
    lines = {
        label: frontier([stage for run in runs for stage in run if stage.name == name]) for label, runs in found.items()
    }
    if not any(lines.values()):
        return None
    sheet = Sheet(f"{name}: held-out reward against KL", height=300)
    ax = sheet.figure.subplots()
    several = any(len(runs) > 1 for runs in found.values())
    for at, (label, points) in enumerate(lines.items()):
        colour = tones[label] if tones else tone(at)
        kl, reward, error = np.array(points).T if points else np.zeros((3, 0))
        ax.fill_between(kl, reward - error, reward + error, color=HEX[colour], alpha=0.18, linewidth=0)
        ax.plot(kl, reward, "o-", color=HEX[colour])
        sheet.legend.append(Key(label, colour))
    ax.set_ylabel("reward")
    number_axis(ax, "KL from the reference (nats per answer)", whole=False)
    sheet.notes.append(f"Points are evaluations during training{', means over seeds' * several}.")
    return sheet


def frontier(stages: Sequence[Stage]) -> list[tuple[float, float, float]]:
    """(KL, reward, its standard error over seeds) at each step that every seed has been evaluated at."""
    seeds: list[dict[float, tuple[float, float]]] = []
    for stage in stages:
        points: dict[float, tuple[float, float]] = {}
        for row in stage.metrics:
            step, kl, reward = row.get("step"), row.get("eval/kl"), row.get("eval/reward")
            if step is not None and kl is not None and reward is not None:
                points[step] = (kl, reward)
        seeds.append(points)
    steps = sorted(set.intersection(*(set(points) for points in seeds))) if seeds else []
    found: list[tuple[float, float, float]] = []
    for step in steps:
        rewards = [points[step][1] for points in seeds]
        error = stdev(rewards) / len(rewards) ** 0.5 if len(rewards) > 1 else 0.0
        found.append((fmean(points[step][0] for points in seeds), fmean(rewards), error))
    return found
