"""This machine: how fast it is, measured for a few seconds, and what a process takes before it holds anything of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from accord import norm
from accord.attention import NAME
from accord.data.batch import Row, collate
from accord.engine import Engine
from accord.objectives.likelihood import sft
from accord.outputs import Roles
from accord.plan.counting import Counter, Work
from accord.plan.machines import Machine
from accord.recipe import Optim, Shape
from accord.sampler.weights import multiplier
from accord.stages.pretrain import fresh_model

# Of models that a machine is measured by: in the first all time goes into starting operators, in the second little.
SMALL = {"layers": 2, "width": 32, "heads": 2, "feed_forward": 64, "vocab": 512}
LARGE = {"layers": 2, "width": 512, "heads": 8, "feed_forward": 1408, "vocab": 4096}
LONG = 0.25  # seconds that one thing is repeated
BUSY = 1.2  # times as long as this thread works it takes where others are at work too
KERNELS = 80  # shapes of matrix products, more than a process keeps compiled (accord/engine.py)


def here(engine: Engine) -> Machine:
    """This machine: rates of products, of sums and of the operands of a product with few rows; what an operator costs, and
    the share of those rates that updates come to.

    The plan is for a machine that has nothing else to do.
    """
    device, gpu = engine.device, engine.device.type == "cuda"
    clock = Clock(device)
    x, weight = (torch.randn(1024, 512, device=device) for _ in range(2))
    pairs = [(x.to(kind), weight.to(kind)) for kind in (torch.float32, torch.bfloat16)]
    rates = [2.0 * len(x) * weight.numel() / clock.seconds(partial(torch.mm, a, b.T)) for a, b in pairs]
    a, b, c = (torch.randn(2**22, device=device) for _ in range(3))
    bandwidth = 3 * 4 * a.numel() / clock.seconds(lambda: torch.add(a, b, out=c))
    wide, few = torch.randn(2**13, 2**11, device=device), torch.randn(4, 2**11, device=device)  # no cache holds as much
    operations = 2.0 * len(few) * wide.numel()
    fed = clock.seconds(partial(multiplier(wide, None), few)) - operations / rates[0]
    feeding = min(4 * wide.numel() / max(fed, 1e-9), bandwidth)
    held = torch.cuda.get_device_properties(device).total_memory if gpu else memory()
    name = torch.cuda.get_device_name(device) if gpu else f"this machine, {os.cpu_count()} cores"
    small, large = (_update(engine, Shape(**shape), clock) for shape in (SMALL, LARGE))
    source = "measured while others kept it busy" if clock.busy else "measured"
    made = Machine(
        name, held, rates[0], rates[1], bandwidth, feeding, source, gpu=gpu, call=0.0, precision=engine.precision
    )
    made = replace(made, call=max(small[1] - made.seconds(small[0]), 0.0) / small[0].calls)
    computing = max(large[1] - made.call * large[0].calls, 1e-9)
    return replace(made, reached=replace(made, call=0.0).seconds(large[0]) / computing)


class Clock:
    """Seconds of runs, and whether other processes had a part in them.

    Of a CPU it is the time that this thread had a core for, so that neither a busy neighbour nor another virtual machine makes
    a core look slow.
    """

    def __init__(self, device: torch.device) -> None:
        self.now = time.perf_counter if device.type == "cuda" else time.thread_time
        self.passed = self.worked = 0.0  # seconds on the wall, and those that count

    @property
    def busy(self) -> bool:
        """Whether this thread had to wait for a good part of the time."""
        return self.passed > BUSY * self.worked

    def seconds(self, run: Callable[[], object]) -> float:
        """Of the fastest of several runs, at least three."""
        run()
        found: list[float] = []
        start = time.perf_counter()
        while len(found) < 3 or time.perf_counter() < start + LONG:
            began = self.now()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            found.append(self.now() - began)
        self.passed += time.perf_counter() - start
        self.worked += sum(found)
        return min(found)


def _update(engine: Engine, shape: Shape, clock: Clock) -> tuple[Work, float]:
    """The work of an update of a new model, and the seconds that it takes."""
    run, counter = _step(engine, shape)
    with counter:
        run()
    return counter.work, clock.seconds(run)


def _step(engine: Engine, shape: Shape) -> tuple[Callable[[], object], Counter]:
    """An update of a new model, and what counts its work."""
    model = fresh_model(shape)
    model.set_attn_implementation(NAME)
    norm.quicken(model)
    roles = Roles(policy=model.to(engine.device))  # pyright: ignore[reportArgumentType]
    learner = engine.learner(roles, Optim())
    batch = collate([[Row([1] * 64, [False] * 32 + [True] * 32)] for _ in range(16)], 0)
    return partial(engine.update, learner, batch, sft, {}), Counter(roles)


def loaded(engine: Engine) -> int:
    """Bytes that a process holds before any model: everything is loaded that an update calls, and as many kernels compiled
    as are kept."""
    _step(engine, Shape(**SMALL))[0]()
    kind = torch.bfloat16 if engine.precision == "bfloat16" else torch.float32
    weight = torch.zeros(64, 64, dtype=kind)
    for rows in range(KERNELS):
        torch.mm(torch.zeros(64 + rows, 64, dtype=kind), weight)
    engine.release()
    return resident()


def memory() -> float:
    """Bytes of this machine, or of the container that this process is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    said = limit.read_text().strip() if limit.is_file() else "max"
    return float(min(total, int(said)) if said.isdigit() else total)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.is_file() else 0
