"""The machinery: losses that jump, critics that do not learn, samplers that are not the policy."""

from __future__ import annotations

from statistics import fmean, median

from accord.pitfalls.seen import Finding, Seen

WINDOW, FEWEST = 32, 5  # steps to compare a loss with, and the fewest that say anything
SPIKE, JUMP = 8.0, 0.5  # deviations above the recent losses, and by which part of their median at least
ONE_OF = 1.4826  # the median distance from the median is so many times smaller than a normal deviation
HALF, LAST = 0.5, 5
EXPLAINED = 0.0
WORSE = 2.0  # times the value loss of the start
MISMATCH = 0.02  # nats per token


def loss_spike(seen: Seen) -> Finding | None:
    """A loss far above those before it: too large a step, or a batch unlike the others."""
    losses = seen.series("loss") if seen.kind != "policy" else []  # of a policy it measures nothing
    for i in range(FEWEST, len(losses)):
        step, loss = losses[i]
        before = [value for _, value in losses[max(0, i - WINDOW) : i]]
        level = median(before)
        spread = ONE_OF * median(abs(value - level) for value in before)
        if loss > level + max(SPIKE * spread, JUMP * abs(level)):
            return Finding(
                "loss spike", "alarm",
                f"loss {loss:.3g} at step {step}, where the {len(before)} steps before had a median of {level:.3g} and "
                f"deviated by {spread:.2g}",
                f"{SPIKE:g} deviations and {JUMP:.0%} of the median above it",
                "lower the learning rate, add warmup, clip gradients, or leave spikes out with optim.skip = 6; look at the "
                "rows of that step",
                (loss - level) / spread if spread else loss / level, step,
            )  # fmt: skip
    return None


def critic_failure(seen: Seen) -> Finding | None:
    """Past the middle of training the critic explains none of the returns, or its loss has grown."""
    if seen.done < HALF:
        return None
    explained, losses = seen.series("value/explained_variance"), seen.values("value/loss")
    if len(explained) < 2 * LAST:
        return None
    late = fmean(value for _, value in explained[-LAST:])
    grown = fmean(losses[-LAST:]) / fmean(losses[:LAST]) if len(losses) >= 2 * LAST and fmean(losses[:LAST]) else 0.0
    if late > EXPLAINED and grown < WORSE:
        return None
    said = f"the last {LAST} steps explain {late:.2g} of the returns' variance"
    said += f", and the value loss is {grown:.2g} times that of the first {LAST}" if grown else ""
    return Finding(
        "critic failure", "alarm", said,
        f"explained variance at most {EXPLAINED:g}, or a value loss {WORSE:g} times that of the start",
        "change critic_lr, let the critic warm up first (critic_warmup), or use an objective without one (rloo, grpo)",
        late, explained[-1][0],
    )  # fmt: skip


def sampler_mismatch(seen: Seen) -> Finding | None:
    """The sampler says other log-probs of its tokens than the trainer: it is not the policy that is updated."""
    found = seen.series("sampler/mismatch")
    if not found:
        return None
    step, worst = found[-1][0], median(value for _, value in found[-LAST:])
    if worst <= MISMATCH:
        return None
    return Finding(
        "sampler mismatch", "alarm",
        f"log-probs of sampled tokens differ by {worst:.2g} nats on average",
        f"over {MISMATCH:g} nats per token",
        "see that the sampler has the policy's weights, temperature and precision, and cuts nothing off the distribution",
        worst, step,
    )  # fmt: skip
