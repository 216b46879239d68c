"""Compares models: the tables of results, what they say in words, and answers side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from accord.report.read import Answer, Comparison, Measure, Message, Trial
from accord.report.svg import MINUS

PROMPTS = 12  # cards of answers side by side
CLEAR = 2.0  # standard errors from the baseline that count as a difference
FIRST, LAST = ("gold", "reward", "win_rate"), ("kl", "perplexity", "length", "finished")  # other metrics between them
BETTER = {"gold": 1, "reward": 1, "win_rate": 1, "accuracy": 1, "finished": 1, "perplexity": -1, "loss": -1}
PERCENT = {"win_rate", "finished", "accuracy", "folds"}


@dataclass(frozen=True)
class Cell:
    """One entry of a comparison table."""

    text: str
    best: bool
    n: int | None


@dataclass(frozen=True)
class Board:
    """The comparison table of one suite: a block of rows for each way of sampling, in it a row for each model."""

    title: str
    metrics: tuple[str, ...]
    sizes: tuple[int | None, ...]  # answers behind a column, where its cells agree
    blocks: dict[str, dict[str, list[Cell | None]]]


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows, in words."""

    metric: str  # gold where it was measured, else reward
    headline: str
    warnings: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One prompt with every model's answers to it, the main sampling first."""

    prompt: tuple[Message, ...]
    answers: dict[str, tuple[Answer, ...]]
    top: float | None


@dataclass(frozen=True)
class Gap:
    """How far a model lies above the baseline, also in standard errors; None where these are not known."""

    value: float
    errors: float | None

    def __str__(self) -> str:
        text = f"{self.value:+.3g}".replace("-", MINUS)
        if self.errors is None:
            return text
        return f"{text} ({abs(self.errors):.1f} standard errors {'above' if self.errors > 0 else 'below'})"


def boards(compared: Comparison) -> Iterator[Board]:
    """Make one table for each suite."""
    models = sorted(compared.models, key=lambda name: name != compared.baseline)
    for suite in dict.fromkeys(trial.suite for trial in compared.trials):
        trials = [trial for trial in compared.trials if trial.suite == suite]
        trials.sort(key=lambda trial: trial.sampling != "sampled")
        metrics = sorted({metric for trial in trials for metric in trial.metrics}, key=_order)
        blocks: dict[str, dict[str, list[Cell | None]]] = {}
        for trial in trials:
            columns = [_column(trial, compared.baseline, metric) for metric in metrics]
            blocks[trial.sampling] = {name: [column.get(name) for column in columns] for name in models}
        rows = [row for block in blocks.values() for row in block.values()]
        counts = [{cell.n for cell in column if cell} for column in zip(*rows, strict=True)]
        sizes = tuple(found.pop() if len(found) == 1 else None for found in counts)
        title = suite if len(blocks) > 1 else f"{suite}, {trials[0].sampling}"
        yield Board(title, tuple(metrics), sizes, blocks)


def verdict(compared: Comparison) -> Verdict:
    """Say what the main trial shows: per model gold, else reward, against the baseline, best first."""
    trial, baseline = main_trial(compared), compared.baseline
    metric = "gold" if "gold" in trial.metrics else "reward"
    values = trial.metrics.get(metric, {})
    order = sorted(values, key=lambda name: -values[name].value)
    if baseline not in values or len(order) < 2:
        return Verdict(metric, f"The comparison has no {metric} for the baseline and another model.", (), ())
    lead, against = order[0], f"{baseline}'s {show(metric, values[baseline])}"
    gap = _gap(trial, baseline, lead, metric)
    if not gap:
        headline = f"No model has a higher mean {metric} than the baseline, {against}."
    elif gap.errors is None:
        headline = f"{lead} has the highest mean {metric}; without standard errors that says little."
    elif gap.errors > CLEAR:
        headline = f"{lead} leads on {metric}: {show(metric, values[lead])} against {against}."
    else:
        headline = f"No model is clearly ahead of {baseline} on {metric}."
    lines = [_versus(trial, baseline, name) for name in order if name != baseline]
    return Verdict(metric, headline, tuple(_warnings(compared)), tuple(lines))


def cards(compared: Comparison) -> Iterator[Card]:
    """Pair up the answers to the first prompts of the main suite; of repeated samples the first is shown."""
    main, suite = main_sampling(compared), main_trial(compared).suite
    prompts: dict[tuple[Message, ...], dict[tuple[str, str], Answer]] = {}
    for answer in sorted(compared.answers, key=lambda answer: answer.suite != suite):
        place = prompts.setdefault(answer.prompt, {})
        place.setdefault((answer.model, answer.sampling), answer)
    for prompt, found in list(prompts.items())[:PROMPTS]:
        answers: dict[str, tuple[Answer, ...]] = {}
        names = dict.fromkeys([compared.baseline, *(model for model, _ in found)])
        for name in names:
            own = [answer for answer in found.values() if answer.model == name]
            if own:
                answers[name] = tuple(sorted(own, key=lambda answer: answer.sampling != main))
        rewards = [own[0].reward for own in answers.values() if own[0].reward is not None]
        yield Card(prompt, answers, max(rewards) if len(rewards) > 1 else None)


