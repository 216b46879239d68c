"""The facts of a run that its verdict and its advice are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accord.report.gaps import Gap, gap
from accord.report.read import Run, Stage, judged, references
from accord.report.results import Comparison, Trial, main_trial
from accord.report.values import Row, number, table

METRICS = ("gold", "reward", "win_rate")  # what a verdict may rest on, the most telling first
TRAINED = ("sft", "policy", "preference")


@dataclass(frozen=True)
class Case:
    """A comparison as the verdict reads it: the best trained model against the baseline."""

    stage: Stage  # that compared
    compared: Comparison
    metric: str
    best: str
    rivals: tuple[str, ...]  # the trained models beside the baseline, the best among them
    main: Trial
    trials: dict[str, Trial]  # by sampling, of the main trial's suite
    gaps: dict[str, Gap]  # of the best model in the metric, by sampling
    made: Stage | None  # the stage that made the best model

    @property
    def baseline(self) -> str:
        """The model that the others are compared with."""
        return self.compared.baseline

    @property
    def lead(self) -> Gap | None:
        """The best model's distance from the baseline that counts first: that of the main trial, where it was measured."""
        return next(iter(self.gaps.values()), None)


def open_case(run: Run) -> Case | None:
    """Collect the facts of the run's last comparison; None without one of two models."""
    stage = judged(run)
    compared = stage.comparison if stage else None
    if not stage or not compared:
        return None
    main = main_trial(compared)
    rivals = _rivals(run, stage, compared)
    if not rivals:
        return None
    metric = next((m for m in METRICS if any(gap(compared, main, name, m) for name in rivals)), METRICS[0])
    values = main.metrics.get(metric, {})
    best = max(rivals, key=lambda name: values[name].value if name in values else float("-inf"))
    trials = {trial.sampling: trial for trial in compared.trials if trial.suite == main.suite}
    # The main sampling is spoken of first.
    order = sorted(trials, key=lambda way: way != main.sampling)
    gaps = {way: found for way in order if (found := gap(compared, trials[way], best, metric))}
    return Case(stage, compared, metric, best, rivals, main, trials, gaps, maker(run, stage, best))


def maker(run: Run, stage: Stage, model: str) -> Stage | None:
    """Find the stage that made a compared model."""
    name = next(references(table(stage.settings.get("models")).get(model)), "")
    return next((s for s in run.stages if s.name == name), None)


def rewards_of(run: Run, stage: Stage) -> list[Stage]:
    """The reward models that a policy stage was trained on."""
    names = set(references(stage.settings.get("rewards")))
    return [s for s in run.stages if s.name in names and s.kind == "reward"]


def setting(stage: Stage, name: str) -> float | None:
    """A number among the parameters of a stage's method."""
    return number(table(stage.settings.get("params")).get(name))


def kl_budget(stage: Stage) -> float | None:
    """The KL that a policy was allowed."""
    found = number(stage.result.get("kl_budget"))
    return setting(stage, "kl_budget") if found is None else found


def series_of(stage: Stage, key: str) -> list[Row]:
    """The rows of metrics.jsonl that hold a finite value of this metric, in order."""
    return [row for row in stage.metrics if row.get(key) is not None]


def at_start(stage: Stage, key: str) -> Row | None:
    """The first row with this metric."""
    return next(iter(series_of(stage, key)), None)


def chosen(stage: Stage, key: str) -> Row | None:
    """The row of the chosen checkpoint, or else the last with this metric."""
    rows, step = series_of(stage, key), number(stage.result.get("step"))
    return next((row for row in rows if row.get("step") == step), rows[-1] if rows else None)


def _rivals(run: Run, stage: Stage, compared: Comparison) -> tuple[str, ...]:
    """The models beside the baseline that a stage of this run trained; all of them where none was."""
    others: Sequence[str] = [name for name in compared.models if name != compared.baseline]
    made = {name: maker(run, stage, name) for name in others}
    trained = [name for name, by in made.items() if by and by.kind in TRAINED]
    return tuple(trained or others)
