"""Metrics over steps: which of them a kind of stage shows, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accord.report.case import kl_budget
from accord.report.read import Stage
from accord.report.svg import HEX, Key, Sheet, log_values, number_axis, percent, tone
from accord.report.values import Row, measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW, MANY = 30, 60  # up to FEW points get markers, more than MANY get a moving average
WIDE = 20  # a metric that spans more than this factor gets a logarithmic axis
UNSCORED = "reward/unscored"
PARTS = "reward/*"
UNSURE = ("reward/spread", "reward/outside")  # what a reward model says of itself

# By kind of stage: the title of a figure, and its panels from the top down, each with the metrics it shows.
OPTIMISER = {"Learning rate and gradient norm": ["lr", "grad_norm"]}
LANGUAGE = {
    "Loss": ["loss eval/loss"],
    "Perplexity": ["perplexity eval/perplexity"],
    **OPTIMISER,
    "Throughput": ["tokens_per_second"],
}
PAIRS = {
    "Loss": ["loss eval/loss"],
    "Accuracy: chosen above rejected": ["accuracy eval/accuracy"],
    "Margin: chosen minus rejected": ["margin eval/margin"],
}
LOGPS = {"Log-probability of the answers": ["chosen_logp rejected_logp eval/chosen_logp eval/rejected_logp"]}
CURVES: dict[str, dict[str, list[str]]] = {
    "pretrain": LANGUAGE,
    "sft": LANGUAGE,
    "reward": {**PAIRS, **OPTIMISER},
    "preference": {**PAIRS, **LOGPS, "Baseline of rated answers": ["baseline eval/baseline"], **OPTIMISER},
    "policy": {
        "Reward": ["reward/mean eval/reward", PARTS],
        "KL to the reference": ["kl/mean eval/kl", "kl/beta"],
        "Losses": ["policy/loss", "value/loss", "kl/loss", "mix/loss"],
        "Entropy and clipping": ["policy/entropy", "policy/clip_fraction", "value/clip_fraction"],
        "How far updates go": ["policy/ratio_max policy/ratio_min", "policy/approx_kl"],
        "Explained variance of the value": ["value/explained_variance"],
        "Variety of answers": ["rollout/distinct"],
        "Length and share finished": ["rollout/length eval/length", "rollout/finished eval/finished"],
        "Sampler mismatch": ["sampler/mismatch"],
        "Answers without a score": [UNSCORED],
        "Answers unlike the reward model's training data": ["reward/outside"],
        **OPTIMISER,
    },
}
LABELS = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "reward/mean": "mean reward",
    PARTS: "parts of the reward",
    "reward/outside": "share outside the training range",
    "kl/mean": "KL",
    "kl/beta": "KL weight (beta)",
    "eval/kl": "held-out KL",
    "rollout/finished": "share finished",
    "rollout/distinct": "different pairs of tokens",
    "eval/finished": "held-out share finished",
    "policy/entropy": "entropy",
    "policy/clip_fraction": "clip fraction",
    "policy/ratio_max": "largest ratio, new to old",
    "policy/ratio_min": "smallest ratio",
    "policy/approx_kl": "KL from the policy that sampled",
    "kl/loss": "KL loss",
    "value/explained_variance": "explained variance",
    "sampler/mismatch": "mismatch",
}
WHOLE = ("policy/", "value/", "mix/")  # whose first part the label needs


@dataclass(frozen=True, eq=False)
class Line:
    """One metric over steps; NaN where it was measured and was not finite."""

    key: str
    group: str  # the ensemble member or fold, or ""
    steps: np.ndarray
    values: np.ndarray

    @property
    def held(self) -> bool:
        """Whether it was measured on held-out data."""
        return self.key.startswith("eval/")

    @property
    def window(self) -> int:
        """Over how many points to average; 0 for a short line and for what is set, not measured."""
        if len(self.steps) <= MANY or self.key in ("lr", "kl/beta"):
            return 0
        return max(5, len(self.steps) // 20) | 1


def draw_curves(stage: Stage, title: str, panels: Sequence[str]) -> Sheet | None:
    """Draw metrics over steps, in one panel or in several above each other; None without any data."""
    rows = _with_perplexity(stage.metrics) if stage.kind in ("pretrain", "sft") else stage.metrics
    found = {panel: lines for panel in panels if (lines := _lines(rows, panel))}
    if not found:
        return None
    sheet = Sheet(title)
    axes = sheet.figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    every = [line for lines in found.values() for line in lines]
    colours = _colours(every)
    for ax, (panel, lines) in zip(axes, found.items(), strict=True):
        if len(found) > 1:
            ax.set_title(LABELS.get(panel) or label(lines[0].key))
        mixed = len({line.held for line in lines}) > 1
        for line in lines:
            draw_line(sheet, ax, line, colours[line], mixed)
        if any(line.key in ("kl/mean", "eval/kl") for line in lines):
            draw_budget(sheet, stage, ax.axhline)
        if any(line.key in ("accuracy", "eval/accuracy") for line in lines):
            draw_bounds(sheet, stage, ax)
        if all(line.key in ("perplexity", "eval/perplexity") for line in lines) and _spread(lines) > WIDE:
            log_values(ax)
    number_axis(axes[-1], "step")
    for ax, lines in zip(axes, found.values(), strict=True):
        if lines[0].key.endswith("accuracy"):
            ax.yaxis.set_major_formatter(percent)
    sheet.legend.sort(key=lambda key: key.colour == "muted")  # members first, then what dashes mean
    windows = sorted({line.window for line in every if line.window})
    if windows:
        text = f"thin: every point; thick: moving average of {' or '.join(map(str, windows))} points"
        sheet.legend.append(Key(text, "muted", "faint"))
    broken = sum(int(np.isnan(line.values).sum()) for line in every)
    if broken:
        sheet.notes.append(f"{broken} value{'s' * (broken > 1)} not finite, shown as gaps.")
    return sheet


def draw_budget(sheet: Sheet, stage: Stage, line: Callable[..., object]) -> None:
    """Mark the stage's KL budget, where it has one; `line` is `axhline` or `axvline`."""
    budget = kl_budget(stage)
    if budget is not None:
        line(budget, color=HEX["ink"], linewidth=1.3, linestyle="--")
        sheet.legend.append(Key(f"KL budget {budget:g}", "ink", "dash"))


