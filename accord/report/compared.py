"""Draws what an evaluate stage has to show: gold and its parts, wins, rewards, and over-optimisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accord.report.bars import draw_bars, draw_ratings
from accord.report.figures import histogram
from accord.report.overoptimisation import Fit, curve, fit_gold, gains, start_of
from accord.report.read import Stage
from accord.report.results import Comparison, Series, Trial, main_sampling, main_trial
from accord.report.svg import HEIGHT, HEX, Key, Sheet, number_axis, percent, tone
from accord.report.values import Measure
from accord.report.words import PARTS, brief, show, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS = {"rl": "RL", "best_of_n": "best of n"}
COLUMNS = ("reaches", "highest gain", "gold at the end", "proxy at the end", "a", "b", "peak of the fit")  # of a FitRow
NONE = "\u2013"
OUTCOMES = {"win": "good", "tie": "muted", "lose": "bad"}


@dataclass(frozen=True)
class FitRow:
    """What the table of over-optimisation says of one series."""

    name: str
    kind: str
    cells: tuple[tuple[str, str], ...]  # under COLUMNS, what is said first and what below it


def draw_compared(stage: Stage) -> list[Sheet]:
    """Draw every figure of the comparison that there is data for."""
    compared = stage.comparison
    sheets: list[Sheet | None] = []
    if compared:
        suite = main_trial(compared).suite
        trials = [trial for trial in compared.trials if trial.suite == suite]
        trials.sort(key=lambda trial: trial.sampling != "sampled")
        sheets += [_parts(compared, trial) for trial in trials]
        sheets += [_outcomes(compared, trials) or _win_rates(compared, trials), _rewards(compared)]
        sheets += draw_ratings(compared)
    return [sheet for sheet in sheets if sheet]


def draw_bending(stage: Stage) -> list[Sheet]:
    """Draw how gold and the proxy went as the proxy was optimised ever harder."""
    return [sheet for side in ("gold", "proxy") if (sheet := _bending(stage, side))]


def fit_rows(stage: Stage) -> list[FitRow]:
    """Tabulate each series: how far it went, its best and its last point, the fit and the peak that this implies."""
    return [_fit_row(series) for series in stage.series]


def _rewards(compared: Comparison) -> Sheet | None:
    """Draw the reward of every compared model's answers over each other."""
    suite, sampling = main_trial(compared).suite, main_sampling(compared)
    groups: dict[str, list[float]] = {name: [] for name in compared.models}
    for answer in compared.answers:
        if answer.suite in ("", suite) and answer.sampling == sampling and answer.reward is not None:
            groups.setdefault(answer.model, []).append(answer.reward)
    sheet = histogram("Reward of the answers", groups, "reward", "answers")
    if sheet and sampling:
        sheet.notes.append(f"Sampling: {sampling}.")
    return sheet


def _parts(compared: Comparison, trial: Trial) -> Sheet | None:
    """Draw gold and its parts side by side, a group of bars for each with a bar for each model."""
    found = [metric for metric in ("gold", *PARTS) if trial.metrics.get(metric)]
    if "gold" not in found:
        return None
    models = [name for name in compared.models if any(name in trial.metrics[metric] for metric in found)]
    sheet = Sheet(f"{'Gold and its parts' if len(found) > 1 else 'Gold'}, {trial.sampling}")
    of = {
        name: {metric: trial.metrics[metric][name] for metric in found if name in trial.metrics[metric]}
        for name in models
    }
    draw_bars(of, found, sheet=sheet, tones={name: tone(compared.models.index(name)) for name in models})
    less = " For over-refusal, less is better." if "over_refusal" in found else ""
    sheet.notes.append(f"Error bars show one standard error.{less}")
    return sheet


