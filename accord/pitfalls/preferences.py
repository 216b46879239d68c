"""Learning from comparisons: by heart, against the chosen answers too, or from answers that are not the model's."""

from __future__ import annotations

import math
from statistics import fmean

from accord.estimate import CLEAR
from accord.pitfalls.seen import Finding, Seen

RISEN, APART = 1.25, 0.15  # times the lowest held-out loss; accuracy on train data above that on held-out data
LATE = 4
FELL = 0.25  # of the answer's log-prob at the start
NATS = 2.0  # per answer
FOREIGN = 0.5  # nats per token


def overfitting(seen: Seen) -> Finding | None:
    """Held-out loss has turned up while the pairs that are learned from are told ever better.

    A hint: it told 8 of 10 planted cases (docs/evaluation/pitfalls.md).
    """
    held, train = seen.series("eval/loss"), seen.values("accuracy")
    right = seen.values("eval/accuracy")
    if seen.kind not in ("reward", "preference") or len(held) < 3 or len(train) < LATE or not right:
        return None
    best = min(value for _, value in held)
    step, now = held[-1]
    gap = fmean(train[-LATE:]) - right[-1]
    if best <= 0 or now / best <= RISEN or gap <= APART:
        return None
    return Finding(
        "overfitting", "hint",
        f"held-out loss {now:.3g}, {now / best:.2f} times its lowest; {fmean(train[-LATE:]):.0%} of the pairs learned from are "
        f"told, {right[-1]:.0%} of those held out",
        f"over {RISEN:g} times the lowest held-out loss, and {APART:.0%} between the two accuracies",
        "train for fewer epochs, lower the learning rate, or collect more pairs", now / best, step,
    )  # fmt: skip


def falling_chosen(seen: Seen) -> Finding | None:
    """The chosen answers become unlikely, and not the rejected ones alone (Razin et al. 2024)."""
    if seen.kind != "preference":
        return None
    held = seen.series("eval/chosen_logp")
    series = held if len(held) > 1 else seen.series("chosen_logp")
    width = 1 if series is held else max(1, len(series) // 4)
    if len(series) < 2 * width or (series is not held and len(series) < 8):
        return None
    first, last = (fmean(value for _, value in part) for part in (series[:width], series[-width:]))
    fell = first - last
    if fell <= NATS or fell <= FELL * abs(first):
        return None
    return Finding(
        "falling chosen log-probability", "alarm",
        f"log-prob of the {'held-out ' if series is held else ''}chosen answers fell from {first:.3g} to {last:.3g} nats",
        f"a fall of {NATS:g} nats and {FELL:.0%} of what it was",
        "add the chosen answers' own loss (params.sft), lower the learning rate, or raise beta", fell, series[-1][0],
    )  # fmt: skip


def off_policy(seen: Seen) -> Finding | None:
    """The answers compared are not such as the model gives: it finds them less likely than its own.

    A model's own answers at temperature 1 have -log p equal to its entropy, on average, at every token.
    """
    found = seen.result.get("surprise")
    value = found.get("value") if isinstance(found, dict) else None
    stderr = found.get("stderr") if isinstance(found, dict) else None
    if not isinstance(value, int | float) or not isinstance(stderr, int | float) or not math.isfinite(stderr):
        return None
    if value - CLEAR * stderr <= FOREIGN:
        return None
    return Finding(
        "off-policy preference data", "alarm",
        f"the answers are {value:.2g} ± {stderr:.1g} nats per token less likely to the model than answers of its own",
        f"over {FOREIGN:g} nats per token",
        "fine-tune on the chosen answers first (sft), or compare answers that this model has sampled", float(value), 0,
    )  # fmt: skip