def draw_bounds(sheet: Sheet, stage: Stage, ax: Axes) -> None:
    """Mark what accuracy a coin has and, where they are known, what annotators and a judge without error have."""
    bounds = [("chance", 0.5, ":")]
    for key, words, style in (("agreement", "two annotators agree", "-."), ("ceiling", "a perfect judge", "--")):
        found = measure(stage.result.get(key))
        if found:
            bounds.append((words, found.value, style))
    for words, value, style in bounds:
        ax.axhline(value, color=HEX["ink"], linewidth=1.2, linestyle=style)
        mark = {":": "dots", "-.": "mixed"}.get(style, "dash")
        sheet.legend.append(Key(f"{words} {percent(round(value, 3))}", "ink", mark))


def label(key: str) -> str:
    """Turn a metric's key into words."""
    if key in LABELS:
        return LABELS[key]
    held, name = key.startswith("eval/"), key.removeprefix("eval/")
    if not name.startswith(WHOLE):
        name = name.rpartition("/")[2]
    words = name.replace("/", " ").replace("_", " ").replace("logp", "log-probability")
    return f"held-out {words}" if held else words


def _with_perplexity(rows: Sequence[Row]) -> list[Row]:
    """Add the perplexity of the training loss, a mean over tokens, where it is not written out."""
    found: list[Row] = []
    for row in rows:
        loss = row.get("loss")
        more: Row = {} if loss is None or "perplexity" in row else {"perplexity": math.exp(min(loss, 700.0))}
        found.append(row | more)
    return found


def _spread(lines: Sequence[Line]) -> float:
    values = np.concatenate([line.values for line in lines])
    return float(np.nanmax(values) / max(float(np.nanmin(values)), 1e-9))


def _lines(rows: Sequence[Row], panel: str) -> list[Line]:
    """Collect a panel's metrics by ensemble member, or by fold or share of the data while there is nothing else."""
    rows = [row for row in rows if row.get("fold") is None and row.get("share") is None] or rows
    by = next((k for k in ("member", "fold", "share") if any(row.get(k) is not None for row in rows)), "")
    found: list[Line] = []
    for key in _parts(rows) if panel == PARTS else panel.split():
        groups: dict[str, dict[float, float]] = {}
        for row in rows:
            step, of = row.get("step"), row.get(by)
            if step is not None and key in row:
                value = row[key]
                points = groups.setdefault(f"{by} {of:g}" if of is not None else "", {})
                # The last row of a step counts: a resumed run may repeat one.
                points[step] = math.nan if value is None else value
        for group, points in groups.items():
            steps = np.array(sorted(points))
            values = np.array([points[step] for step in steps])
            blank = np.isnan(values).all() or (key == UNSCORED and not values.any())
            if not blank:
                found.append(Line(key, group, steps, values))
    return found


def _parts(rows: Sequence[Row]) -> list[str]:
    """The parts of the reward; one part alone is the reward."""
    found = dict.fromkeys(key for row in rows for key in row if key.startswith("reward/"))
    parts = [key for key in found if key not in ("reward/mean", UNSCORED, *UNSURE)]
    return parts if len(parts) > 1 else []


def _colours(lines: Sequence[Line]) -> dict[Line, str]:
    """One colour for each ensemble member; else for each metric, its held-out twin included; else for each line."""
    names = [line.group or line.key.removeprefix("eval/") for line in lines]
    if len(set(names)) == 1:
        names = [line.key for line in lines]
    order = list(dict.fromkeys(names))
    return {line: tone(order.index(name)) for line, name in zip(lines, names, strict=True)}


def draw_line(sheet: Sheet, ax: Axes, line: Line, colour: str, mixed: bool) -> None:
    """Draw one metric over steps, with its moving average where there are many, and name it in the legend."""
    style, mark = ("--", "dash") if mixed and line.held else ("-", "line")
    marker = "o" if len(line.steps) <= FEW else ""
    values = line.values
    if line.window:
        ax.plot(line.steps, values, color=HEX[colour], linewidth=0.8, alpha=0.45)
        values = _moving_average(values, line.window)
    ax.plot(line.steps, values, style, marker=marker, color=HEX[colour])
    keys = [Key(label(line.key), colour, mark)]
    if line.group:  # naming every member's every curve would drown the figure
        keys = [Key(line.group, colour), *([Key(label(line.key), "muted", mark)] if mixed else [])]
    sheet.legend += [key for key in keys if key not in sheet.legend]


def _moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Average the finite values around each point; the window is cut off at both ends."""
    finite = ~np.isnan(values)
    kernel = np.ones(window)
    total = np.convolve(np.where(finite, values, 0), kernel, "same")
    count = np.convolve(finite, kernel, "same")
    return np.where(finite, total / np.maximum(count, 1), np.nan)
