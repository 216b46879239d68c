"""Gains that are length."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from accord.estimate import CLEAR
from accord.pitfalls.measures import at_equal_length
from accord.pitfalls.seen import Both, Finding, Seen, ends

SHARE = 0.5  # of the gain
LONGER = 1.15  # times the length of the start
ADVICE = (
    "make length cost something (params.length_penalty), or compare answers of like length in the reward model's data"
)


def length_bias(seen: Seen) -> Finding | None:
    """Answers got longer, and what a token earns explains most of what the reward has gained."""
    return _in_training(seen) or _in_comparison(seen.both)


def _in_training(seen: Seen) -> Finding | None:
    reward, length = ends(seen.values("reward/mean")), ends(seen.values("rollout/length"))
    slopes = seen.series("rollout/length_slope")
    if not reward or not length or len(slopes) < 3 or reward.errors < CLEAR or length.errors < CLEAR:
        return None
    slope = fmean(value for _, value in slopes)
    share = slope * length.rise / reward.rise
    if share <= SHARE or length.late < LONGER * length.early:
        return None
    return Finding(
        "length bias", "alarm",
        f"answers grew from {length.early:.1f} to {length.late:.1f} tokens; at {slope:.2g} of reward a token, length explains "
        f"{min(share, 1):.0%} of the gain ({reward.early:.3g} to {reward.late:.3g})",
        f"answers {LONGER:g} times as long, and {SHARE:.0%} of the gain", ADVICE, share, slopes[-1][0],
    )  # fmt: skip


def _in_comparison(both: Sequence[Both]) -> Finding | None:
    places = dict.fromkeys((each.suite, each.sampling, each.model) for each in both)
    for place in places:
        own = [each for each in both if (each.suite, each.sampling, each.model) == place]
        rewards, lengths = [each.reward for each in own], [each.length for each in own]
        gained, longer = ends(rewards, 1.0), ends(lengths, 1.0)
        equal = at_equal_length(rewards, lengths)
        if not equal or not gained or not longer:
            continue
        clear = gained.late > CLEAR * gained.late_stderr and longer.late > CLEAR * longer.late_stderr
        share = 1 - equal[0] / gained.late if gained.late else 0.0
        if clear and share > SHARE:
            suite, sampling, model = place
            return Finding(
                "length bias", "alarm",
                f"{model}'s answers are {longer.late:.1f} tokens longer than the baseline's ({suite}, {sampling}); of the gain "
                f"of {gained.late:.3g} in reward {equal[0]:.3g} ± {equal[1]:.2g} is left at equal length",
                f"{SHARE:.0%} of the gain explained by length", ADVICE, share,
            )  # fmt: skip
    return None
