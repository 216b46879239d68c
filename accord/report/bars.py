"""Grouped bars with error bars: gold and its parts, people's ratings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from accord.report.results import RATINGS, Comparison
from accord.report.svg import HEX, Key, Sheet, number_axis, percent, tone
from accord.report.values import Measure
from accord.report.words import named

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_bars(
    models: Mapping[str, Mapping[str, Measure]], names: Sequence[str], *, sheet: Sheet | None = None,
    tones: Mapping[str, str] | None = None,
) -> Figure:  # fmt: skip
    """Draw a group of bars for each of `names` (metrics) with a bar for each model, and its standard error on it.

    On a `sheet` the legend is the page's; `tones` are the models' colours, unless given in their order. What a model was not
    measured in has no bar.
    """
    sheet = sheet or Sheet("")
    ax = sheet.figure.subplots()
    width = 0.84 / max(len(models), 1)
    for at, (name, found) in enumerate(models.items()):
        colour = tones[name] if tones else tone(at)
        bars = [(x, found[metric]) for x, metric in enumerate(names) if metric in found]
        places = [x + (at - (len(models) - 1) / 2) * width for x, _ in bars]
        values = [value.value for _, value in bars]
        ax.bar(places, values, 0.88 * width, color=HEX[colour], alpha=0.85)
        errors = [value.stderr or 0.0 for _, value in bars]
        ax.errorbar(places, values, errors, fmt="none", ecolor=HEX["ink"], elinewidth=1.1)
        sheet.legend.append(Key(name, colour, "fill"))
    # On a phone the text is larger against the figure; two words then need two lines.
    ax.set_xticks(range(len(names)), [named(m).replace("-", "-\n").replace(" ", "\n") for m in names])
    ax.tick_params(axis="x", length=0)
    if all(value.value >= 0 for found in models.values() for value in found.values()):
        ax.set_ylim(0)
    number_axis(ax, "", ticks=False)
    return sheet.figure


def draw_ratings(compared: Comparison) -> Iterator[Sheet]:
    """Draw people's ratings, the metrics of the suite `ratings`: those on a scale, and beside them shares from 0 to 1."""
    trial = next((trial for trial in compared.trials if trial.suite == RATINGS), None)
    metrics = trial.metrics if trial else {}
    tones = {name: tone(at) for at, name in enumerate(compared.models)}
    shares = [name for name, found in metrics.items() if all(0 <= value.value <= 1 for value in found.values())]
    for title, names in (("People's ratings", [m for m in metrics if m not in shares]), ("People's votes", shares)):
        models = {m: {name: metrics[name][m] for name in names if m in metrics[name]} for m in compared.models}
        models = {name: found for name, found in models.items() if found}
        if not models:
            continue
        sheet = Sheet(title)
        figure = draw_bars(models, names, sheet=sheet, tones=tones)
        if names is shares:
            figure.axes[0].yaxis.set_major_formatter(percent)
        sheet.notes.append("Error bars show one standard error.")
        yield sheet
