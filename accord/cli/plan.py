"""`accord plan`: what a recipe will need, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from accord.console import duration, table
from accord.errors import CheckFailed
from accord.plan import Plan, StagePlan, plan
from accord.plan.machines import Machine
from accord.recipe import Recipe

# What is shown of a stage's largest phase, and what it is called.
PARTS = {
    "base": "Python and libraries",
    "data": "data",
    "weights": "weights that learn",
    "frozen": "weights that stand still",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "working": "logits, working memory",
    "cache": "keys, values, sampler",
    "allocator": "compiled code, freed memory",
}


def plan_recipe(
    varied: Callable[[Sequence[str]], Recipe], machine: Machine | None, memory: float | None, price: float | None, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Print what the recipe needs; CheckFailed where a stage does not fit."""
    found = plan(varied([]), machine, varied, memory=memory)
    print(json.dumps(to_json(found, price), indent=2) if as_json else shown(found, price))
    if large := [stage.name for stage in found.stages if not stage.fits]:
        said = f"{', '.join(large)} would not fit into {size(found.stages[0].room)}"
        raise CheckFailed("plan", said, "change what is listed, or take a larger machine")


def shown(found: Plan, price: float | None) -> str:
    """The plan as text: the machine, a column for each stage, and what would help where one does not fit."""
    machine, stages, count = found.machine, found.stages, found.processes
    rates = f"{rate(machine.float32)} float32, {rate(machine.bfloat16)} bfloat16, {machine.bandwidth / 1e9:.0f} GB/s"
    lines = [
        f"{machine.name}: {size(machine.memory)}, {rates} ({machine.source})",
        f"{found.precision}, {count} process{'' if count == 1 else 'es'}",
        "",
    ]
    rows = [[title, *(size(part(stage, key)) for stage in stages)] for key, title in PARTS.items()
            if any(part(stage, key) for stage in stages)]  # fmt: skip
    rows.append(["peak", *(size(stage.peak) for stage in stages)])
    if count > 1 and not machine.gpu:
        rows.append([f"peak of {count} processes", *(size(stage.peak * count) for stage in stages)])
    rows.append(["reached in", *(stage.phase.name for stage in stages)])
    rows.append(["time", *(duration(stage.seconds) for stage in stages)])
    if price is not None:
        rows.append(["cost", *(f"{cost(stage, price):.2f}" for stage in stages)])
    lines.append(table(["of a process", *(stage.name for stage in stages)], rows))
    total = sum(stage.seconds for stage in stages)
    lines.append(f"\nin all {duration(total)}" + ("" if price is None else f", {total / 3600 * price:.2f}"))
    for name, changed in found.advice.items():
        before = next(stage for stage in stages if stage.name == name)
        lines.append(f"\n{name} needs {size(before.peak)} and there is {size(before.room)}. What would help:")
        help_ = [
            [key, size(before.peak - after.peak), size(after.peak), "yes" if after.fits else "no"]
            for key, after in changed.items()
        ]
        lines.append(table(["setting", "saves", "peak", "fits"], help_))
        half = sum(part(before, key) for key in ("weights", "frozen", "gradients", "optimizer")) / 2
        lines.append(f"a model of half the size would save about {size(half)}")
    return "\n".join(lines)


def to_json(found: Plan, price: float | None) -> dict[str, object]:
    """The plan as numbers: bytes, seconds, and money in the unit of the price."""

    def stage(of: StagePlan) -> dict[str, object]:
        parts = {key: round(part(of, key)) for key in PARTS}
        needs = {"peak": round(of.peak), "room": round(of.room), "fits": of.fits, "reached_in": of.phase.name}
        money = {} if price is None else {"cost": cost(of, price)}
        return {
            "name": of.name,
            "kind": of.kind,
            **parts,
            **needs,
            "seconds": of.seconds,
            "seconds_of": of.parts,
            **money,
        }

    return {
        "machine": asdict(found.machine),
        "precision": found.precision,
        "processes": found.processes,
        "stages": [stage(of) for of in found.stages],
        "advice": {name: {key: stage(of) for key, of in changed.items()} for name, changed in found.advice.items()},
    }


def part(stage: StagePlan, key: str) -> float:
    """One of the `PARTS`, in bytes."""
    return float(vars(stage.phase)[key])


def cost(stage: StagePlan, price: float) -> float:
    """What a stage costs at a price for an hour."""
    return stage.seconds / 3600 * price


def size(count: float) -> str:
    """`412 MiB`, `1.2 GiB`."""
    return f"{count / 2**20:,.0f} MiB" if count < 10 * 2**30 else f"{count / 2**30:,.1f} GiB"


def rate(operations: float) -> str:
    """`98 GFLOPS`, `989 TFLOPS`."""
    return f"{operations / 1e9:.0f} GFLOPS" if operations < 1e12 else f"{operations / 1e12:.0f} TFLOPS"
