"""Draws a stage's figures as inline SVG whose colours are CSS variables of the page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from accord.report.read import Comparison, Row, Stage, measure, number, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib needs real colours; these stand for CSS variables, which the browser then chooses by
# light, dark or print.
TONES = ["ink", "muted", "grid", *[f"series-{i}" for i in range(1, 7)]]
RAMP = [f"ramp-{i}" for i in range(1, 7)]
HEX = {name: f"#0a0b{at:02x}" for at, name in enumerate([*TONES, *RAMP], start=1)}
VARIABLES = {colour: f"var(--{name})" for name, colour in HEX.items()}

WIDTH, HEIGHT = 420, 262  # in SVG units; text of 11 units is then about 13 px on a desktop page
ROUND = [1, 2, 2.5, 5, 10]  # steps between ticks
FEW, MANY = 30, 60  # up to FEW points get markers, more than MANY get a moving average
MINUS = "\u2212"
STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "accord",
    "text.parse_math": False,  # a model may be called "$x"
    "text.color": HEX["ink"],
    "ytick.major.size": 0,
    "lines.linewidth": 1.9,
    "lines.markersize": 4.5,
    "path.simplify_threshold": 0.3,
    "axes.titlelocation": "left",
    "axes.grid.axis": "y",
    **dict.fromkeys(("font.size", "axes.titlesize"), 11),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top")), False),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), HEX["grid"]),
    **dict.fromkeys(("axes.titlecolor", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), HEX["muted"]),
}


@dataclass(frozen=True)
class Key:
    """One legend entry; the legend is HTML, so that it wraps on a phone and covers no data."""

    label: str
    colour: str
    mark: str = "line"  # line, dash, faint, fill, dot or ring


@dataclass(frozen=True)
class Drawing:
    """A finished figure, ready to be put into the page."""

    title: str
    svg: str
    legend: tuple[Key, ...]
    note: str


@dataclass
class Sheet:
    """A figure while it is drawn, with the legend and the note it collects."""

    title: str
    figure: Figure
    legend: list[Key] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plot:
    """Which metrics share a figure: one or two panels over the same steps."""

    title: str
    panels: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Line:
    """One metric over steps; NaN where it was measured and was not finite."""

    key: str
    panel: str  # the key or pattern that asked for it
    group: str
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


UNSCORED = "reward/unscored"
OPTIMISER = Plot("Learning rate and gradient norm", (("lr",), ("grad_norm",)))
LANGUAGE = (
    Plot("Loss", (("loss", "eval/loss"),)),
    Plot("Held-out perplexity", (("eval/perplexity",),)),
    OPTIMISER,
    Plot("Throughput", (("tokens_per_second",),)),
)
PAIRS = (
    Plot("Loss", (("loss", "eval/loss"),)),
    Plot("Accuracy: chosen above rejected", (("accuracy", "eval/accuracy"),)),
    Plot("Margin: chosen minus rejected", (("margin", "eval/margin"),)),
)
LOGPS = ("chosen_logp", "rejected_logp", "eval/chosen_logp", "eval/rejected_logp")
PLOTS: dict[str, tuple[Plot, ...]] = {
    "pretrain": LANGUAGE,
    "sft": LANGUAGE,
    "reward": (*PAIRS, OPTIMISER),
    "preference": (*PAIRS, Plot("Log-probability of the answers", (LOGPS,)), OPTIMISER),
    "policy": (
        Plot("Reward", (("reward/mean", "eval/reward"), ("reward/*",))),
        Plot("KL to the reference", (("kl/mean", "eval/kl"), ("kl/beta",))),
        Plot("Losses", (("policy/loss",), ("value/loss",))),
        Plot("Entropy and clipping", (("policy/entropy",), ("policy/clip_fraction",))),
        Plot("Explained variance of the value", (("value/explained_variance",),)),
        Plot("Length and share finished", (("rollout/length", "eval/length"), ("rollout/finished", "eval/finished"))),
        Plot("Sampler mismatch", (("sampler/mismatch",),)),
        Plot("Answers without a score", ((UNSCORED,),)),
        OPTIMISER,
    ),
}
TIMES = ("time/rollout", "time/score", "time/prepare", "time/update")
LABELS = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "reward/mean": "mean reward",
    "reward/*": "parts of the reward",
    "kl/mean": "KL",
    "kl/beta": "KL weight (beta)",
    "eval/kl": "held-out KL",
    "rollout/finished": "share finished",
    "eval/finished": "held-out share finished",
    "policy/entropy": "entropy",
    "policy/clip_fraction": "clip fraction",
    "value/explained_variance": "explained variance",
    "sampler/mismatch": "mismatch",
}
WHOLE = ("policy/", "value/")  # whose first part the label needs


def draw(stage: Stage, prefix: str) -> tuple[Drawing, ...]:
    """Draw every figure the stage has data for; `prefix` keeps SVG ids apart within the page."""
    from matplotlib import style

    with style.context(["default", STYLE]), warnings.catch_warnings():
        # The browser's fonts show what matplotlib's own cannot measure.
        warnings.filterwarnings("ignore", message="Glyph")
        sheets = [draw_curves(stage, plot) for plot in PLOTS.get(stage.kind, ())]
        sheets += [make(stage) for make in SPECIAL.get(stage.kind, ())]
        found = [sheet for sheet in sheets if sheet is not None]
        return tuple(_finish(sheet, f"{prefix}f{at}") for at, sheet in enumerate(found))


def draw_curves(stage: Stage, plot: Plot) -> Sheet | None:
    """Draw metrics over steps, in one panel or in two above each other."""
    panels = [_lines(stage.metrics, keys) for keys in plot.panels]
    panels = [lines for lines in panels if lines]
    if not panels:
        return None
    sheet = _sheet(plot.title)
    axes = sheet.figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    owners = _owners([line for lines in panels for line in lines])
    for ax, lines in zip(axes, panels, strict=True):
        if len(panels) > 1:
            ax.set_title(LABELS.get(lines[0].panel) or label(lines[0].key))
        mixed = len({line.held for line in lines}) > 1
        for line in lines:
            _draw_line(sheet, ax, line, tone(owners[line]), mixed)
        if any(line.key.startswith(("kl/mean", "eval/kl")) for line in lines):
            _draw_budget(sheet, stage, ax.axhline)
    _number_axis(axes[-1], "step")
    sheet.legend.sort(key=lambda key: key.colour == "muted")  # members first, then what dashes mean
    windows = sorted({line.window for lines in panels for line in lines if line.window})
    if windows:
        text = f"thin: every point; thick: moving average of {' or '.join(map(str, windows))} points"
        sheet.legend.append(Key(text, "muted", "faint"))
    broken = sum(int(np.isnan(line.values).sum()) for lines in panels for line in lines)
    if broken:
        sheet.notes.append(f"{broken} value{'s' * (broken > 1)} not finite, shown as gaps.")
    return sheet


def draw_times(stage: Stage) -> Sheet | None:
    """Draw where a policy stage's seconds went, stacked per step."""
    named = [key for key in TIMES if any(row.get(key) is not None for row in stage.metrics)]
    keys = named if TIMES[-1] in named else [*named, "seconds"]
    rows = {row.get("step"): [row.get(key) for key in keys] for row in stage.metrics}
    parts = [[step, *values] for step, values in rows.items() if step is not None and None not in values]
    if not named or not parts:
        return None
    steps, *heights = np.array(sorted(parts), dtype=float).T
    if "seconds" in keys:  # of the whole step: what the named parts leave is the update
        heights[-1] = np.maximum(heights[-1] - sum(heights[:-1]), 0)
    sheet = _sheet("Seconds per step")
    ax = sheet.figure.subplots()
    below = np.zeros(len(steps))
    for at, (key, height) in enumerate(zip(keys, heights, strict=True)):
        ax.fill_between(steps, below, below + height, color=HEX[tone(at)], alpha=0.75, linewidth=0.4)
        words = "the rest of the step" if key == "seconds" else key.removeprefix("time/")
        sheet.legend.append(Key(words, tone(at), "fill"))
        below = below + height
    ax.set_ylim(0)
    _number_axis(ax, "step")
    return sheet


