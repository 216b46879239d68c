"""What every worker measures, and how: the ends of steps, foreign work on the processor, rows as seen, memory."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.works import Job


@dataclass
class Result:
    """What one process has to say. Lists have an entry for each step, warm-up included."""

    side: str = ""
    seconds: list[float] = field(default_factory=list)  # of each step; the first from the start of the process
    own: list[float] = field(default_factory=list)  # processor seconds of this process, all threads
    foreign: list[float | None] = field(default_factory=list)  # cores that others kept busy meanwhile
    once: float = 0.0  # seconds spent before the first step on what serves all steps (reference log-probs)
    once_own: float = 0.0  # processor seconds of the same
    losses: list[float] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # read, without padding; of episodes prompt and answer, once
    squares: list[int] = field(default_factory=list)  # sum of the squared lengths of the rows, for attention
    trained: list[int] = field(default_factory=list)  # tokens that losses were taken over, in all passes
    digests: list[str] = field(default_factory=list)  # of the rows of each step, whatever their order and padding
    metrics: list[str] = field(default_factory=list)  # names of what is logged
    peak_mb: float = 0.0


@dataclass(frozen=True)
class Rows:
    """Rows of a batch as the side has them. Without `train` every token counts as trained."""

    tokens: Tensor  # [B, T]
    attend: Tensor  # [B, T] bool
    train: Tensor | None = None  # [B, T] bool


@dataclass(frozen=True)
class Clock:
    """The time, and how much the processor has done until then, in seconds."""

    now: float
    own: float
    busy: float | None

    @classmethod
    def read(cls) -> Clock:
        return cls(time.monotonic(), time.process_time(), busy())


class Probe:
    """Collects the results of one worker."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.result = Result()
        self._last = Clock(job.began or time.monotonic(), time.process_time(), busy())
        self._steps: list[list[Rows]] = [[]]

    def saw(self, tokens: Tensor, attend: Tensor, train: Tensor | None = None) -> None:
        """Rows that the present step learns from."""
        self._steps[-1].append(Rows(tokens, attend.bool(), None if train is None else train.bool()))

    def mark(self) -> None:
        """The end of a step."""
        clock, last = Clock.read(), self._last
        wall, own = clock.now - last.now, clock.own - last.own
        others = None if clock.busy is None or last.busy is None else clock.busy - last.busy - own
        self.result.seconds.append(wall)
        self.result.own.append(own)
        self.result.foreign.append(None if others is None else max(0.0, others / wall))
        self.result.peak_mb = peak_mb(self.job.device)
        self._last = clock
        self._steps.append([])

    @property
    def done(self) -> int:
        """Steps that have ended."""
        return len(self.result.seconds)

    def report(self, *, losses: Sequence[float] = (), metrics: Sequence[str] = ()) -> Result:
        """Everything, with what is counted from the rows afterwards so that it costs no step anything."""
        found, of = self.result, self.job.of
        found.losses, found.metrics = list(losses), sorted(set(metrics))
        episodes = of.method in {"grpo", "rloo", "ppo"}
        for step in self._steps[: self.done]:
            lengths = [int(n) for rows in step for n in rows.attend.sum(1)]
            found.sequences.append(of.batch)
            found.tokens.append(of.batch * (of.prompt[0] + of.answer[0]) if episodes else sum(lengths))
            found.squares.append(sum(n * n for n in lengths))
            found.trained.append(sum(int(trained(rows).sum()) for rows in step))
            found.digests.append(digest(step, prompts=episodes))
        return found


def trained(rows: Rows) -> Tensor:
    """The tokens that a loss is taken over, [B, T] bool."""
    return rows.attend if rows.train is None else rows.train & rows.attend


def digest(step: Sequence[Rows], *, prompts: bool) -> str:
    """A hash of the rows of a step: their tokens and train masks; with `prompts` what stands before the answers, each once."""
    found: list[bytes] = []
    for rows in step:
        learnt = trained(rows)
        for i in range(len(rows.tokens)):
            attend = rows.attend[i]
            tokens, mask = rows.tokens[i][attend].tolist(), learnt[i][attend].tolist()
            of = tokens[: mask.index(True)] if prompts else [tokens, mask]
            found.append(hashlib.sha256(json.dumps(of).encode()).digest())
    every = sorted(set(found)) if prompts else sorted(found)
    return hashlib.sha256(b"".join(every)).hexdigest()[:16]


def busy() -> float | None:
    """Seconds that the processors of this machine have been at work for anyone; None where it does not say."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    ticks = [int(value) for value in path.read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle, waiting for disks
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


def peak_mb(device: str) -> float:
    """The most memory that this process has had: resident, or on a GPU allocated there."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; rusage counts what the parent held when it started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def told() -> Job:
    """The job on the command line."""
    job = Job(**json.loads(sys.argv[1]))
    if job.threads:
        torch.set_num_threads(job.threads)
    return job


def answer(result: Result) -> None:
    """Print the results as the last line."""
    print(json.dumps(asdict(result)), flush=True)
