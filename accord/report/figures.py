"""Draws a training stage's figures: its curves over steps, and what only its kind has."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from accord.report.curves import CURVES, draw_budget, draw_curves
from accord.report.read import Stage
from accord.report.svg import HEX, RAMP, Key, Sheet, number_axis, percent, tone
from accord.report.values import Measure, measure, number, table, tables
from accord.report.words import MINUS, show

TIMES = ("time/rollout", "time/score", "time/prepare", "time/update")


def draw_stage(stage: Stage) -> list[Sheet]:
    """Draw every figure of a training stage that there is data for."""
    sheets = [draw_curves(stage, title, panels) for title, panels in CURVES.get(stage.kind, {}).items()]
    sheets += [make(stage) for make in SPECIAL.get(stage.kind, ())]
    found = [sheet for sheet in sheets if sheet]
    if len(found) % 2 and stage.kind == "reward" and (filler := draw_pair_margins(stage)):
        found.append(filler)  # only where the page's two columns would leave a gap
    return found


def draw_times(stage: Stage) -> Sheet | None:
    """Draw where a policy stage's seconds went, stacked per step."""
    keys = [key for key in TIMES if any(row.get(key) is not None for row in stage.metrics)]
    rows = {row.get("step"): [row.get(key) for key in keys] for row in stage.metrics}
    parts = [[step, *values] for step, values in rows.items() if step is not None and None not in values]
    if not keys or not parts:
        return None
    steps, *heights = np.array(sorted(parts), dtype=float).T
    sheet = Sheet("Seconds per step")
    ax = sheet.figure.subplots()
    below = np.zeros(len(steps))
    for at, (key, height) in enumerate(zip(keys, heights, strict=True)):
        ax.fill_between(steps, below, below + height, color=HEX[tone(at)], alpha=0.75, linewidth=0.4)
        sheet.legend.append(Key(key.removeprefix("time/"), tone(at), "fill"))
        below = below + height
    ax.set_ylim(0)
    number_axis(ax, "step")
    return sheet


def draw_frontier(stage: Stage) -> Sheet | None:
    """Draw held-out reward against KL by step, with the chosen checkpoint and the budget."""
    found: dict[float, tuple[float, float, float]] = {}
    for row in stage.metrics:
        at, x, y = row.get("step"), row.get("eval/kl"), row.get("eval/reward")
        if at is not None and x is not None and y is not None:
            stderr = row.get("eval/reward_stderr")
            found[at] = (x, y, math.nan if stderr is None else stderr)
    if not found:
        return None
    steps = sorted(found)
    kl, reward, error = np.array([found[at] for at in steps]).T
    sheet = Sheet("Held-out reward against KL")
    ax = sheet.figure.subplots()
    ax.plot(kl, reward, color=HEX["muted"], linewidth=0.9, alpha=0.6)
    ax.errorbar(kl, reward, error, fmt="none", ecolor=HEX["muted"], elinewidth=0.9, alpha=0.8)
    first, last = steps[0], steps[-1]
    shade = [RAMP[round((len(RAMP) - 1) * (at - first) / max(last - first, 1.0))] for at in steps]
    ax.scatter(kl, reward, s=38, c=[HEX[name] for name in shade], zorder=3)
    ends = dict.fromkeys([(f"step {first:g}", shade[0]), (f"step {last:g}", shade[-1])])
    sheet.legend += [Key(text, colour, "dot") for text, colour in ends]
    chosen = number(stage.result.get("step"))
    if chosen in found:
        x, y, _ = found[chosen]
        ax.plot(x, y, "o", markersize=13, markerfacecolor="none", color=HEX["ink"])
        sheet.legend.append(Key(f"chosen checkpoint, step {chosen:g}", "ink", "ring"))
    draw_budget(sheet, stage, ax.axvline)
    if not np.isnan(error).all():
        sheet.notes.append("Bars show one standard error.")
    ax.set_ylabel("held-out reward")
    number_axis(ax, "held-out KL (nats per answer)", whole=False)
    return sheet


def draw_pair_rewards(stage: Stage) -> Sheet | None:
    """Draw the rewards of chosen and rejected answers on held-out pairs over each other."""
    pairs = _pair_rewards(stage)
    groups = {"chosen": [chosen for chosen, _ in pairs], "rejected": [rejected for _, rejected in pairs]}
    sheet = histogram("Reward of held-out answers", groups, "reward", "answers")
    if sheet and len(stage.scores) > 1:
        sheet.notes.append(f"Each reward is the mean of {len(stage.scores)} ensemble members.")
    return sheet


def draw_pair_margins(stage: Stage) -> Sheet | None:
    """Draw how far apart the two answers of each held-out pair are."""
    margins = [chosen - rejected for chosen, rejected in _pair_rewards(stage)]
    sheet = histogram("Margin of held-out pairs", {"margin": margins}, "margin", "pairs")
    if sheet:
        sheet.figure.axes[0].axvline(0, color=HEX["ink"], linewidth=1, linestyle="--")
        sheet.notes.append("Left of the dashed line, the rejected answer scores higher.")
    return sheet


def _pair_rewards(stage: Stage) -> list[tuple[float, float]]:
    """The rewards of chosen and rejected of each held-out pair, averaged over the ensemble."""
    found: list[tuple[float, float]] = []
    for rows in zip(*stage.scores, strict=True):
        both = [(row.get("chosen"), row.get("rejected")) for row in rows]
        known = [(chosen, rejected) for chosen, rejected in both if chosen is not None and rejected is not None]
        if len(known) == len(rows):
            chosen, rejected = np.mean(known, axis=0)
            found.append((float(chosen), float(rejected)))
    return found