def draw_frontier(stage: Stage) -> Sheet | None:
    """Draw held-out reward against KL by step, with the chosen checkpoint and the budget."""
    rows = _evaluations(stage.metrics)
    if not rows:
        return None
    step, kl, reward, error = np.array(rows).T
    sheet = _sheet("Held-out reward against KL")
    ax = sheet.figure.subplots()
    ax.plot(kl, reward, color=HEX["muted"], linewidth=0.9, alpha=0.6)
    ax.errorbar(kl, reward, error, fmt="none", ecolor=HEX["muted"], elinewidth=0.9, alpha=0.8)
    span = max(float(step[-1] - step[0]), 1.0)
    shade = [RAMP[round((len(RAMP) - 1) * float(s - step[0]) / span)] for s in step]
    ax.scatter(kl, reward, s=38, c=[HEX[name] for name in shade], zorder=3)
    ends = dict.fromkeys([(f"step {step[0]:g}", shade[0]), (f"step {step[-1]:g}", shade[-1])])
    sheet.legend += [Key(text, colour, "dot") for text, colour in ends]
    _draw_chosen(sheet, stage, ax, {s: (x, y) for s, x, y, _ in rows})
    _draw_budget(sheet, stage, ax.axvline)
    if not np.isnan(error).all():
        sheet.notes.append("Bars show one standard error.")
    ax.set_ylabel("held-out reward")
    _number_axis(ax, "held-out KL (nats per answer)", whole=False)
    return sheet


