"""How accord's cost grows: processor time per token of 1, 2, 4 and 8 times as much work, relative to the first.

By more rows of one length, which should cost the same per token, and by longer rows, where attention is quadratic; and by more
records to prepare, whose rows are written to disk and mapped from there.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from accord.data import prepare
from accord.data.batch import collate
from accord.data.loaded import Loaded
from accord.data.rows import Row
from accord.data.tokenizer import pad_id
from accord.engine import Engine
from accord.model import load_policy
from accord.objectives.likelihood import sft
from accord.objectives.preference import dpo
from accord.outputs import Roles
from accord.recipe import Compute, Optim, Source
from accord.run import append
from accord.sampler import Ask
from accord.sampler.local import LocalSampler
from benchmarks import material
from benchmarks.works import LR, SEED, WORKS, Precision, Size

TIMES = (1, 2, 4, 8)
ROWS, HALF = 8, 64  # rows, or pairs, of the first batch; tokens of each prompt, and of each answer, in it
RECORDS = 4000  # of the first data set
HEAD = "| what | tokens (records) at first | microseconds each | x 1 | x 2 | x 4 | x 8 |\n| --- |" + " ---: |" * 6


@dataclass(frozen=True)
class Growth:
    """Processor seconds of each size of a work, beside its tokens (or records)."""

    name: str
    seconds: list[float]
    units: list[int]
    memory: list[float] = field(default_factory=list)  # by how many MB each size raised the peak

    def line(self) -> str:
        """A row of the page's table."""
        cost = [seconds / units for seconds, units in zip(self.seconds, self.units, strict=True)]
        said = f" (peak memory {', '.join(f'+{value:.0f}' for value in self.memory)} MB)" if self.memory else ""
        each = " | ".join(f"{value / cost[0]:.2f}" for value in cost)
        return f"| {self.name}{said} | {self.units[0]:,} | {cost[0] * 1e6:,.0f} | {each} |"


def measure(size: Size, precision: Precision, folder: Path, *, repeats: int) -> Iterator[Growth]:
    """All of it in this process and one thread: each size in turn, medians of `repeats` after one that warms up."""
    language = material.Language.of(size, folder / "tokenizer")
    yield prepared(size, language, folder)  # first, while little memory has been used
    for name in ("policy", "actor"):
        material.save(material.made(size, name, language), language.tokenizer, folder / name)
    engine = Engine(Compute(device="cpu", precision=precision, threads=1))
    for name, make in {"SFT": demonstrations, "DPO": pairs, "sampling": answers}.items():
        for way in ("more", "longer"):
            shapes = [(ROWS * k, HALF) if way == "more" else (ROWS, HALF * k) for k in TIMES]
            works = [make(engine, language, folder, *shape) for shape in shapes]
            seconds = [[timed(work) for work in works] for _ in range(repeats + 1)][1:]
            middle = [statistics.median(each) for each in zip(*seconds, strict=True)]
            yield Growth(
                f"{name}, {way} rows", middle, [(2 + 2 * (name == "DPO")) * rows * half for rows, half in shapes]
            )


def timed(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def drawn(language: material.Language, rows: int, half: int) -> list[list[int]]:
    """Rows of so many whole words."""
    draw, ids = random.Random(SEED), sorted(language.ids)
    return [draw.choices(ids, k=half) for _ in range(rows)]


def demonstrations(
    engine: Engine, language: material.Language, folder: Path, rows: int, half: int
) -> Callable[[], object]:
    """An update on demonstrations, the second half of each trained."""
    pad = pad_id(language.tokenizer)
    policy = load_policy(str(folder / "policy"), language.tokenizer, "model")
    learner = engine.learner(Roles(policy=policy), Optim(lr=LR["sft"]))
    train = [False] * half + [True] * half
    batch = collate([[Row(tokens, train)] for tokens in drawn(language, rows, 2 * half)], pad)
    return lambda: engine.update(learner, batch, sft, {})


def pairs(engine: Engine, language: material.Language, folder: Path, rows: int, half: int) -> Callable[[], object]:
    """An update on pairs of answers whose reference's log-probs are known."""
    pad = pad_id(language.tokenizer)
    policy = load_policy(str(folder / "policy"), language.tokenizer, "model")
    learner = engine.learner(Roles(policy=policy), Optim(lr=LR["dpo"]))
    train = [False] * half + [True] * half
    extra: dict[str, float | list[float]] = {"ref_logp": [-9.0] * 2 * half, "prob": 1.0, "weight": 1.0}
    drawn_rows = drawn(language, rows, 3 * half)
    groups = [
        [Row(one[: 2 * half], train, extra), Row(one[:half] + one[2 * half :], train, extra)] for one in drawn_rows
    ]
    batch = collate(groups, pad)
    return lambda: engine.update(learner, batch, dpo, {})


def answers(engine: Engine, language: material.Language, folder: Path, rows: int, half: int) -> Callable[[], object]:
    """Answers of a model that never ends one by itself, as long as their prompts."""
    actor = engine.place(load_policy(str(folder / "actor"), language.tokenizer, "model"))
    sampler = LocalSampler(actor, language.tokenizer, set())
    asks = [Ask(prompt=[], tokens=tokens, number=i) for i, tokens in enumerate(drawn(language, rows, half))]
    return lambda: engine.generate(sampler, asks, max_new_tokens=half, temperature=1.0, seed=SEED)


def prepared(size: Size, language: material.Language, folder: Path) -> Growth:
    """Demonstrations read, rendered, tokenised and kept on disk; a first set of them warms up."""
    work = WORKS["sft"]
    seconds: list[float] = []
    peaks: list[float] = []
    for number, times in enumerate((1, *TIMES)):
        path = folder / f"{number}.jsonl"
        for _ in range(times):
            append(path, list(material.rows(work, size, language, RECORDS // work.batch)))
        loaded = Loaded.of([Source(source=str(path))], "data")
        seconds.append(
            timed(
                lambda of=loaded: prepare.demonstrations(of, language.tokenizer, prepare.Limits(size.context), "data")
            )
        )
        peaks.append(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        )
    rise = [after - before for before, after in pairwise(peaks)]
    return Growth("preparing records", seconds[1:], [RECORDS * k for k in TIMES], rise)
