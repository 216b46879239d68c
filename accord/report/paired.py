"""Differences between models of several runs: over the prompts that both have answered, where there are such."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accord.estimate import mean
from accord.report.comparison import SHARES, Board, Cell, order, titled
from accord.report.gaps import Gap, belongs
from accord.report.results import Answer, Comparison, Message, Trial
from accord.report.values import Measure
from accord.report.words import MINUS, RANK, signed, split

# What refers to each run's own baseline, or models, so that its difference says nothing.
APART = {*SHARES, "win_rate", "expected_win_rate", "strength", RANK, "kl"}


@dataclass(frozen=True)
class Difference:
    """How far `model` is from `against` in one metric of one trial."""

    model: str
    against: str
    trial: Trial
    metric: str
    gap: Gap
    prompts: int | None  # that both have answered; None where the difference is not over the same ones


def difference(compared: Comparison, trial: Trial, metric: str, model: str, against: str) -> Difference | None:
    """The difference of two models in a metric: paired over common prompts, else as of independent samples."""
    values = trial.metrics.get(metric, {})
    if metric in APART or model not in values or against not in values:
        return None
    ours, theirs = (scores(compared.answers, trial, name, metric) for name in (model, against))
    common = [key for key in ours if key in theirs]
    if len(common) > 1:
        found = mean([ours[key] - theirs[key] for key in common], [cluster(prompt) for prompt, _ in common])
        if found:
            gap = Gap(found.value, found.stderr if math.isfinite(found.stderr) else None)
            return Difference(model, against, trial, metric, gap, len(common))
    a, b = values[model], values[against]
    stderr = None if a.stderr is None or b.stderr is None else math.hypot(a.stderr, b.stderr)
    return Difference(model, against, trial, metric, Gap(a.value - b.value, stderr), None)


def scores(
    answers: Sequence[Answer], trial: Trial, model: str, metric: str
) -> dict[tuple[tuple[Message, ...], int], float]:
    """A model's score on each prompt; of a prompt that is asked several times, on each occasion."""
    found: dict[tuple[tuple[Message, ...], int], float] = {}
    times: dict[tuple[Message, ...], int] = {}
    for answer in answers:
        if answer.model == model and belongs(answer, trial):
            at = times[answer.prompt] = times.get(answer.prompt, -1) + 1
            value = score(answer, metric)
            if value is not None:
                found[answer.prompt, at] = value
    return found


def score(answer: Answer, metric: str) -> float | None:
    """What an answer has in a metric, among them its length in tokens and whether it ended."""
    if metric == "length" and metric not in answer.scores:
        return answer.tokens
    if metric == "finished" and metric not in answer.scores:
        return float(answer.finish == "stop") if answer.finish else None
    return answer.scores.get(metric, answer.parts.get(metric))


def cluster(prompt: tuple[Message, ...]) -> str:
    """What conversations that grew from one question share: it."""
    return next((turn.content for turn in prompt if turn.role == "user"), "") or prompt[0].content


def differences(compared: Comparison, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """All differences of pairs of models, in the order of trials, metrics and pairs."""
    every = (
        difference(compared, trial, metric, model, against)
        for trial in sorted(compared.trials, key=lambda trial: trial.sampling != "sampled")
        for metric in sorted(trial.metrics, key=order)
        for model, against in pairs
    )
    return [found for found in every if found]


def difference_boards(found: Sequence[Difference]) -> Iterator[Board]:
    """A table for each suite, with a row for each pair; bold where a difference is clear."""
    for suite in dict.fromkeys(one.trial.suite for one in found):
        own = [one for one in found if one.trial.suite == suite]
        metrics = sorted({one.metric for one in own}, key=order)
        ways = dict.fromkeys(one.trial.sampling for one in own)
        blocks: dict[str, dict[str, list[Cell | None]]] = {}
        for way in ways:
            here = {(f"{one.model} {MINUS} {one.against}", one.metric): one for one in own if one.trial.sampling == way}
            blocks[way] = {
                name: [_cell(here.get((name, metric))) for metric in metrics]
                for name in dict.fromkeys(n for n, _ in here)
            }
        rows = [row for block in blocks.values() for row in block.values()]
        counts = [{cell.n for cell in column if cell} for column in zip(*rows, strict=True)]
        sizes = tuple(found.pop() if len(found) == 1 else None for found in counts)
        title = suite if len(ways) > 1 else titled(suite, next(iter(ways)))
        yield Board(title, tuple(metrics), sizes, blocks)


def _cell(one: Difference | None) -> Cell | None:
    if not one:
        return None
    _, error, unit = split(one.metric, one.gap.measure)
    value = signed(one.metric, Measure(one.gap.value, one.gap.stderr)).partition("\u00a0±")[0]
    paired = error if one.prompts else f"{error} unpaired".strip()
    return Cell(value.removesuffix(unit) + unit, paired, one.gap.sure != 0, one.prompts)