def _outcomes(compared: Comparison, trials: list[Trial]) -> Sheet | None:
    """Draw how often each model wins, ties and loses against the baseline, as one bar."""
    bars = [
        (_who(name, trial, trials), [trial.metrics[outcome][name] for outcome in OUTCOMES])
        for name in compared.models
        for trial in trials
        if name != compared.baseline and all(name in trial.metrics.get(outcome, {}) for outcome in OUTCOMES)
    ]
    if not bars:
        return None
    sheet = _against(compared, "Win, tie and loss", len(bars))
    ax = sheet.figure.subplots()
    for at, (_, shares) in enumerate(bars):
        left = 0.0
        for (outcome, colour), share in zip(OUTCOMES.items(), shares, strict=True):
            ax.barh(at, share.value, 0.62, left, color=HEX[colour], alpha=0.35 if outcome == "tie" else 0.75)
            if share.value >= 0.09:
                ax.text(left + share.value / 2, at, percent(round(share.value, 2)), va="center", ha="center")
            left += share.value
    sheet.legend += [Key(outcome, colour, "fill") for outcome, colour in OUTCOMES.items()]
    _rows(ax, [name for name, _ in bars])
    ax.set_xlim(0, 1)
    error = max((share.stderr or 0.0 for _, shares in bars for share in shares), default=0.0)
    if error:
        sheet.notes.append(f"Standard errors are at most {percent(round(error, 3))}.")
    return sheet


def _win_rates(compared: Comparison, trials: list[Trial]) -> Sheet | None:
    """Draw each model's win rate against the baseline, with the 50 % line."""
    bars = [
        (name, _who(name, trial, trials), trial.metrics["win_rate"][name])
        for name in compared.models
        for trial in trials
        if name != compared.baseline and name in trial.metrics.get("win_rate", {})
    ]
    if not bars:
        return None
    sheet = _against(compared, "Win rate", len(bars))
    ax = sheet.figure.subplots()
    for at, (name, _, rate) in enumerate(bars):
        ax.barh(at, rate.value, 0.55, color=HEX[tone(compared.models.index(name))], alpha=0.85)
        ax.errorbar(rate.value, at, xerr=rate.stderr or None, color=HEX["ink"], capsize=4)
        ax.text(1.03, at, f"{100 * rate.value:.1f} %", va="center")
    ax.axvline(0.5, color=HEX["ink"], linewidth=1.2, linestyle="--")
    _rows(ax, [name for _, name, _ in bars])
    ax.set_xlim(0, 1.18)
    sheet.legend.append(Key("50 %: as often as the baseline", "ink", "dash"))
    sheet.notes.append("Error bars show one standard error.")
    return sheet


def _against(compared: Comparison, what: str, bars: int) -> Sheet:
    title = f"{what} against {compared.baseline}" if compared.baseline else what
    return Sheet(title, height=max(HEIGHT, 44 + 30 * bars))


def _who(name: str, trial: Trial, trials: list[Trial]) -> str:
    name = name if len(name) <= 18 else f"{name[:17]}…"
    return f"{name}, {trial.sampling}" if len(trials) > 1 else name


