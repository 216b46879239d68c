"""What gets lost on the way: variety, and what the base knew."""

from __future__ import annotations

import math
from statistics import median

from accord.estimate import CLEAR
from accord.pitfalls.seen import Change, Finding, Seen

ENTROPY, DISTINCT = 0.25, 0.6  # of what they were at the start
VARIETY = ("distinct_2", "distinct")  # in comparisons
FORGOT = 1.5  # times the perplexity on what the base knew
FIRST = 3  # steps that say how it was at the start


def mode_collapse(seen: Seen) -> Finding | None:
    """Answers become few: their entropy and the share of different word pairs in a batch have both fallen.

    Entropy alone, where nothing else was logged, is a hint: it falls with every policy that becomes sure of what is right.
    """
    entropy, distinct = seen.series("policy/entropy"), seen.series("rollout/distinct")
    if len(entropy) < 2 * FIRST:
        return _in_comparison(seen)
    step = entropy[-1][0]
    first, last, kept = _kept([value for _, value in entropy])
    said, bound = f"entropy fell from {first:.3g} to {last:.3g} nats per token", f"entropy under {ENTROPY:.0%}"
    advice = "raise kl or entropy, or lower the learning rate"
    if kept >= ENTROPY:
        return None
    if len(distinct) < 2 * FIRST:
        return Finding("mode collapse", "hint", said, f"{bound} of what it was at the start", advice, kept, step)
    before, after, varied = _kept([value for _, value in distinct])
    if varied >= DISTINCT:
        return None
    return Finding(
        "mode collapse", "alarm", f"{said}, and different word pairs from {before:.0%} to {after:.0%} of a batch's",
        f"{bound} and different pairs under {DISTINCT:.0%} of what they were at the start", advice, varied, step,
    )  # fmt: skip


def _in_comparison(seen: Seen) -> Finding | None:
    for change in seen.changes:
        if (
            change.metric in VARIETY
            and change.before > 0
            and change.sure < 0
            and change.after / change.before < DISTINCT
        ):
            return Finding(
                "mode collapse", "alarm",
                f"{change.metric} of {change.model}'s answers against {change.baseline}'s ({change.suite}, "
                f"{change.sampling}): {change}",
                f"under {DISTINCT:.0%} of the baseline's", "raise kl, or keep an earlier checkpoint",
                change.after / change.before,
            )  # fmt: skip
    return None


def _kept(values: list[float]) -> tuple[float, float, float]:
    """Start, end, and the part of the start that is left: medians, since the last batch of a pass may be a small one."""
    first, last = median(values[:FIRST]), median(values[-FIRST:])
    return first, last, last / first if first > 0 else math.inf


def forgetting(seen: Seen) -> Finding | None:
    """Text that the baseline found likely has become unlikely: perplexity on what it knew."""
    for change in seen.changes:
        told = _times(change)
        if told and change.sure > 0 and told > FORGOT:
            return Finding(
                "forgetting", "alarm",
                f"{change.model} finds the texts of {change.suite} {told:.2f} times as perplexing as {change.baseline} does "
                f"({change.metric} {change})",
                f"more than {FORGOT:g} times the baseline's perplexity, and by more than {CLEAR:g} standard errors",
                "mix in what should be kept (mix, or such rows in data), lower the learning rate, or train an adapter (lora)",
                told,
            )  # fmt: skip
    return None


def _times(change: Change) -> float | None:
    """How many times the baseline's a model's perplexity is; None of other metrics."""
    if change.metric == "forgetting":  # in nats per token
        return math.exp(min(change.after, 700))
    return change.after / change.before if change.metric == "perplexity" and change.before > 0 else None
