"""What the detectors of accord/pitfalls say of a run: its files as they read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from accord.pitfalls import Finding, Seen, find
from accord.pitfalls.seen import Bend, Both, Change
from accord.report.gaps import belongs, gap
from accord.report.overoptimisation import fit_gold
from accord.report.read import Run, Stage, lineage
from accord.report.results import Answer, Comparison, Series, Trial
from accord.report.values import Row, Table, table

FITS = ("member", "fold", "share")  # tags of a stage's several fits in metrics.jsonl


def findings(run: Run, stage: Stage, made: Sequence[Stage] = ()) -> list[Finding]:
    """What is found in a stage, alarms first; a thing that shows in several fits or models is told once.

    With `made`, a comparison tells only of models that these stages made.
    """
    found = [finding for seen in looks(run, stage, made) for finding in find(seen)]
    first = {finding.name: finding for finding in reversed(found)}
    return sorted((first[name] for name in dict.fromkeys(f.name for f in found)), key=lambda f: f.severity != "alarm")


def looks(run: Run, stage: Stage, made: Sequence[Stage] = ()) -> Iterator[Seen]:
    """A stage as detectors read it: once for each of its fits, and its comparison."""
    if stage.comparison or stage.series:
        compared, series = stage.comparison, [one for one in stage.series if one.kind == "rl"]
        others = forebears(run, stage) | not_of(stage, "models", compared.models if compared else (), made)
        curves = not_of(stage, "curves", [one.name for one in series], made)
        yield Seen(
            stage.kind, stage.settings,
            changes=[one for one in changes(compared) if one.model not in others] if compared else (),
            both=[one for one in both(compared) if one.model not in others] if compared else (),
            bends=[bend(one) for one in series if one.name not in curves],
        )  # fmt: skip
    fits: dict[tuple[float | None, ...], list[Row]] = {}
    for row in stage.metrics:
        fits.setdefault(tuple(row.get(tag) for tag in FITS), []).append(row)
    for rows in fits.values():
        yield Seen(stage.kind, settings_of(stage), rows, _done(stage), stage.result)


def forebears(run: Run, stage: Stage) -> set[str]:
    """The compared models that the baseline grew from: how they differ from it is no work of training that went wrong."""
    named = table(stage.settings.get("models"))
    baseline = stage.comparison.baseline if stage.comparison else ""
    made = next((one for one in run.stages if f"@{one.name}" == named.get(baseline)), None)
    older = [one.settings.get("model") for one in lineage(run, made)] if made else []
    return {name for name, model in named.items() if model in older}


def not_of(stage: Stage, setting: str, names: Sequence[str], made: Sequence[Stage]) -> set[str]:
    """The names of compared models or curves that, by this setting, none of the stages made; empty without stages."""
    own, known = {f"@{one.name}" for one in made}, table(stage.settings.get(setting))
    return {name for name in names if made and known.get(name) not in own}


def settings_of(stage: Stage) -> Table:
    """A stage's settings, with the KL budget where its result alone has it."""
    budget = stage.result.get("kl_budget")
    return stage.settings if budget is None else {
        **stage.settings, "params": {**table(stage.settings.get("params")), "kl_budget": budget}
    }  # fmt: skip


def _done(stage: Stage) -> float:
    """How much of a stage's training its log is of: all of it unless it goes on."""
    return 1.0 if stage.status == "done" else 0.0


def changes(compared: Comparison) -> Iterator[Change]:
    """How far every model lies from the baseline in every metric."""
    for trial in compared.trials:
        for metric, values in trial.metrics.items():
            for model in values:
                if metric != "win_rate" and (found := change(compared, trial, model, metric)):
                    yield found


def change(compared: Comparison, trial: Trial, model: str, metric: str) -> Change | None:
    """How far a model lies from the baseline; None for the baseline and where either was not measured."""
    place = trial.suite, trial.sampling, model, compared.baseline, metric
    values = trial.metrics.get(metric, {})
    if metric == "forgetting" and model in values:  # is a difference from the baseline already
        return Change(*place, 0.0, values[model].value, values[model].stderr)
    found = gap(compared, trial, model, metric)
    return Change(*place, values[compared.baseline].value, values[model].value, found.stderr) if found else None


def both(compared: Comparison) -> Iterator[Both]:
    """Answers of each model beside the baseline's to the same prompt, in reward and length."""
    for trial in compared.trials:
        base = _of(compared, trial, compared.baseline)
        for model in compared.models:
            if model == compared.baseline:
                continue
            for prompt, (reward, length) in _of(compared, trial, model).items():
                if prompt in base:
                    theirs = base[prompt]
                    yield Both(trial.suite, trial.sampling, model, reward - theirs[0], length - theirs[1])


def _of(compared: Comparison, trial: Trial, model: str) -> dict[object, tuple[float, float]]:
    """Reward and length, in words, of a model's answer to each prompt of a trial."""
    own = [a for a in compared.answers if a.model == model and belongs(a, trial) and a.reward is not None]
    return {answer.prompt: (answer.reward or 0.0, float(_words(answer))) for answer in own}


def _words(answer: Answer) -> int:
    return len(answer.response.split())


def bend(series: Series) -> Bend:
    """A curve of over-optimisation with the peak of its fit."""
    fit = fit_gold(series)
    points = [(p.kl, p.gold.value, p.gold.stderr or 0.0) for p in series.points if p.gold]
    peak = fit.peak**2 if fit and fit.peak is not None else None
    return Bend(series.name, points, peak, bool(fit and fit.inside))
