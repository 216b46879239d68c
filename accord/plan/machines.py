"""Machines by their names, and how long they take."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from accord.errors import RecipeError
from accord.plan.counting import Work

GB, GIB, TERA = 1e9, 2**30, 1e12


@dataclass(frozen=True)
class Machine:
    """What a machine holds, and what one of its devices computes in a second when all goes well."""

    name: str
    memory: float  # bytes: of a GPU, or of the whole machine where there is none
    float32: float  # operations of matrix products
    bfloat16: float
    bandwidth: float  # bytes read and written
    feeding: float  # bytes of operands that matrix products read and write
    source: str
    gpu: bool = True
    devices: int = 1  # GPUs
    call: float = 10e-6  # seconds to start an operator
    reached: float = 1.0  # the share of those rates that programs come to
    precision: str = "bfloat16"  # where a recipe leaves it open

    def seconds(self, work: Work) -> float:
        """How long one device takes. A GPU computes while operands arrive and the next operators are started, a CPU does
        one after the other: a weight that few tokens are multiplied with takes the time of reading it on top."""
        products = work.float32 / self.float32 + work.bfloat16 / self.bfloat16
        operands, moved, calls = work.operands / self.feeding, work.moved / self.bandwidth, work.calls * self.call
        if self.gpu:
            return max((max(products, operands) + moved) / self.reached, calls)
        return (products + operands + moved) / self.reached + calls


# Data sheets have peaks; large models are trained at 0.38 to 0.43 of them (Llama 3, arXiv 2407.21783, table 4).
REACHED = 0.4
# Products of float32 without TF32, as PyTorch has it unless told otherwise; rates without sparsity. A GB is 10^9 bytes.
TABLE = {
    name: Machine(title, memory * GB, float32 * TERA, bfloat16 * TERA, bandwidth * GB, bandwidth * GB, source, reached=REACHED)
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
CORE = Machine(
    "a Zen 4 core", 4 * GIB, 0.1 * TERA, 0.2 * TERA, 4.8 * GB, 4.8 * GB, "AMD EPYC 9004 data sheet", gpu=False
)


def named(name: str) -> Machine:
    """A machine of the table: `h100`, several as `h100x8`, or so many cores, `cpu16`."""
    if cores := re.fullmatch(r"cpu([1-9]\d*)", name):
        count = int(cores[1])
        rates = {key: getattr(CORE, key) * count for key in ("memory", "float32", "bfloat16", "bandwidth", "feeding")}
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
