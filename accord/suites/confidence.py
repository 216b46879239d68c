"""Confidence: is a model right as often as it is sure? By the probability of its choice, or by what it says ("80 %")."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import cast

import numpy as np

from accord.data.records import Message, Prompt, Record
from accord.data.turns import Row
from accord.estimate import Estimate, mean
from accord.sampler import Rollout
from accord.score import Score, Scorer
from accord.suites import Answered, Likelihoods, Question, Suite, choices
from accord.suites.choices import (
    answer_of,
    known,
    listed,
    named_option,
    options_of,
    probabilities,
    question_of,
    says,
    shuffled,
)

BINS, RESAMPLES = 10, 200
ASK = "Give your answer, then how sure you are that it is right, from 0 % to 100 %."
PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent\b|per cent\b)", re.IGNORECASE)
SHARE = re.compile(
    r"\b(?:confidence|sure|certainty|probability)\W+(?:is |of )?(0?\.\d+|[01]\.0*|[01])(?![\d.]*\s*%)", re.IGNORECASE
)


@dataclass(frozen=True)
class Point:
    """A point of the reliability curve: the mean confidence of some answers, and the share of them that are right."""

    confidence: float
    accuracy: float
    n: int


def record(row: Row, where: str) -> Prompt:
    """A row of `{question, options, answer}`, of `{question, answer}` or of TruthfulQA, as it is asked in words: with its
    options in an order without meaning, and the request to say how sure. `asked` of the meta is the bare question."""
    prompt = choices.record(row, where)
    options = options_of(prompt.meta)
    order = shuffled(options)
    shown = [options[i] for i in order]
    meta = {**prompt.meta, "asked": prompt.prompt}
    if options:
        answer = answer_of(prompt.meta)
        meta |= {"options": shown, "answer": None if answer is None else order.index(answer)}
    return Prompt(prompt=listed(prompt.prompt, shown, ASK), meta=meta)


def confidence(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """Questions whose right option is known by likelihood; all questions in words, with a request to say how sure."""
    prompts = [question_of(each, "confidence") for each in records]
    closed = [each for each in prompts if options_of(each.meta) and answer_of(each.meta) is not None]
    questions = [
        Question(cast("list[Message]", each.meta.get("asked", each.prompt)), options_of(each.meta), each.meta)
        for each in closed
    ]
    judge: dict[str, Scorer] = {"right": lambda rollouts: right(rollouts, reward), "said": said}
    return Suite("confidence", prompts, judge, whole, questions, grade)


# ------------------------------------------------------------------------------------------------------ by likelihood


def grade(found: Sequence[Likelihoods]) -> Mapping[str, Estimate]:
    """Calibration of the likeliest option's probability among all options; under `per_token/` of options by their mean
    log-probability per token, which does not favour short ones."""
    numbers: dict[str, Estimate] = {}
    for prefix, per_token in (("", False), ("per_token/", True)):
        shares = [probabilities(each, per_token=per_token) for each in found]
        hits = [float(p.argmax() == answer_of(each.question.meta)) for p, each in zip(shares, found, strict=True)]
        measured = calibration([float(p.max()) for p in shares], hits)
        numbers |= {f"likelihood/{prefix}{name}": estimate for name, estimate in measured.items()}
    return numbers


def calibration(sure: Sequence[float], hits: Sequence[float]) -> dict[str, Estimate]:
    """`accuracy`, mean `confidence`, `ece`, `brier` and `auroc` of answers' confidences and whether they are right."""
    if not sure:
        return {}
    errors = [(c - hit) ** 2 for c, hit in zip(sure, hits, strict=True)]
    return known(
        {
            "accuracy": mean(hits),
            "confidence": mean(sure),
            "ece": resampled(ece, sure, hits),
            "brier": mean(errors),
            "auroc": auroc(sure, hits),
        }
    )


def reliability(sure: Sequence[float], hits: Sequence[float], bins: int = BINS) -> list[Point]:
    """The reliability curve over bins of equal numbers of answers, from the least to the most confident (Nixon et al. 2019)."""
    found = _curve(np.asarray(sure, dtype=float), np.asarray(hits, dtype=float), bins)
    return [Point(float(c), float(hit), int(n)) for c, hit, n in found]


