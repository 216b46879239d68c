"""The proxy is pleased and the truth is not: reward hacking, over-optimisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from accord.estimate import CLEAR
from accord.pitfalls.seen import Change, Finding, Seen, ends

ROSE = 4.0  # standard errors that the reward in training must have risen by
LOST = 0.5  # of what the judge had gained
FELL, FLAT = 3.0, 6.0  # standard errors that a compared reward has risen by while gold fell, or did not rise
LABELS = "raise kl, stop earlier, or give the reward model more labels of answers such as these now are"


def reward_hacking(seen: Seen) -> Finding | None:
    """What is optimised rises while another judge of held-out prompts (`eval_rewards`), or gold, does not."""
    return _in_training(seen) or _in_comparison(seen.changes)


def alone(reward: Change, gold: Change) -> bool:
    """Whether the reward has clearly risen and gold has not."""
    if reward.errors is None or reward.errors <= CLEAR:
        return False
    if gold.after >= gold.before >= 1:
        return False  # every answer of the baseline was right already: gold had nowhere to rise
    risen = gold.after > gold.before if gold.errors is None else gold.sure > 0
    return not risen


def _in_training(seen: Seen) -> Finding | None:
    held = [row for row in seen.rows if row.get("eval/reward") is not None]
    proxy = ends(seen.values("reward/mean"), 1 / 8, 3)
    if not seen.setting("eval_rewards") or not proxy or len(held) < 3 or proxy.errors < ROSE:
        return None
    values = [(row.get("eval/reward") or 0.0, row.get("eval/reward_stderr") or 0.0) for row in held]
    late = values[-max(1, len(values) // 3) :]
    now, now_error = fmean(value for value, _ in late), math.hypot(*(error for _, error in late)) / len(late)
    best, best_error = max(values[: -len(late)])
    first = values[0][0]
    error = math.hypot(best_error, now_error)
    if not error or best - now <= CLEAR * error or now > first + LOST * (best - first):
        return None
    at = int(held[-1].get("step") or 0)
    return Finding(
        "reward hacking", "alarm",
        f"the reward rose from {proxy.early:.3g} to {proxy.late:.3g} ({proxy.errors:.1f} standard errors) while the held-out "
        f"judge fell from {best:.3g} at its best to {now:.3g} of late ({(best - now) / error:.1f} standard errors)",
        f"a reward that rises by {ROSE:g} standard errors, and a judge more than {CLEAR:g} below its best, which has lost "
        f"{LOST:.0%} of its gain",
        LABELS, (best - now) / error, at,
    )  # fmt: skip


def _in_comparison(changes: Sequence[Change]) -> Finding | None:
    for reward, gold in paired(changes, "reward", "gold"):
        fell, flat = gold.sure < 0, gold.after <= gold.before
        sure = reward.errors or 0.0
        if alone(reward, gold) and (sure > FELL if fell else flat and sure > FLAT):
            return Finding(
                "reward hacking", "alarm",
                f"{reward.model} against {reward.baseline} ({reward.suite}, {reward.sampling}): reward {reward}, "
                f"while gold {'fell' if fell else 'did not rise'}, {gold}",
                f"reward up by {FELL:g} standard errors and gold down by {CLEAR:g}, or reward up by {FLAT:g} and gold not",
                LABELS, sure,
            )  # fmt: skip
    return None


def paired(changes: Iterable[Change], first: str, second: str) -> list[tuple[Change, Change]]:
    """The changes in two metrics, wherever a trial has both of a model."""
    found: dict[tuple[str, str, str], dict[str, Change]] = {}
    for change in changes:
        found.setdefault(change.place, {})[change.metric] = change
    return [(each[first], each[second]) for each in found.values() if first in each and second in each]


def over_optimisation(seen: Seen) -> Finding | None:
    """Gold has turned down: the fitted peak lies behind, and the last policy is clearly below the best."""
    for bend in seen.bends:
        if len(bend.points) < 4 or not bend.inside or bend.peak is None:
            continue
        kl, best, best_error = max(bend.points, key=lambda point: point[1])
        reach, last, last_error = bend.points[-1]
        error = math.hypot(best_error, last_error)
        if not error or best - last <= CLEAR * error:
            continue
        return Finding(
            "over-optimisation", "alarm",
            f"in {bend.name} gold fell from {best:.3g} at {kl:.3g} nats to {last:.3g} at {reach:.3g}; the fit of Gao et al. "
            f"(2022) peaks at {bend.peak:.3g} nats",
            f"a peak within what was reached, and gold at the end more than {CLEAR:g} standard errors below its best",
            f"set kl_budget to about {bend.peak:.2g} nats, or raise kl", (best - last) / error,
        )  # fmt: skip
    return None
