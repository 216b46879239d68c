"""Machines: a table of them, and this one, measured for a few seconds."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from accord.data.batch import Row, collate
from accord.engine import Engine
from accord.errors import RecipeError
from accord.objectives.likelihood import sft
from accord.outputs import Roles
from accord.plan.counting import Counter, Work
from accord.recipe import Optim, Shape
from accord.stages.pretrain import fresh_model

GB, GIB, TERA = 1e9, 2**30, 1e12
# Of models that this machine is measured by: in the first all time goes into starting operators, in the second little.
SMALL = {"layers": 2, "width": 32, "heads": 2, "feed_forward": 64, "vocab": 512}
LARGE = {"layers": 2, "width": 512, "heads": 8, "feed_forward": 1408, "vocab": 4096}


@dataclass(frozen=True)
class Machine:
    """What a machine holds, and what one of its devices computes in a second when all goes well."""

    name: str
    memory: float  # bytes: of a GPU, or of the whole machine where there is none
    float32: float  # operations of matrix products
    bfloat16: float
    bandwidth: float  # bytes read and written
    source: str
    gpu: bool = True
    devices: int = 1  # GPUs
    call: float = 10e-6  # seconds to start an operator
    reached: float = 1.0  # the share of those rates that programs come to
    precision: str = "bfloat16"  # where a recipe leaves it open

    def seconds(self, work: Work) -> float:
        """How long one device takes. A GPU computes while the next operators are started, a CPU does not."""
        products = work.float32 / self.float32 + work.bfloat16 / self.bfloat16
        computing = (max(products, work.operands / self.bandwidth) + work.moved / self.bandwidth) / self.reached
        return max(computing, work.calls * self.call) if self.gpu else computing + work.calls * self.call


# Data sheets have peaks; large models are trained at 0.38 to 0.43 of them (Llama 3, arXiv 2407.21783, table 4).
REACHED = 0.4
# Products of float32 without TF32, as PyTorch has it unless told otherwise; rates without sparsity. A GB is 10^9 bytes.
TABLE = {
    name: Machine(title, memory * GB, float32 * TERA, bfloat16 * TERA, bandwidth * GB, source, reached=REACHED)
    for name, title, memory, float32, bfloat16, bandwidth, source in [
        ("h200", "H200 SXM", 141, 67, 989, 4800, "https://www.nvidia.com/en-us/data-center/h200/"),
        ("h100", "H100 SXM", 80, 67, 989, 3350, "https://www.nvidia.com/en-us/data-center/h100/"),
        ("a100-80g", "A100 SXM 80 GB", 80, 19.5, 312, 2039, "https://www.nvidia.com/en-us/data-center/a100/"),
        ("a100-40g", "A100 40 GB", 40, 19.5, 312, 1555, "https://www.nvidia.com/en-us/data-center/a100/"),
        ("l40s", "L40S", 48, 91.6, 362, 864, "https://www.nvidia.com/en-us/data-center/l40s/"),
        ("l4", "L4", 24, 30.3, 121, 300, "https://www.nvidia.com/en-us/data-center/l4/"),
        ("4090", "GeForce RTX 4090", 24, 82.6, 165.2, 1008, "NVIDIA Ada GPU Architecture, appendix A"),
        ("3090", "GeForce RTX 3090", 24, 35.6, 71.2, 936, "NVIDIA Ampere GA102 GPU Architecture, appendix A"),
    ]
}  # fmt: skip
# A core of a Zen 4 server: rates as measured (docs/performance.md), its part of the socket's bandwidth (460.8 GB/s for 96
# cores), 4 GiB as clouds give it.
CORE = Machine("a Zen 4 core", 4 * GIB, 0.1 * TERA, 0.2 * TERA, 4.8 * GB, "AMD EPYC 9004 data sheet", gpu=False)


def named(name: str) -> Machine:
    """A machine of the table: `h100`, several as `h100x8`, or so many cores, `cpu16`."""
    if cores := re.fullmatch(r"cpu([1-9]\d*)", name):
        count = int(cores[1])
        rates = {key: getattr(CORE, key) * count for key in ("memory", "float32", "bfloat16", "bandwidth")}
        return replace(CORE, name=f"{count} Zen 4 cores", **rates)
    kind, _, count = name.partition("x")
    if kind not in TABLE or not re.fullmatch(r"([1-9]\d*)?", count) or name.endswith("x"):
        known = f"known: {', '.join(TABLE)}, several as in h100x8, or cores as in cpu16"
        raise RecipeError("--machine", f"'{name}' is not in the table", known)
    devices = int(count or 1)
    title = TABLE[kind].name if devices == 1 else f"{devices} x {TABLE[kind].name}"
    return replace(TABLE[kind], name=title, devices=devices)


def bytes_of(text: str, where: str) -> float:
    """The number of bytes that `24GiB` or `80GB` stands for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b", text.strip(), re.IGNORECASE)
    if not found:
        raise RecipeError(where, f"'{text}' is no amount of memory", "write it as 24GiB, or 80GB")
    return float(found[1]) * (1024 if found[3] else 1000) ** ("kmgt".index(found[2].lower()) + 1)


# --------------------------------------------------------------------------------------------------------- this machine


def here(engine: Engine) -> Machine:
    """This machine: rates of products and of sums, what an operator costs, and the share of that which updates come to."""
    device, gpu = engine.device, engine.device.type == "cuda"
    x, weight = (torch.randn(1024, 512, device=device) for _ in range(2))
    pairs = [(x.to(kind), weight.to(kind)) for kind in (torch.float32, torch.bfloat16)]
    rates = [2.0 * len(x) * weight.numel() / _seconds(partial(torch.mm, a, b.T)) for a, b in pairs]
    a, b = (torch.randn(2**22, device=device) for _ in range(2))
    bandwidth = 3 * 4 * a.numel() / _seconds(lambda: a + b)
    held = torch.cuda.get_device_properties(device).total_memory if gpu else memory()
    name = torch.cuda.get_device_name(device) if gpu else f"this machine, {os.cpu_count()} cores"
    small, large = (_update(engine, Shape(**shape)) for shape in (SMALL, LARGE))
    made = Machine(name, held, rates[0], rates[1], bandwidth, "measured", gpu=gpu, call=0.0, precision=engine.precision)
    made = replace(made, call=max(small[1] - made.seconds(small[0]), 0.0) / small[0].calls)
    reached = replace(made, call=0.0).seconds(large[0]) / max(large[1] - made.call * large[0].calls, 1e-9)
    return replace(made, reached=min(reached, 1.0))


def _update(engine: Engine, shape: Shape) -> tuple[Work, float]:
    """The work of an update of a new model, and the seconds that it takes."""
    roles = Roles(policy=fresh_model(shape).to(engine.device))  # pyright: ignore[reportArgumentType]
    learner = engine.learner(roles, Optim())
    batch = collate([[Row([1] * 64, [False] * 32 + [True] * 32)] for _ in range(16)], 0)
    counter = Counter(roles)
    with counter:
        engine.update(learner, batch, sft, {})
    return counter.work, _seconds(lambda: engine.update(learner, batch, sft, {}))


def _seconds(run: Callable[[], object]) -> float:
    """Seconds of a run, on average over one second, so that what others do on the machine counts too."""
    run()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 1:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        count += 1
    return (time.perf_counter() - began) / count


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
