"""Compares models: the tables of results, and what they say model by model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accord.pitfalls.hacking import alone
from accord.report.gaps import gap
from accord.report.pitfalls import change
from accord.report.results import RATINGS, Comparison, Trial, main_trial, ranked
from accord.report.words import BETTER, PARTS, RANK, show, split

# The order of the columns; metrics that are named nowhere stand between the two.
FIRST = (
    RANK,
    "strength",
    "expected_win_rate",
    "gold",
    *PARTS,
    "reward",
    "win_rate",
    "length_controlled",
    "accuracy",
    "best_of_4",
    "categories_mean",
    "ties",
    "ece",
)
LAST = ("kl", "perplexity", "length", "finished")
SHARES = {"win", "tie", "lose"}  # drawn, and summed up by the win rate


@dataclass(frozen=True)
class Cell:
    """One entry of a comparison table."""

    value: str
    error: str = ""
    best: bool = False
    n: int | None = None


@dataclass(frozen=True)
class Board:
    """The comparison table of one suite: a block of rows for each way of sampling, in it a row for each model."""

    title: str
    metrics: tuple[str, ...]
    sizes: tuple[int | None, ...]  # answers behind a column, where its cells agree
    blocks: dict[str, dict[str, list[Cell | None]]]


def boards(compared: Comparison) -> Iterator[Board]:
    """Make one table for each suite."""
    models = sorted(compared.models, key=lambda name: name != compared.baseline)
    for suite in dict.fromkeys(trial.suite for trial in compared.trials):
        trials = [trial for trial in compared.trials if trial.suite == suite]
        trials.sort(key=lambda trial: trial.sampling != "sampled")
        found = {metric for trial in trials for metric in trial.metrics}
        metrics = sorted(found - SHARES if "win_rate" in found else found, key=order)
        blocks: dict[str, dict[str, list[Cell | None]]] = {}
        for trial in trials:
            columns = [_column(compared, trial, metric) for metric in metrics]
            ranks = trial.metrics.get(RANK, {})
            best = sorted(models, key=lambda name: ranks[name].value if name in ranks else 0.0)
            blocks[trial.sampling] = {name: [column.get(name) for column in columns] for name in best}
        rows = [row for block in blocks.values() for row in block.values()]
        counts = [{cell.n for cell in column if cell} for column in zip(*rows, strict=True)]
        sizes = tuple(found.pop() if len(found) == 1 else None for found in counts)
        title = suite if len(blocks) > 1 else titled(suite, trials[0].sampling)
        yield Board(title, tuple(metrics), sizes, blocks)


def titled(suite: str, sampling: str) -> str:
    """A suite and how it was sampled, where anything was: people's ratings and reward models have no sampling."""
    return suite if suite == RATINGS or suite.partition("/")[0] == "reward" else f"{suite}, {sampling}"


def versus(compared: Comparison) -> Iterator[str]:
    """Say how every model stands against the baseline in the main trial, best first."""
    trial, baseline = main_trial(compared), compared.baseline
    metric = next((name for name in ("gold", "reward", "win_rate") if name in trial.metrics), "gold")
    values = trial.metrics.get(metric, {})
    for model in sorted(values, key=lambda name: -values[name].value):
        gaps = {name: found for name in ("gold", "reward") if (found := gap(compared, trial, model, name))}
        parts = [f"{name} {found}" for name, found in gaps.items()]
        for name, words in (("win_rate", "win rate"), ("kl", "KL")):
            if model in trial.metrics.get(name, {}):
                parts.append(f"{words} {show(name, trial.metrics[name][model])}")
        if model != baseline and parts:
            yield f"{model} against {baseline}: {', '.join(parts)}."


def warnings(compared: Comparison) -> Iterator[str]:
    """Name every model whose reward is clearly above the baseline's and whose gold is not."""
    for model in compared.models:
        for at, trial in enumerate(ranked(compared)):
            if hacked(compared, trial, model):
                reward, gold = (gap(compared, trial, model, name) for name in ("reward", "gold"))
                place = f" ({trial.suite}, {trial.sampling})" if at else ""
                yield (
                    "Reward up, truth not: reward hacking. "
                    f"{model} against {compared.baseline}{place}: reward {reward}, gold {gold}."
                )
                break


def hacked(compared: Comparison, trial: Trial, model: str) -> bool:
    """Whether a model's reward is clearly above the baseline's and its gold is not."""
    reward, gold = (change(compared, trial, model, name) for name in ("reward", "gold"))
    return bool(reward and gold and alone(reward, gold))


def order(metric: str) -> tuple[int, int, str]:
    for place, known in ((0, FIRST), (2, LAST)):
        if metric in known:
            return place, known.index(metric), metric
    return 1, 0, metric


def _column(compared: Comparison, trial: Trial, metric: str) -> dict[str, Cell]:
    values, sign = trial.metrics.get(metric, {}), BETTER.get(metric, 0)
    first = max(values, key=lambda name: sign * values[name].value, default="")
    lead = gap(compared, trial, first, metric)
    best = first if lead and sign * lead.sure > 0 else ""
    found: dict[str, Cell] = {}
    for name, value in values.items():
        text, error, unit = split(metric, value)
        found[name] = Cell(text + unit, error, name == best, value.n)
    return found
