"""What the machine can do at most: matrix products of the sizes of the model's linear layers."""

import json
import sys
import time

import torch

from benchmarks.peers.probe import Clock
from benchmarks.works import SIZES, Precision, Size

TOKENS = 1024  # rows of the product, about those of a batch
SECONDS = 0.4  # for each size


def sizes(size: Size) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear layers, that of the LM head included."""
    return [
        (size.width, size.width),
        (size.width, size.feed_forward),
        (size.feed_forward, size.width),
        (size.width, size.vocab),
    ]


def rate(inputs: int, outputs: int, precision: Precision, device: str) -> float:
    """Operations per second of the fastest of repeated products [TOKENS, inputs] x [inputs, outputs]."""
    kind = getattr(torch, precision)
    left = torch.randn(TOKENS, inputs, dtype=kind, device=device)
    right = torch.randn(inputs, outputs, dtype=kind, device=device)
    times: list[float] = []
    while len(times) < 5 or sum(times) < SECONDS:
        start = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    best = min(times)
    return 2 * TOKENS * inputs * outputs / best


def measure(name: str, precision: Precision, threads: int) -> dict[str, float | None]:
    """The rate over all sizes, in operations per second, each weighing as many operations as it has."""
    if threads:
        torch.set_num_threads(threads)
    size = SIZES[name]
    device = "cuda" if size.cuda else "cpu"
    before = Clock.read()
    work = [inputs * outputs for inputs, outputs in sizes(size)]
    seconds = [a * b / rate(a, b, precision, device) for a, b in sizes(size)]
    after = Clock.read()
    foreign = None
    if before.busy is not None and after.busy is not None:
        foreign = max(0.0, (after.busy - before.busy - after.own + before.own) / (after.now - before.now))
    return {"rate": sum(work) / sum(seconds), "foreign": foreign, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    print(json.dumps(measure(told["size"], told["precision"], told["threads"])))
