"""Compares models: the table of results, what it says in words, and answers side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from accord.report.read import Answer, Comparison, Measure, Message
from accord.report.svg import MINUS

PROMPTS = 12  # cards of answers side by side
ORDER = ("reward", "win_rate", "kl", "perplexity", "length", "finished")
BETTER = {"reward": 1, "win_rate": 1, "accuracy": 1, "finished": 1, "perplexity": -1, "loss": -1}
PERCENT = {"win_rate", "finished", "accuracy", "folds"}
CLEAR = 2.0  # standard errors from the baseline that count as a difference


@dataclass(frozen=True)
class Cell:
    """One entry of the comparison table."""

    text: str
    best: bool
    n: int | None


@dataclass(frozen=True)
class Board:
    """The comparison table of one set of prompts."""

    title: str
    metrics: tuple[str, ...]
    sizes: tuple[int | None, ...]  # answers behind a column, where its models agree
    rows: dict[str, tuple[Cell | None, ...]]


@dataclass(frozen=True)
class Card:
    """One prompt with every model's answers to it, the main sampling first."""

    prompt: tuple[Message, ...]
    answers: dict[str, tuple[Answer, ...]]
    top: float | None


def main_sampling(comparison: Comparison) -> str:
    """Name the sampling that stands for the comparison: the first that is not greedy."""
    names = list(dict.fromkeys(answer.sampling for answer in comparison.answers))
    return next((name for name in names if name != "greedy"), names[0] if names else "")


def win_rate_key(comparison: Comparison) -> str:
    """Find the win rate that stands for the comparison: sampled answers before greedy ones."""
    keys = [key for metrics in comparison.models.values() for key in metrics]
    rates = [key for key in dict.fromkeys(keys) if key.rpartition("/")[2] == "win_rate"]
    return min(rates, key=lambda key: "@" in key, default="")


def boards(compared: Comparison) -> Iterator[Board]:
    """Make one table for each set of prompts and way of sampling."""
    keys = dict.fromkeys(key for found in compared.models.values() for key in found)
    names = [compared.baseline, *compared.models]
    models = [name for name in dict.fromkeys(names) if name in compared.models]
    for group in dict.fromkeys(key.rpartition("/")[0] for key in keys):
        metrics = [key.rpartition("/")[2] for key in keys if key.rpartition("/")[0] == group]
        metrics.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
        columns = [_column(compared, models, group, metric) for metric in metrics]
        counts = [{cell.n for cell in column if cell} for column in columns]
        sizes = tuple(found.pop() if len(found) == 1 else None for found in counts)
        rows = dict(zip(models, zip(*columns, strict=True), strict=True))
        suite, _, how = group.rpartition("@") if "@" in group else (group, "", "sampled")
        title = f"{suite.rpartition('/')[2]}, {how}"
        yield Board(title, tuple(metrics), sizes, rows)


def _column(compared: Comparison, models: list[str], group: str, metric: str) -> tuple[Cell | None, ...]:
    key = f"{group}/{metric}" if group else metric
    found = {name: compared.models[name].get(key) for name in models}
    sign = BETTER.get(metric, 0)
    ranked = {name: sign * cell.value for name, cell in found.items() if cell}
    first = max(ranked, key=lambda name: ranked[name], default="")
    gap = _gap(compared, first, key)
    best = first if gap is not None and sign * gap > CLEAR else ""
    return tuple(Cell(show(metric, cell), name == best, cell.n) if cell else None for name, cell in found.items())


def _gap(compared: Comparison, model: str, key: str) -> float | None:
    """How many standard errors a model lies above the baseline; None where that is not known."""
    ours = compared.models.get(model, {}).get(key)
    base = compared.models.get(compared.baseline, {}).get(key)
    if key.endswith("win_rate"):
        base = Measure(0.5, 0.0)  # what a model equal to the baseline would get
    if not ours or not base or ours.stderr is None or base.stderr is None:
        return None
    if model == compared.baseline:
        return None
    # As if the two were independent; on the same prompts the true error is smaller, if anything.
    error = math.hypot(ours.stderr, base.stderr)
    return (ours.value - base.value) / error if error else None


def verdict(compared: Comparison) -> list[str]:
    """Say what the comparison shows: per model the reward against the baseline, best first."""
    keys = [key for found in compared.models.values() for key in found]
    rewards = [key for key in keys if key.rpartition("/")[2] == "reward"]
    key = min(rewards, key=lambda name: "@" in name, default="")
    values = {name: found[key] for name, found in compared.models.items() if key in found}
    base = values.get(compared.baseline)
    order = sorted(values, key=lambda name: -values[name].value)
    if not base or len(order) < 2:
        return ["The comparison has no reward for the baseline and another model."]
    against = f"{compared.baseline}'s {show('reward', base)}"
    lead = order[0]
    gap = _gap(compared, lead, key)
    if lead == compared.baseline:
        said = [f"No model has a higher mean reward than the baseline, {against}."]
    elif gap is None:
        said = [f"{lead} has the highest mean reward; without standard errors that says little."]
    elif gap > CLEAR:
        said = [f"{lead} leads on reward: {show('reward', values[lead])} against {against}."]
    else:
        said = [f"No model is clearly ahead of {compared.baseline} on reward."]
    return said + [_versus(compared, name, key) for name in order if name != compared.baseline]


def _versus(compared: Comparison, model: str, key: str) -> str:
    found, base = compared.models[model], compared.models[compared.baseline]
    gap = _gap(compared, model, key)
    far = found[key].value - base[key].value
    parts = [f"reward {f'{far:+.3g}'.replace('-', MINUS)} against {compared.baseline}"]
    if gap is not None:
        parts[0] += f" ({abs(gap):.1f} standard errors {'above' if gap > 0 else 'below'})"
    group = key.removesuffix("reward")
    for name, words in (("win_rate", "win rate"), ("kl", "KL")):
        if f"{group}{name}" in found:
            parts.append(f"{words} {show(name, found[f'{group}{name}'])}")
    return f"{model}: {', '.join(parts)}."


def cards(compared: Comparison) -> Iterator[Card]:
    """Pair up the answers to the first prompts; of repeated samples the first is shown."""
    main = main_sampling(compared)
    prompts: dict[tuple[Message, ...], dict[tuple[str, str], Answer]] = {}
    for answer in compared.answers:
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