def main_trial(compared: Comparison) -> Trial:
    """The trial that stands for the comparison: one with gold first, then one with a reward, sampled before greedy."""
    return next(iter(_ranked(compared)), Trial("", "", {}))


def main_sampling(compared: Comparison) -> str:
    """The sampling that stands for the comparison: the first that is not greedy."""
    names = list(dict.fromkeys(answer.sampling for answer in compared.answers))
    return next((name for name in names if name != "greedy"), names[0] if names else "")


def show(name: str, found: Measure) -> str:
    """Write a value with its error, both to the error's second digit; shares as percentages."""
    share = name.rpartition("/")[2] in PERCENT
    value, error = found.value * (100 if share else 1), found.stderr
    if error:
        error *= 100 if share else 1
        digits = min(max(1 - math.floor(math.log10(error)), 0), 4)
        text = f"{value:,.{digits}f} ± {error:,.{digits}f}"
    elif value.is_integer() and abs(value) < 1e9:
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    # No line break inside a value.
    return (text.replace("-", MINUS) + (" %" if share else "")).replace(" ", "\u00a0")


def _ranked(compared: Comparison) -> list[Trial]:
    def rank(trial: Trial) -> tuple[bool, ...]:
        return "gold" not in trial.metrics, "reward" not in trial.metrics, trial.sampling != "sampled"

    return sorted(compared.trials, key=rank)


def _order(metric: str) -> tuple[int, int, str]:
    for place, known in ((0, FIRST), (2, LAST)):
        if metric in known:
            return place, known.index(metric), metric
    return 1, 0, metric


def _column(trial: Trial, baseline: str, metric: str) -> dict[str, Cell]:
    values, sign = trial.metrics.get(metric, {}), BETTER.get(metric, 0)
    first = max(values, key=lambda name: sign * values[name].value, default="")
    gap = _gap(trial, baseline, first, metric)
    best = first if gap and gap.errors is not None and sign * gap.errors > CLEAR else ""
    return {name: Cell(show(metric, value), name == best, value.n) for name, value in values.items()}


def _gap(trial: Trial, baseline: str, model: str, metric: str) -> Gap | None:
    """A model's distance from the baseline; None for the baseline itself and where either was not measured."""
    values = trial.metrics.get(metric, {})
    ours, base = values.get(model), values.get(baseline)
    if metric == "win_rate":
        base = Measure(0.5, 0.0)  # what a model equal to the baseline would get
    if not ours or not base or model == baseline:
        return None
    far = ours.value - base.value
    if ours.stderr is None or base.stderr is None:
        return Gap(far, None)
    # As if the two were independent; on the same prompts the true error is smaller, if anything.
    error = math.hypot(ours.stderr, base.stderr)
    return Gap(far, far / error if error else None)


def _versus(trial: Trial, baseline: str, model: str) -> str:
    gaps = {name: gap for name in ("gold", "reward") if (gap := _gap(trial, baseline, model, name))}
    parts = [f"{name} {gap}" for name, gap in gaps.items()]
    for name, words in (("win_rate", "win rate"), ("kl", "KL")):
        if model in trial.metrics.get(name, {}):
            parts.append(f"{words} {show(name, trial.metrics[name][model])}")
    return f"{model} against {baseline}: {', '.join(parts)}."


def _warnings(compared: Comparison) -> Iterator[str]:
    """Name every model whose reward is clearly above the baseline's and whose gold is not."""
    for model in compared.models:
        for at, trial in enumerate(_ranked(compared)):
            reward, gold = (_gap(trial, compared.baseline, model, name) for name in ("reward", "gold"))
            if not reward or not gold or reward.errors is None or reward.errors <= CLEAR:
                continue
            if gold.value >= 0 and trial.metrics["gold"][compared.baseline].value >= 1:
                continue  # every answer of the baseline was right already: gold had nowhere to rise
            risen = gold.value > 0 if gold.errors is None else gold.errors > CLEAR
            if not risen:
                place = f" ({trial.suite}, {trial.sampling})" if at else ""
                yield (
                    "Reward up, truth not: reward hacking. "
                    f"{model} against {compared.baseline}{place}: reward {reward}, gold {gold}."
                )
                break