def draw_pair_rewards(stage: Stage) -> Sheet | None:
    """Draw the rewards of chosen and rejected answers on held-out pairs over each other."""
    groups = {key: _finite(row.get(key) for row in stage.scores) for key in ("chosen", "rejected")}
    return _histogram("Reward of held-out answers", groups, "reward", "answers")


def draw_pair_margins(stage: Stage) -> Sheet | None:
    """Draw how far apart the two answers of each held-out pair are."""
    pairs = [(row.get("chosen"), row.get("rejected")) for row in stage.scores]
    margins = [a - b for a, b in pairs if a is not None and b is not None]
    sheet = _histogram("Margin of held-out pairs", {"margin": margins}, "margin", "pairs")
    if sheet:
        sheet.figure.axes[0].axvline(0, color=HEX["ink"], linewidth=1, linestyle="--")
        sheet.notes.append("Left of the dashed line, the rejected answer scores higher.")
    return sheet


def draw_folds(stage: Stage) -> Sheet | None:
    """Draw the accuracy of every cross-validation fold around their mean."""
    folds = table(stage.result.get("folds"))
    listed = folds.get("each")
    each = _finite(number(v) for v in listed) if isinstance(listed, list) else []
    if not each:
        return None
    sheet = _sheet("Accuracy by cross-validation fold")
    ax = sheet.figure.subplots()
    names = [str(at) for at in range(1, len(each) + 1)]
    ax.plot(names, each, "o", color=HEX[tone(0)], markersize=7)
    sheet.legend.append(Key("one fold", tone(0), "dot"))
    mean = measure(folds)
    if mean:
        ax.axhline(mean.value, color=HEX[tone(1)], linestyle="--")
        sheet.legend.append(Key(f"mean {_percent(mean.value)}", tone(1), "dash"))
    if mean and mean.stderr:
        low, high = mean.value - mean.stderr, mean.value + mean.stderr
        ax.axhspan(low, high, color=HEX[tone(1)], alpha=0.15, linewidth=0)
        sheet.notes.append("The band is one standard error.")
    ax.margins(0.15, 0.25)
    ax.set_xlabel("fold")
    ax.yaxis.set_major_formatter(_percent)
    return sheet


def draw_model_rewards(stage: Stage) -> Sheet | None:
    """Draw the reward of every compared model's answers over each other."""
    if not stage.comparison:
        return None
    sampling = main_sampling(stage.comparison)
    groups: dict[str, list[float]] = {name: [] for name in stage.comparison.models}
    for answer in stage.comparison.answers:
        if answer.sampling == sampling and answer.reward is not None:
            groups.setdefault(answer.model, []).append(answer.reward)
    sheet = _histogram("Reward of the answers", groups, "reward", "answers")
    if sheet and sampling:
        sheet.notes.append(f"Sampling: {sampling}.")
    return sheet