def ece(sure: np.ndarray, hits: np.ndarray) -> float:
    """The expected calibration error of confidences [n] and whether they are right [n]: |accuracy - confidence| over the bins
    of `reliability`, weighed by their answers."""
    c, hit, n = _curve(sure, hits, BINS).T
    return float((n * np.abs(hit - c)).sum() / n.sum())


def _curve(sure: np.ndarray, hits: np.ndarray, bins: int) -> np.ndarray:
    """Mean confidence, share right and number of answers of each bin, [bins, 3]."""
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return np.array([[sure[part].mean(), hits[part].mean(), len(part)] for part in parts])


def auroc(sure: Sequence[float], hits: Sequence[float]) -> Estimate | None:
    """How often a right answer is held with more confidence than a wrong one, ties half; None without both kinds.

    The standard error is Hanley and McNeil's (1982).
    """
    c, hit = np.asarray(sure, dtype=float), np.asarray(hits, dtype=float) > 0.5
    right_ones, wrong_ones = int(hit.sum()), int((~hit).sum())
    if not right_ones or not wrong_ones:
        return None
    wrong_sorted = np.sort(c[~hit])
    below = np.searchsorted(wrong_sorted, c[hit], "left")
    upto = np.searchsorted(wrong_sorted, c[hit], "right")
    a = float((below + upto).sum() / 2 / right_ones / wrong_ones)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = a * (1 - a) + (right_ones - 1) * (q1 - a * a) + (wrong_ones - 1) * (q2 - a * a)
    return Estimate(a, sqrt(max(0.0, variance) / right_ones / wrong_ones), len(c))


def resampled(figure: Callable[[np.ndarray, np.ndarray], float], a: Sequence[float], b: Sequence[float]) -> Estimate:
    """A figure of pairs with its bootstrap standard error (the same draws every time)."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    dice = np.random.default_rng(0)
    drawn = (dice.integers(0, len(x), len(x)) for _ in range(RESAMPLES))
    stderr = float(np.std([figure(x[rows], y[rows]) for rows in drawn], ddof=1)) if len(x) > 1 else nan
    return Estimate(figure(x, y), stderr, len(x))


# ----------------------------------------------------------------------------------------------------------- in words


def stated(text: str) -> float | None:
    """The confidence that an answer states last, 0 to 1: `80 %`, `80 percent`, `confidence: 0.8`."""
    percents = [float(found) / 100 for found in PERCENT.findall(text)]
    shares = [float(found) for found in SHARE.findall(text)]
    said_last = (percents or shares)[-1:]
    return said_last[0] if said_last and 0 <= said_last[0] <= 1 else None


def said(rollouts: Sequence[Rollout]) -> list[Score]:
    """The confidence stated in each answer; NaN where there is none."""
    found = [stated(rollout.text) for rollout in rollouts]
    return [Score(nan, why="states no confidence") if c is None else Score(c) for c in found]


def right(rollouts: Sequence[Rollout], reward: Scorer | None) -> list[Score]:
    """1 where an answer is right: its option, else the text of the right answer, else by the stage's `rewards` (over 0.5)."""
    scores = [_by_text(rollout) for rollout in rollouts]
    open_ones = [i for i, score in enumerate(scores) if np.isnan(score.value)] if reward else []
    judged = reward([rollouts[i] for i in open_ones]) if reward and open_ones else []
    for i, score in zip(open_ones, judged, strict=True):
        scores[i] = score if np.isnan(score.value) else Score(float(score.value > 0.5), why=score.why)
    return scores


def _by_text(rollout: Rollout) -> Score:
    options, answer = options_of(rollout.meta), rollout.meta.get("answer")
    text = PERCENT.sub("", rollout.text)
    if options and isinstance(answer, int):
        return Score(float(named_option(text, options) == answer))
    if isinstance(answer, str):
        return Score(float(says(text, answer)))
    return Score(nan, why="no right answer is known")


def whole(answered: Answered) -> Mapping[str, Estimate]:
    """Calibration of stated confidence, and `stated`, the share of answers that state one."""
    pairs = [(s.value, r.value) for s, r in zip(answered.scores["said"], answered.scores["right"], strict=True)]
    both = [(c, hit) for c, hit in pairs if not np.isnan(c) and not np.isnan(hit)]
    given = known({"stated": mean([float(not np.isnan(c)) for c, _ in pairs], answered.clusters)})
    return given | calibration([c for c, _ in both], [hit for _, hit in both])