def _rows(ax: Axes, names: list[str]) -> None:
    """Set up horizontal bars of shares, from the top down."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.grid(False)
    ax.xaxis.set_major_formatter(percent)


def _bending(stage: Stage, side: str) -> Sheet | None:
    """Draw gold (with its fits) or the proxy of every series over the root of the KL."""
    found = {series.name: series for series in stage.series if any(_sides(series, side))}
    if not found:
        return None
    sheet = Sheet("Gold against distance" if side == "gold" else "Proxy against distance")
    ax = sheet.figure.subplots()
    policies = list(dict.fromkeys(_policy(series) for series in stage.series))
    colours = {series.name: tone(policies.index(_policy(series))) for series in stage.series}
    fitted = False
    for name, series in found.items():
        known = [(math.sqrt(p.kl), v) for p, v in zip(series.points, _sides(series, side), strict=True) if v]
        d, values = [at for at, _ in known], [value.value for _, value in known]
        colour = HEX[colours[name]]
        errors = [value.stderr or math.nan for _, value in known]
        ax.errorbar(d, values, errors, fmt="none", ecolor=colour, elinewidth=1, alpha=0.7)
        drawn = side == "gold" and _draw_fit(ax, series, colour)
        fitted |= drawn
        ax.plot(d, values, "s" if series.kind == "best_of_n" else "o", color=colour)
        if not drawn:
            ax.plot(d, values, "--" if side == "proxy" else "-", color=colour, linewidth=1.6)
    shown = dict.fromkeys(_policy(series) for series in found.values())
    sheet.legend += [Key(name, tone(policies.index(name)), "dash" if side == "proxy" else "line") for name in shown]
    ax.set_ylabel(side)
    number_axis(ax, "√KL from the start (root of nats per answer)", whole=False)
    every = [point.kl for series in stage.series for point in series.points]
    ax.set_xlim(-0.03 * math.sqrt(max(every)) - 1e-6, 1.04 * math.sqrt(max(every)) + 1e-6)  # alike in both figures
    sheet.notes.append("Error bars show one standard error.")
    if len({series.kind for series in found.values()}) > 1:
        sheet.notes.append("Squares: best of n.")
    if fitted:
        sheet.notes.append("Lines are fits of Gao et al. (2022); rings mark their peaks.")
    return sheet


def _policy(series: Series) -> str:
    """The policy that a series belongs to: best-of-n is drawn in the colour of the policy that it stands beside."""
    return series.name.removeprefix("best of n, ")


def _draw_fit(ax: Axes, series: Series, colour: str) -> bool:
    fit, start = fit_gold(series), start_of(series)
    if not fit or not start or not start.gold:
        return False
    d = np.linspace(0, fit.reach, 120)
    ax.plot(d, start.gold.value + curve(fit, d), color=colour)
    if fit.peak is not None and fit.inside:
        top = start.gold.value + float(curve(fit, np.array([fit.peak]))[0])
        ax.plot(fit.peak, top, "o", markersize=12, markerfacecolor="none", color=colour)
    return True


def _fit_row(series: Series) -> FitRow:
    gold, proxy, fit = gains(series, "gold"), gains(series, "proxy"), fit_gold(series)
    last = series.points[-1]
    unit = "n =" if series.kind == "best_of_n" else "step"
    d, top = max(gold, key=lambda pair: pair[1].value, default=(0.0, None))
    cells = (
        (f"{brief('', last.kl)} nats", "" if last.at is None else f"{unit} {last.at:g}"),
        (signed("", top), f"at {brief('', d * d)} nats") if top else (NONE, ""),
        (signed("", gold[-1][1]) if gold else NONE, ""),
        (signed("", proxy[-1][1]) if proxy else NONE, ""),
        (show("", Measure(fit.a, _known(fit.a_stderr))) if fit else NONE, ""),
        (show("", Measure(fit.b, _known(fit.b_stderr))) if fit else NONE, ""),
        _peak(series, fit),
    )
    return FitRow(series.name, WORDS.get(series.kind, series.kind), cells)


def _peak(series: Series, fit: Fit | None) -> tuple[str, str]:
    """The peak that a fit implies and where it lies, or why there is none."""
    if not fit:
        measured = any(_sides(series, "gold"))
        return NONE, "too few points, or none at KL 0" if measured else "gold was not measured"
    if fit.b <= 0:
        return "none", "gold does not bend down"
    if fit.peak is None:
        return ("none", "gold falls from the start") if fit.a <= 0 else ("none in sight", "far beyond the data")
    gain = float(curve(fit, np.array([fit.peak]))[0])
    place = f"gain {brief('', gain)} at d = {brief('', fit.peak)}"
    return f"{brief('', fit.peak**2)} nats", place if fit.inside else f"extrapolated: {place}"


def _known(error: float) -> float | None:
    return error if math.isfinite(error) else None


def _sides(series: Series, side: str) -> list[Measure | None]:
    return [point.gold if side == "gold" else point.proxy for point in series.points]
