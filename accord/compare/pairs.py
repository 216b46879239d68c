"""One model against another on the same prompts: wins, ties and losses, and how far the judge itself can be trusted."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from accord.compare.alpaca import Judgement, rates
from accord.compare.constant import repeated
from accord.errors import DataError
from accord.estimate import Estimate, mean, paired
from accord.sampler import Rollout
from accord.score import Score
from accord.score.judge import Judge, conversation_text
from accord.suites import Answered


def against(answers: Answered, baseline: Answered, judge: Judge) -> dict[str, Estimate]:
    """Shares of prompts that `answers` win, tie and lose against the baseline, and `win_rate`, where a tie counts half.

    A judge to whom the order may matter is asked in both: a pair on which it contradicts itself is a tie. Then there are also
    `consistency` (share of pairs with the same verdict in both orders), `position_bias` (share of its decisions that go to
    the answer shown first; 0.5 is none), `length_controlled` (accord.compare.alpaca) and, where some replies could not be
    read, their share `unparsed`. `repeated` is the share of prompts with one and the same answer, where that is most of them.
    Everything is clustered by prompt.
    """
    matched = match(answers, baseline)
    ours, theirs = [answers.rollouts[i] for i, _ in matched], [baseline.rollouts[j] for _, j in matched]
    clusters = [answers.clusters[i] for i, _ in matched]
    constant = repeated([r.text for r in answers.rollouts], [conversation_text(r.prompt) for r in answers.rollouts])
    if not judge.ordered:
        values = [_decided(score.value) for score in _compare(judge, ours, theirs)]
        return outcomes(values, clusters) | constant
    values, found = both_orders(judge, ours, theirs, clusters)
    judged = [
        Judgement(conversation_text(a.prompt), value, float(len(a.text)), float(len(b.text)))
        for a, b, value in zip(ours, theirs, values, strict=True)
    ]
    return rates(judged, clusters=clusters) | found | constant


def both_orders(
    judge: Judge, ours: Sequence[Rollout], theirs: Sequence[Rollout], clusters: Sequence[int]
) -> tuple[list[float], dict[str, Estimate]]:
    """The value of each pair (1 won, 0.5 tie, 0 lost, NaN not judged), and what the two orders say of the judge.

    Answers that are the same text are a tie without being asked about, and say nothing of the judge.
    """
    unlike = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a.text != b.text]
    first, second = [ours[i] for i in unlike], [theirs[i] for i in unlike]
    said = _compare(judge, [*first, *second], [*second, *first])
    values = [0.5] * len(ours)
    same, places, unread, where = [], [], [], []
    for i, forward, back in zip(unlike, said[: len(unlike)], said[len(unlike) :], strict=True):
        here, there = _decided(forward.value), _decided(1 - back.value)
        missing = math.isnan(here) or math.isnan(there)
        values[i] = math.nan if missing else here if here == there else 0.5
        same.append(math.nan if missing else float(here == there))
        places += [math.nan if math.isnan(v) or v == 0.5 else v for v in (here, _decided(back.value))]
        unread += [float(math.isnan(v)) for v in (here, there)]
        where += [clusters[i]] * 2
    about = {
        "consistency": mean(same, where[::2]),
        "position_bias": mean(places, where),
        "unparsed": mean(unread, where) if any(unread) else None,
    }
    return values, {name: found for name, found in about.items() if found}


def differences(answers: Answered, baseline: Answered) -> dict[str, Estimate]:
    """How much higher each scorer thinks of the answers than of the baseline's to the same prompts, paired and clustered.

    `accord.estimate.prompts_needed(found.stderr, found.n)` says how many prompts a difference of 3 points takes.
    """
    matched = match(answers, baseline)
    clusters = [answers.clusters[i] for i, _ in matched]
    found = {
        name: paired(
            [scores[i].value for i, _ in matched], [baseline.scores[name][j].value for _, j in matched], clusters
        )
        for name, scores in answers.scores.items()
        if name in baseline.scores
    }
    return {name: estimate for name, estimate in found.items() if estimate}


def match(answers: Answered, baseline: Answered) -> list[tuple[int, int]]:
    """Places of answers to the same prompt. The k-th answer to a prompt meets the baseline's k-th, beginning anew after its
    last; prompts that only one of them answered are left out. DataError where that leaves none."""
    known: dict[str, list[int]] = defaultdict(list)
    for j, rollout in enumerate(baseline.rollouts):
        known[conversation_text(rollout.prompt)].append(j)
    seen: Counter[str] = Counter()
    found: list[tuple[int, int]] = []
    for i, rollout in enumerate(answers.rollouts):
        key = conversation_text(rollout.prompt)
        if theirs := known.get(key):
            found.append((i, theirs[seen[key] % len(theirs)]))
            seen[key] += 1
    if not found:
        raise DataError(
            "comparison", "model and baseline have no prompt in common", "answer the same prompts with both"
        )
    return found


def _compare(judge: Judge, first: Sequence[Rollout], second: Sequence[Rollout]) -> list[Score]:
    found = judge.compare(first, second)
    if len(found) != len(first):
        said = f"the judge returned {len(found)} verdicts for {len(first)} pairs"
        raise DataError("comparison", said, "a judge's compare returns a Score for each pair")
    return found


def _decided(chance: float) -> float:
    """A verdict from the chance that the first answer is better: 1, 0.5 or 0; NaN stays."""
    return chance if math.isnan(chance) else 0.5 if chance == 0.5 else float(chance > 0.5)


def outcomes(values: Sequence[float], clusters: Sequence[int]) -> dict[str, Estimate]:
    """Win rate, wins, ties and losses as shares."""
    kinds = {"win": 1.0, "tie": 0.5, "lose": 0.0}
    each = {k: [math.nan if math.isnan(v) else float(v == value) for v in values] for k, value in kinds.items()}
    return {k: found for k, v in ({"win_rate": list(values)} | each).items() if (found := mean(v, clusters))}