def draw_win_rates(stage: Stage) -> Sheet | None:
    """Draw each model's win rate against the baseline, with the 50 % line."""
    found = stage.comparison
    models = list(found.models) if found else []
    key = win_rate_key(found) if found else ""
    rates = {m: found.models[m][key] for m in models if found and key in found.models[m]}
    rates = {m: rate for m, rate in rates.items() if found and m != found.baseline}
    if not found or not rates:
        return None
    sheet = _sheet(f"Win rate against {found.baseline}" if found.baseline else "Win rate")
    ax = sheet.figure.subplots()
    for at, (model, rate) in enumerate(rates.items()):
        colour = HEX[tone(models.index(model))]
        ax.barh(at, rate.value, 0.55, color=colour, alpha=0.85)
        ax.errorbar(rate.value, at, xerr=rate.stderr or None, color=HEX["ink"], capsize=4)
        edge = rate.value + (rate.stderr or 0) + 0.015
        ax.text(edge, at, f"{rate.value:.1%}".replace("%", " %"), va="center")
    ax.axvline(0.5, color=HEX["ink"], linewidth=1.2, linestyle="--")
    ax.set_yticks(range(len(rates)), [_shorten(model, 18) for model in rates])
    ax.set_ylim(len(rates) - 0.4, -0.6)
    ax.set_xlim(0, 1.14)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.grid(False)
    ax.xaxis.set_major_formatter(_percent)
    sheet.legend.append(Key("50 %: as often as the baseline", "ink", "dash"))
    sheet.notes.append("Error bars show one standard error.")
    return sheet


SPECIAL: dict[str, tuple[Callable[[Stage], Sheet | None], ...]] = {
    "reward": (draw_pair_rewards, draw_pair_margins, draw_folds),
    "policy": (draw_frontier, draw_times),
    "evaluate": (draw_model_rewards, draw_win_rates),
}


def main_sampling(comparison: Comparison) -> str:
    """Name the sampling that stands for the comparison: the first that is not greedy."""
    names = list(dict.fromkeys(answer.sampling for answer in comparison.answers))
    return next((name for name in names if name != "greedy"), names[0] if names else "")


def win_rate_key(comparison: Comparison) -> str:
    """Find the win rate that stands for the comparison: sampled answers before greedy ones."""
    keys = [key for metrics in comparison.models.values() for key in metrics]
    rates = [key for key in dict.fromkeys(keys) if key.rpartition("/")[2] == "win_rate"]
    return min(rates, key=lambda key: "@" in key, default="")


def label(key: str) -> str:
    """Turn a metric's key into words."""
    if key in LABELS:
        return LABELS[key]
    held, name = key.startswith("eval/"), key.removeprefix("eval/")
    if name.startswith("reward/"):
        name = name.removeprefix("reward/").rpartition("/")[2]
    elif not name.startswith(WHOLE):
        name = name.rpartition("/")[2]
    words = name.replace("/", " ").replace("_", " ").replace("logp", "log-probability")
    return f"held-out {words}" if held else words


def _lines(rows: Sequence[Row], keys: Sequence[str]) -> list[Line]:
    """Collect the metrics by ensemble member, or by fold while there is nothing else."""
    rows = [row for row in rows if row.get("fold") is None] or list(rows)
    by = next((k for k in ("member", "fold") if any(row.get(k) is not None for row in rows)), "")
    found: list[Line] = []
    for key, panel in _expand(rows, keys):
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
                found.append(Line(key, panel, group, steps, values))
    return found


