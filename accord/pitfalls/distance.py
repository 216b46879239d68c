"""How far a policy has gone: too far to be itself, or nowhere."""

from __future__ import annotations

from statistics import fmean

from accord.pitfalls.seen import Finding, Seen, ends

FAR = 0.8  # nats per token
STILL = 0.02  # nats per answer
HALF = 0.5  # of training, before which standing still says nothing
LAST = 3
RISEN = 3.0  # standard errors of a reward that has risen all the same


def kl_high(seen: Seen) -> Finding | None:
    """The policy is over its KL budget, or so far from the reference that little of it is left."""
    held, sampled, length = seen.series("eval/kl"), seen.series("kl/mean"), seen.values("rollout/length")
    budget = seen.number("params", "kl_budget")
    if budget is not None and held and held[-1][1] > budget:
        step, kl = held[-1]
        return Finding(
            "KL too high", "alarm", f"{kl:.3g} nats per answer on held-out prompts",
            f"over the budget of {budget:g}",
            "raise kl or set kl_target: what is trained past the budget is not kept", kl / budget, step,
        )  # fmt: skip
    if len(sampled) < LAST or not length:
        return None
    kl, tokens = fmean(value for _, value in sampled[-LAST:]), fmean(length[-LAST:])
    if tokens <= 0 or kl / tokens <= FAR:
        return None
    return Finding(
        "KL too high", "alarm", f"{kl:.3g} nats per answer of {tokens:.0f} tokens, {kl / tokens:.2g} per token",
        f"over {FAR:g} nats per token", "raise kl, set kl_target, or lower the learning rate", kl / tokens, sampled[-1][0],
    )  # fmt: skip


def kl_low(seen: Seen) -> Finding | None:
    """Past the middle of training the policy still is the reference, and its reward has not risen."""
    held, sampled = seen.series("eval/kl"), seen.series("kl/mean")
    series = held if len(held) > 1 else sampled
    if seen.kind != "policy" or seen.done < HALF or len(series) < 2:
        return None
    step, kl = series[-1][0], series[-1][1] if held else fmean(value for _, value in series[-LAST:])
    reward = ends(seen.values("reward/mean"))
    if kl > STILL or not reward or reward.errors > RISEN:
        return None
    return Finding(
        "KL too low", "alarm",
        f"{kl:.2g} nats per answer after {100 * seen.done:.0f} % of the steps, the reward went from {reward.early:.3g} to "
        f"{reward.late:.3g}",
        f"under {STILL:g} nats past the middle of training, the reward not up by {RISEN:g} standard errors",
        "raise the learning rate, lower kl, or train longer", kl, step,
    )  # fmt: skip
