"""Draws people's ratings: a group of bars for each thing rated, a bar for each model, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from accord.report.svg import HEX, Key, Sheet, percent, tone
from accord.report.values import Measure
from accord.report.words import named

REACH = 1.96  # standard errors of a 95 % interval
SHARE = "preferred"


def draw_ratings(columns: Mapping[str, Mapping[str, Measure]]) -> list[Sheet]:
    """A figure of the ratings and one of the votes won, each where there is one. `columns` is model -> name -> value."""
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    scales = [name for name in names if name != SHARE]
    sheets = [_bars("What people say of the answers", columns, scales)] if scales else []
    if SHARE in names:
        sheet = _bars("Votes won, ties as half", columns, [SHARE])
        ax = sheet.figure.axes[0]
        ax.axhline(0.5, color=HEX["ink"], linewidth=1, linestyle="--")
        ax.yaxis.set_major_formatter(percent)
        sheets.append(sheet)
    return sheets


def _bars(title: str, columns: Mapping[str, Mapping[str, Measure]], names: list[str]) -> Sheet:
    models = [model for model, found in columns.items() if any(name in found for name in names)]
    sheet = Sheet(title)
    ax = sheet.figure.subplots()
    width = 0.8 / len(models)
    for at, model in enumerate(models):
        places = [i for i, name in enumerate(names) if name in columns[model]]
        found = [columns[model][names[i]] for i in places]
        x = np.array(places) + (at - (len(models) - 1) / 2) * width
        height, error = [m.value for m in found], [REACH * (m.stderr or 0.0) for m in found]
        ax.bar(x, height, 0.9 * width, color=HEX[tone(at)], alpha=0.75, linewidth=0)
        ax.errorbar(x, height, error, fmt="none", ecolor=HEX["ink"], elinewidth=1.1)
        sheet.legend.append(Key(model, tone(at), "fill"))
    ax.set_xticks(range(len(names)), [named(name) for name in names])
    ax.tick_params(axis="x", length=0)
    sheet.notes.append("Lines show the 95 % interval.")
    return sheet