def _expand(rows: Sequence[Row], keys: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each key with the pattern that asked for it."""
    if keys != ("reward/*",):
        return [(key, key) for key in keys]
    parts = dict.fromkeys(key for row in rows for key in row if key.startswith("reward/"))
    found = [(key, "reward/*") for key in parts if key not in ("reward/mean", UNSCORED)]
    return found if len(found) > 1 else []  # one part alone is the reward


def _owners(lines: Sequence[Line]) -> dict[Line, int]:
    """Number the colours: one for each ensemble member, else one for each metric."""
    names = [line.group or line.key.removeprefix("eval/") for line in lines]
    if len(set(names)) == 1:
        names = [line.key for line in lines]
    order = list(dict.fromkeys(names))
    return {line: order.index(name) for line, name in zip(lines, names, strict=True)}


def _draw_line(sheet: Sheet, ax: Axes, line: Line, colour: str, mixed: bool) -> None:
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


def _evaluations(rows: Sequence[Row]) -> list[tuple[float, float, float, float]]:
    found: dict[float, tuple[float, float, float, float]] = {}
    for row in rows:
        step, kl, reward = row.get("step"), row.get("eval/kl"), row.get("eval/reward")
        if step is not None and kl is not None and reward is not None:
            error = row.get("eval/reward_stderr")
            found[step] = (step, kl, reward, math.nan if error is None else error)
    return [found[step] for step in sorted(found)]


def _draw_budget(sheet: Sheet, stage: Stage, line: Callable[..., object]) -> None:
    budget = number(stage.result.get("kl_budget"))
    if budget is None:
        budget = number(table(stage.settings.get("params")).get("kl_budget"))
    if budget is not None:
        line(budget, color=HEX["ink"], linewidth=1.3, linestyle="--")
        sheet.legend.append(Key(f"KL budget {budget:g}", "ink", "dash"))


def _draw_chosen(sheet: Sheet, stage: Stage, ax: Axes, points: dict[float, tuple[float, float]]) -> None:
    step = number(stage.result.get("step"))
    if step is not None and step in points:
        ax.plot(*points[step], "o", markersize=13, markerfacecolor="none", color=HEX["ink"])
        sheet.legend.append(Key(f"chosen checkpoint, step {step:g}", "ink", "ring"))


def _histogram(title: str, groups: dict[str, list[float]], xlabel: str, unit: str) -> Sheet | None:
    """Draw each group's shares over the same bins, so that groups of unlike size compare."""
    every = [value for values in groups.values() for value in values]
    if not every:
        return None
    sheet = _sheet(title)
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
    ax.yaxis.set_major_formatter(_percent)
    _number_axis(ax, xlabel, whole=False, values=False)
    sheet.notes.append("Dotted: the mean." if len(groups) == 1 else "Dotted: the means.")
    return sheet


def _sheet(title: str) -> Sheet:
    from matplotlib.figure import Figure

    return Sheet(title, Figure(figsize=(WIDTH / 72, HEIGHT / 72), layout="constrained"))


def _number_axis(ax: Axes, name: str, whole: bool = True, values: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(name)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole, steps=ROUND))
    ax.xaxis.set_major_formatter(_short)
    for panel in ax.figure.axes if values else ():
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        panel.yaxis.set_major_formatter(_short)


def _short(value: float, _at: float = 0) -> str:
    text = f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.3e}".partition("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return text.replace("-", MINUS)


def _percent(value: float, _at: float = 0) -> str:
    return f"{100 * value:.3g} %"


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def tone(at: int) -> str:
    """Name the colour of the series at this place."""
    return f"series-{at % 6 + 1}"


def _finish(sheet: Sheet, prefix: str) -> Drawing:
    """Write the figure as SVG for a page: variables for colours, the page's font, its own ids."""
    text = io.StringIO()
    undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    sheet.figure.savefig(text, format="svg", metadata=undated)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Only inside tags: the text between them belongs to the user.
    svg = re.sub(r"<[^>]+>", lambda tag: _restyle(tag[0], prefix), svg)
    size = re.search(r'viewBox="[^"]+"', svg)
    root = f'<svg {size[0] if size else ""} role="img" aria-label="{escape(sheet.title)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: root, svg, count=1)
    return Drawing(sheet.title, svg, tuple(sheet.legend), " ".join(sheet.notes))


def _restyle(tag: str, prefix: str) -> str:
    if tag.startswith("<!--"):
        return ""
    # Groups are never referred to; markers and clip paths are, and must not meet another figure's.
    tag = re.sub(r'<g id="[^"]*"', "<g", tag.replace("xlink:href=", "href=").replace("\n", ""))
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)
    tag = re.sub(r'font-family: [^;"]*;? ?', "", tag)
    tag = re.sub(r'font: ([\d.]+px)[^;"]*', r"font-size: \1", tag)
    return re.sub(r"#0a0b[0-9a-f]{2}", lambda colour: VARIABLES[colour[0]], tag)
