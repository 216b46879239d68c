"""Runs of two sides as ratios with their spread, and the checks that neither wins by doing less."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.peers.probe import Result
from benchmarks.works import Precision, Size, Work

DISTURBED = 0.15  # foreign cores from which on a step is left out
TOLERANCE = 1e-3  # absolute, of float32 losses
SAMPLED = {"grpo", "rloo", "ppo"}  # each side learns from answers of its own

# What accord calls the metrics of its peers.
CALLED = {
    "learning_rate": "lr", "num_tokens": "tokens_per_second", "rewards/accuracies": "accuracy",
    "rewards/margins": "margin", "logps/chosen": "chosen_logp", "logps/rejected": "rejected_logp",
    "reward": "reward/mean", "kl": "kl/mean", "completions/mean_length": "rollout/length",
    "completions/clipped_ratio": "rollout/finished", "clip_ratio/region_mean": "policy/clip_fraction",
    "step_time": "seconds", "policy_loss": "policy/loss", "objective/kl": "kl/mean", "objective/scores": "reward/mean",
    "policy/approxkl_avg": "policy/approx_kl", "policy/clipfrac_avg": "policy/clip_fraction",
    "loss/policy_avg": "policy/loss", "loss/value_avg": "value/loss", "val/clipfrac_avg": "value/clip_fraction",
    "policy/entropy_avg": "policy/entropy", "mean_token_accuracy": "token_accuracy",
}  # fmt: skip
BOOKS = {"step", "seconds", "member", "epoch", "episode", "eps"}  # no measurements of what is trained
# Those that cost a look at the whole vocabulary: a side that logs them does more.
COSTLY = {"entropy", "token_accuracy", "logits/chosen", "logits/rejected"}


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some values."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Check:
    """One way in which the sides must agree; `holds` is None where it could not be asked."""

    name: str
    holds: bool | None
    said: str


@dataclass(frozen=True)
class Compared:
    """One of ours against one of the peers in one work. Of pairs of numbers the first is ours."""

    ours: str
    peer: str
    pairs: int
    disturbed: int  # pairs with foreign work in more than half of their steps; they count only where all are
    speed: Spread  # times as fast
    effort: Spread  # times less processor time: less sensitive to others, but threads that spin count as work
    memory: Spread  # our peak over theirs
    first: Spread  # our time to the first step over theirs
    tokens_per_second: tuple[float, float]
    sequences_per_second: tuple[float, float]
    peak_mb: tuple[float, float]
    first_seconds: tuple[float, float]
    share: tuple[float, float] | None  # of the machine's rate of matrix products
    checks: list[Check] = field(default_factory=list)

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if check.holds is False]


@dataclass(frozen=True)
class Timed:
    """One pair of runs over the steps that count."""

    disturbed: bool
    tokens: tuple[float, float]  # per second
    sequences: tuple[float, float]
    operations: tuple[float, float]
    effort: tuple[float, float]  # processor seconds per sequence


def compare(
    work: Work, size: Size, ours: Sequence[Result], peer: Sequence[Result], *, rate: float | None, checks: list[Check]
) -> Compared:
    """Pairs of runs, in order, as one comparison. `rate` is the machine's, in operations per second."""
    both = list(zip(ours, peer, strict=True))
    timed = [pair(work, size, a, b) for a, b in both]
    quiet = [i for i, one in enumerate(timed) if not one.disturbed] or list(range(len(timed)))

    def middle(value: Callable[[Timed], tuple[float, float]]) -> tuple[float, float]:
        first, second = zip(*(value(timed[i]) for i in quiet), strict=True)
        return statistics.median(first), statistics.median(second)

    done = middle(lambda one: one.operations)
    return Compared(
        ours=both[0][0].side,
        peer=both[0][1].side,
        pairs=len(both),
        disturbed=sum(one.disturbed for one in timed),
        speed=Spread.of([timed[i].sequences[0] / timed[i].sequences[1] for i in quiet]),
        effort=Spread.of([timed[i].effort[1] / timed[i].effort[0] for i in quiet]),
        memory=Spread.of([a.peak_mb / b.peak_mb for a, b in both]),
        first=Spread.of([a.seconds[0] / b.seconds[0] for a, b in both]),
        tokens_per_second=middle(lambda one: one.tokens),
        sequences_per_second=middle(lambda one: one.sequences),
        peak_mb=(statistics.median(r.peak_mb for r in ours), statistics.median(r.peak_mb for r in peer)),
        first_seconds=(statistics.median(r.seconds[0] for r in ours), statistics.median(r.seconds[0] for r in peer)),
        share=(done[0] / rate, done[1] / rate) if rate and work.method in {"sft", "reward", "dpo"} else None,
        checks=checks,
    )


