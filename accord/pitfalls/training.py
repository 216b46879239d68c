"""The machinery: losses that jump, critics that do not learn, samplers that are not the policy."""

from __future__ import annotations

from statistics import fmean, median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from accord.pitfalls.seen import Finding, Seen

Numbers: TypeAlias = NDArray[np.float64]

WINDOW, FEWEST = 32, 5  # steps to compare a loss with, and the fewest that say anything
SPIKE, JUMP = 10.0, 1.5  # deviations above the recent losses, and by how many times their median at least
DIVERGED, ENDS = 1.5, 3  # times the loss of the start, in medians of so many steps
ONE_OF = 1.4826  # the median distance from the median is so many times smaller than a normal deviation
HALF, LAST = 0.5, 5
EXPLAINED, WORSE = 0.05, 2.0  # of the returns' variance; times the value loss of the start
ALIKE = 0.3  # of their deviation at the start: returns that have so little left need no critic
MISMATCH = 0.02  # nats per token


def loss_spike(seen: Seen) -> Finding | None:
    """A loss far above those before it, or above where it began: too large a step, or a batch unlike the others."""
    losses = seen.series("loss") if seen.kind != "policy" else []  # of a policy it measures nothing
    values = np.array([value for _, value in losses])
    level, spread = _recent(values)  # from step FEWEST on
    far = values[FEWEST:] > level + np.maximum(SPIKE * spread, JUMP * np.abs(level))
    if not far.any():
        return _divergence(losses)
    at = int(far.argmax())
    step, loss = losses[at + FEWEST]
    middle, deviation = float(level[at]), float(spread[at])
    return _leap(
        f"loss {loss:.3g} at step {step}, where the {min(at + FEWEST, WINDOW)} steps before had a median of {middle:.3g} and "
        f"deviated by {deviation:.2g}", loss / middle if middle else loss, step,
    )  # fmt: skip


def _recent(values: Numbers) -> tuple[Numbers, Numbers]:
    """Median of the steps before each step from the FEWEST-th on, at most WINDOW, and their deviation."""
    windows = [values[:i][None] for i in range(FEWEST, min(len(values), WINDOW))]
    if len(values) > WINDOW:
        windows.append(np.lib.stride_tricks.sliding_window_view(values, WINDOW)[:-1])
    level = [np.median(window, 1) for window in windows]
    spread = [
        ONE_OF * np.median(np.abs(window - middle[:, None]), 1) for window, middle in zip(windows, level, strict=True)
    ]
    return (np.concatenate(level), np.concatenate(spread)) if windows else (np.empty(0), np.empty(0))


def _divergence(losses: list[tuple[int, float]]) -> Finding | None:
    if len(losses) < 2 * ENDS:
        return None
    first = median(value for _, value in losses[:ENDS])
    for i in range(2 * ENDS, len(losses) + 1):
        now, step = median(value for _, value in losses[i - ENDS : i]), losses[i - 1][0]
        if now > DIVERGED * first > 0:
            return _leap(f"the loss is {now:.3g} at step {step}, and began at {first:.3g}", now / first, step)
    return None


def _leap(evidence: str, value: float, step: int) -> Finding:
    return Finding(
        "loss spike", "alarm", evidence,
        f"{SPIKE:g} deviations and {JUMP:g} times the median above the steps before, or {DIVERGED:g} times the start",
        "lower the learning rate, add warmup, clip gradients, or leave spikes out with optim.skip = 6, and look at the rows",
        value, step,
    )  # fmt: skip


def critic_failure(seen: Seen) -> Finding | None:
    """Past the middle of training the critic explains none of the returns, or its loss has grown."""
    explained, losses = seen.series("value/explained_variance"), seen.values("value/loss")
    if seen.done < HALF or len(explained) < 2 * LAST:
        return None
    late = fmean(value for _, value in explained[-LAST:])
    grown, left = _kept(losses), _kept(seen.values("value/return_std"))
    blind = late <= EXPLAINED and (left is None or left > ALIKE)
    if not blind and (grown is None or grown < WORSE):
        return None
    said = f"the last {LAST} steps explain {late:.2g} of the returns' variance"
    said += f", and the value loss is {grown:.2g} times that of the first {LAST}" if grown is not None else ""
    return Finding(
        "critic failure", "alarm", said,
        f"at most {EXPLAINED:g} of the variance explained, or a value loss over {WORSE:g} times that of the start",
        "change critic_lr, let the critic warm up first (critic_warmup), or use an objective without one (rloo, grpo)",
        late, explained[-1][0],
    )  # fmt: skip


def _kept(values: list[float]) -> float | None:
    """The end of a series over its start; None where there is too little of it."""
    if len(values) < 2 * LAST or fmean(values[:LAST]) <= 0:
        return None
    return fmean(values[-LAST:]) / fmean(values[:LAST])


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