def draw_reliability(stage: Stage) -> Sheet | None:
    """Draw how often the answer that is preferred is the better one, against how sure the reward model is of it."""
    points = [(number(p.get("confidence")), measure(p)) for p in tables(stage.result.get("reliability"))]
    known = [(sure, right) for sure, right in points if sure is not None and right]
    if not known:
        return None
    sheet = Sheet("Right as often as sure, on held-out pairs")
    ax = sheet.figure.subplots()
    sure, right = [x for x, _ in known], [found.value for _, found in known]
    ax.errorbar(sure, right, [found.stderr or 0.0 for _, found in known], fmt="o-", color=HEX[tone(0)], elinewidth=0.9)
    ax.plot([0.5, 1], [0.5, 1], color=HEX["ink"], linewidth=1.2, linestyle="--")
    sheet.legend += [Key("held-out pairs in ten bins", tone(0), "dot"), Key("as sure as right", "ink", "dash")]
    error = measure(stage.result.get("ece"))
    if error:
        sheet.notes.append(f"Expected calibration error {percent(error.value)}. Bars show one standard error.")
    ax.set_xlabel("probability of the preferred answer")
    ax.set_ylabel("share that is right")
    ax.xaxis.set_major_formatter(percent)
    ax.yaxis.set_major_formatter(percent)
    return sheet


def draw_learning_curve(stage: Stage) -> Sheet | None:
    """Draw the accuracy on the same held-out pairs after learning from more and more labels, and the line through it."""
    curve = table(stage.result.get("learning_curve"))
    found = [(number(p.get("labels")), measure(p)) for p in tables(curve.get("points"))]
    points = [(labels, right) for labels, right in found if labels and right]
    gain = measure(curve.get("gain"))
    if len(points) < 2 or not gain:
        return None
    sheet = Sheet("Accuracy against labels")
    ax = sheet.figure.subplots()
    doublings = np.log2([labels for labels, _ in points])
    right = np.array([reached.value for _, reached in points])
    ax.errorbar(doublings, right, [reached.stderr or 0.0 for _, reached in points], fmt="o", color=HEX[tone(0)])
    ax.plot(doublings, right.mean() + gain.value * (doublings - doublings.mean()), "--", color=HEX[tone(1)])
    words = f"{show('', Measure(100 * gain.value, 100 * (gain.stderr or 0.0)))} points for each doubling"
    sheet.legend += [Key("one fit", tone(0), "dot"), Key(words, tone(1), "dash")]
    sheet.notes.append("Bars show one standard error; all fits are judged by the same pairs.")
    ax.set_xticks(doublings, [f"{labels:,.0f}" for labels, _ in points])
    ax.set_xlabel("labels learned from")
    ax.yaxis.set_major_formatter(percent)
    return sheet


def draw_folds(stage: Stage) -> Sheet | None:
    """Draw the accuracy of every cross-validation fold around their mean."""
    folds = table(stage.result.get("folds"))
    listed = folds.get("each")
    each = [v for item in listed if (v := number(item)) is not None] if isinstance(listed, list) else []
    if not each:
        return None
    sheet = Sheet("Accuracy by cross-validation fold")
    ax = sheet.figure.subplots()
    names = [str(at) for at in range(1, len(each) + 1)]
    ax.plot(names, each, "o", color=HEX[tone(0)], markersize=7)
    sheet.legend.append(Key("one fold", tone(0), "dot"))
    mean = measure(folds)
    if mean:
        ax.axhline(mean.value, color=HEX[tone(1)], linestyle="--")
        sheet.legend.append(Key(f"mean {percent(mean.value)}", tone(1), "dash"))
    if mean and mean.stderr:
        low, high = mean.value - mean.stderr, mean.value + mean.stderr
        ax.axhspan(low, high, color=HEX[tone(1)], alpha=0.15, linewidth=0)
        sheet.notes.append("The band is one standard error.")
    ax.margins(0.15, 0.25)
    ax.set_xlabel("fold")
    ax.yaxis.set_major_formatter(percent)
    return sheet


SPECIAL: dict[str, tuple[Callable[[Stage], Sheet | None], ...]] = {
    "reward": (draw_pair_rewards, draw_reliability, draw_learning_curve, draw_folds),
    "policy": (draw_frontier, draw_times),
}


def histogram(title: str, groups: dict[str, list[float]], xlabel: str, unit: str) -> Sheet | None:
    """Draw each group's shares over the same bins, so that groups of unlike size compare."""
    every = [value for values in groups.values() for value in values]
    if not every:
        return None
    sheet = Sheet(title)
    ax = sheet.figure.subplots()
    largest = max(len(values) for values in groups.values())
    edges = np.histogram_bin_edges(every, bins=min(30, max(6, math.isqrt(largest) * 2)))
    for at, (name, values) in enumerate(groups.items()):
        if not values:
            continue
        shares = np.histogram(values, edges)[0] / len(values)
        ax.stairs(shares, edges, fill=True, color=HEX[tone(at)], alpha=0.22)
        ax.stairs(shares, edges, color=HEX[tone(at)], linewidth=1.5)
        mean = float(np.mean(values))
        ax.axvline(mean, color=HEX[tone(at)], linewidth=1.4, linestyle=":")
        words = f"mean {mean:.2f}, {len(values):,} {unit}".replace("-", MINUS)
        sheet.legend.append(Key(words if len(groups) == 1 else f"{name}, {words}", tone(at), "fill"))
    ax.set_ylim(0)
    ax.set_ylabel(f"share of {unit}")
    ax.yaxis.set_major_formatter(percent)
    number_axis(ax, xlabel, whole=False, values=False)
    sheet.notes.append("Dotted: the mean." if len(groups) == 1 else "Dotted: the means.")
    return sheet