def pair(work: Work, size: Size, ours: Result, peer: Result) -> Timed:
    """Two runs over the same steps: those after the warm-up in which neither was disturbed, if half of them are left."""
    measured = range(work.warmup, len(ours.seconds))
    clean = [i for i in measured if max(ours.foreign[i] or 0.0, peer.foreign[i] or 0.0) < DISTURBED]
    used = clean if 2 * len(clean) >= len(measured) else list(measured)
    made = [of(work, size, result, used) for result in (ours, peer)]
    tokens, sequences, operations, effort = zip(*made, strict=True)
    return Timed(used is not clean, tokens, sequences, operations, effort)


def of(work: Work, size: Size, result: Result, steps: Sequence[int]) -> tuple[float, float, float, float]:
    """Tokens, sequences and operations per second and processor seconds per sequence, of some steps.

    What was done once for all steps counts for these by their number.
    """
    part = len(steps) / len(result.seconds)
    seconds = sum(result.seconds[i] for i in steps) + result.once * part
    worked = sum(result.own[i] for i in steps) + result.once_own * part
    rows = sum(result.sequences[i] for i in steps)
    tokens = sum(counted(work, result)[i] for i in steps)
    done = sum(operations(work, size, result.tokens[i], result.squares[i]) for i in steps)
    return tokens / seconds, rows / seconds, done / seconds, worked / rows


def counted(work: Work, result: Result) -> list[int]:
    """The tokens of each step that speed is told in: all that are read, of samplers those that are new."""
    return result.trained if work.method == "sample" else result.tokens


def operations(work: Work, size: Size, tokens: int, squares: int) -> float:
    """What training on rows takes, without any saving: 6 N for a token and causal attention, two products forward and
    four backward; with a reference two N more and its attention. `squares` is the sum of the rows' squared lengths."""
    forward = 2 * size.weights(head=work.method != "reward") * tokens + 2 * size.layers * size.width * squares
    return forward * (4 if work.method == "dpo" else 3)


# --------------------------------------------------------------------------------------------------------------- checks


def checked(work: Work, ours: Result, peer: Result, precision: Precision) -> list[Check]:
    """Everything that is asked of one run of each side on the same steps."""
    found = [same_rows(work, ours, peer), same_counts(ours, peer)]
    if work.method != "sample":
        found += [same_losses(work, ours, peer, precision), same_metrics(ours, peer)]
    return found


def same_rows(work: Work, ours: Result, peer: Result) -> Check:
    """Whether each step has the very same tokens and train masks; of policies the same prompts, of `chain` the same answers."""
    what = {"grpo": "prompts", "rloo": "prompts", "sample": "prompts and answers"}.get(work.method, "tokens and masks")
    if work.method == "ppo":
        return Check("rows", None, "TRL's PPO draws an order of its own; all prompts are alike long")
    if work.method == "sample" and work.answer[0] == work.answer[1]:
        return Check("rows", None, "each side draws its own tokens; lengths are the same")
    apart = [i for i, (a, b) in enumerate(zip(ours.digests, peer.digests, strict=True)) if a != b]
    said = f"the same {what} in all {len(ours.digests)} steps" if not apart else f"other {what} in steps {apart}"
    return Check("rows", not apart, said)


def same_counts(ours: Result, peer: Result) -> Check:
    """Whether as many tokens are trained, or sampled, in every step."""
    alike = ours.trained == peer.trained and ours.sequences == peer.sequences
    counts = f"{sum(ours.trained)} tokens" if alike else f"{ours.trained} tokens against {peer.trained}"
    return Check("counts", alike, f"{counts} of {sum(ours.sequences)} sequences")


def same_losses(work: Work, ours: Result, peer: Result, precision: Precision) -> Check:
    """Whether float32 losses agree at every step; of bfloat16 how far they are apart."""
    if work.method in SAMPLED:
        where = "tests/test_trl_ppo.py" if work.method == "ppo" else "tests/test_trl_policy.py"
        return Check("losses", None, f"each side learns from answers of its own; {where} compares on the same")
    apart = max(abs(a - b) for a, b in zip(ours.losses, peer.losses, strict=True))
    said = f"{precision}: largest difference {apart:.1e} in {len(ours.losses)} steps"
    if precision == "bfloat16":
        return Check("losses", None, said)
    return Check("losses", apart <= TOLERANCE, f"{said}, {TOLERANCE:g} allowed (absolute)")


def same_metrics(ours: Result, peer: Result) -> Check:
    """Whether we log all that costs the peer a look at the whole vocabulary; names what either logs alone."""
    theirs = {CALLED.get(name, name) for name in peer.metrics} - BOOKS
    known = {short(name) for name in ours.metrics} - BOOKS
    alone = sorted(name for name in theirs if short(name) not in known)
    more = sorted(known - {short(name) for name in theirs})
    costly = [name for name in alone if short(name) in COSTLY]
    said = f"{peer.side} alone logs {', '.join(alone) or 'nothing'}; {ours.side} alone {', '.join(more) or 'nothing'}"
    return Check("metrics", not costly, (f"not logged: {', '.join(costly)}; " if costly else "") + said)


def short(name: str) -> str:
    """A metric's name without the group that one side puts it in."""
    return name.removeprefix("policy/")
