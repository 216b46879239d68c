"""How far a model lies from the baseline, and whether that is more than noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accord.estimate import Estimate, errors, mean, sure
from accord.report.results import Answer, Comparison, Message, Trial
from accord.report.values import Measure
from accord.report.words import MINUS


@dataclass(frozen=True)
class Gap:
    """A difference with its standard error, where that is known."""

    value: float
    stderr: float | None

    @property
    def errors(self) -> float | None:
        """The difference in standard errors; None where these are not known, or no difference was possible."""
        return errors(self.value, self.stderr)

    @property
    def sure(self) -> int:
        """1 where the difference is clearly above 0, -1 where clearly below, 0 where neither can be said."""
        return sure(self.value, self.stderr)

    @property
    def measure(self) -> Measure:
        """The difference as a measured value."""
        return Measure(self.value, self.stderr)

    def __str__(self) -> str:
        text = f"{self.value:+.3g}".replace("-", MINUS)
        far = self.errors
        if far is None or math.isinf(far):
            return text
        return f"{text} ({abs(far):.1f} standard errors {'above' if far > 0 else 'below'})"


def gap(compared: Comparison, trial: Trial, model: str, metric: str) -> Gap | None:
    """Take a model's distance from the baseline; None for the baseline itself and where either was not measured."""
    values = trial.metrics.get(metric, {})
    ours, base = values.get(model), values.get(compared.baseline)
    if metric == "win_rate":
        base = Measure(0.5, 0.0)  # what a model equal to the baseline would get
    if not ours or not base or model == compared.baseline:
        return None
    far = ours.value - base.value
    if ours.stderr is None or base.stderr is None:
        return Gap(far, None)
    paired = None if metric == "win_rate" else _paired(compared, trial, model, metric)
    # Else as if the two were independent; on the same prompts the true error is smaller, if anything.
    return Gap(far, math.hypot(ours.stderr, base.stderr) if paired is None else paired)


def _paired(compared: Comparison, trial: Trial, model: str, metric: str) -> float | None:
    """Recount the standard error of the difference prompt by prompt.

    Only where the answers give back both models' values and errors as the results state them: then they are all there,
    and are grouped here as they were there.
    """
    sides = [_values(compared, trial, name, metric) for name in (model, compared.baseline)]
    for name, values in zip((model, compared.baseline), sides, strict=True):
        if not _equal(_estimate(values), trial.metrics[metric][name]):
            return None
    ours, base = sides
    if ours.keys() != base.keys():
        return None
    found = _estimate({prompt: value - base[prompt] for prompt, value in ours.items()})
    return found.stderr if found else None


def _values(
    compared: Comparison, trial: Trial, model: str, metric: str
) -> dict[tuple[tuple[Message, ...], int], float]:
    """A model's score on each prompt; of a prompt that is asked twice, on each occasion."""
    found: dict[tuple[tuple[Message, ...], int], float] = {}
    for answer in compared.answers:
        value = answer.scores.get(metric, answer.parts.get(metric))
        if answer.model == model and belongs(answer, trial) and value is not None:
            times = 0
            while (answer.prompt, times) in found:
                times += 1
            found[answer.prompt, times] = value
    return found


def belongs(answer: Answer, trial: Trial) -> bool:
    """Whether an answer was given in this trial."""
    return answer.suite in ("", trial.suite) and (answer.sampling == "greedy") == (trial.sampling == "greedy")


def _estimate(values: dict[tuple[tuple[Message, ...], int], float]) -> Estimate | None:
    if len(values) < 2:
        return None
    # Conversations that grew from one question are not independent.
    clusters = [next((turn.content for turn in prompt if turn.role == "user"), "") or prompt for prompt, _ in values]
    return mean(list(values.values()), clusters)


def _equal(recounted: Estimate | None, stated: Measure) -> bool:
    if recounted is None or stated.stderr is None:
        return False
    return all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-9)
        for a, b in ((recounted.value, stated.value), (recounted.stderr, stated.stderr))
    )
