"""What a recipe will need, before anything is run: memory by part and time of each stage, on this machine or another."""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accord.engine import Engine
from accord.plan.calibration import here, loaded
from accord.plan.machines import Machine
from accord.plan.reading import Reading, read
from accord.plan.shapes import Conditions
from accord.plan.sketch import Phase, Sketch
from accord.plan.stages import sketch
from accord.recipe import Compute, Evaluate, Policy, PpoParams, Recipe, Reward, Select
from accord.recipe.training import Trained
from accord.run import Run
from accord.stages.check import inspect
from accord.stages.fit import Context

CONTEXT = 0.5 * 2**30  # bytes that CUDA and its libraries take of a GPU
# What allocators keep beside what is in use, as a share of what comes and goes: where rows are ragged, freed pieces seldom
# have the size that is wanted next (docs/performance.md); on a GPU it is a guess.
CPU_KEEPS, GPU_KEEPS = 0.3, 0.2
CPU_KEEPS_CHECKPOINTING = 1.0  # layers come and go twice, in pieces that lie between what stays
CPU_KERNELS = 50 * 2**20  # bytes of code that oneDNN compiles; in float32 it multiplies for the sampler alone


@dataclass(frozen=True)
class StagePlan:
    """What one process needs in a stage."""

    name: str
    kind: str
    phase: Phase  # the one in which memory peaks
    room: float  # bytes that there are
    parts: dict[str, float]  # seconds, by what they are spent on

    @property
    def peak(self) -> float:
        """Bytes at the peak."""
        return self.phase.total

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is memory for it."""
        return self.peak <= self.room


@dataclass(frozen=True)
class Plan:
    """What every stage needs; and of those that do not fit, what they would need with other settings (`key=value`)."""

    machine: Machine
    precision: str
    processes: int
    stages: Sequence[StagePlan]
    advice: dict[str, dict[str, StagePlan]]


def plan(
    recipe: Recipe, machine: Machine | None, varied: Callable[[Sequence[str]], Recipe], *, memory: float | None = None
) -> Plan:
    """Read the data of a recipe as a run does, and count what its stages come to on a machine, or on this one.

    `varied` gives the recipe with more `key=value` on top; `memory` is what there is in place of the machine's, in bytes.
    """
    engine = Engine(recipe.compute if machine is None else Compute(threads=recipe.compute.threads))
    gc.freeze()  # libraries, which every release of memory would look through again
    found = machine or here(engine)
    found = replace(found, memory=memory or found.memory)
    inspect(recipe)
    base = loaded(engine)
    stages: list[StagePlan] = []
    advice: dict[str, dict[str, StagePlan]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = Run(recipe, Path(folder))
        for name in recipe.stage:
            context = Context(made, engine, name, made.stage(name), threading.Event(), lambda *_: None)
            context.folder.path.mkdir(parents=True)
            reading = read(context)

            def needed(of: Recipe, context: Context = context, reading: Reading = reading) -> StagePlan:
                return _needed(replace(context, run=Run(of, made.path)), reading, found, base)

            stages.append(needed(recipe))
            if not stages[-1].fits:
                advice[name] = _helpful(stages[-1], recipe, found, lambda more: needed(varied(more)))
    return Plan(found, precision_on(found, recipe), processes_on(found, recipe), stages, advice)


def precision_on(machine: Machine, recipe: Recipe) -> str:
    """Of matrix products."""
    return machine.precision if recipe.compute.precision == "auto" else recipe.compute.precision


def processes_on(machine: Machine, recipe: Recipe) -> int:
    """How many there will be: one for each GPU."""
    return machine.devices if machine.gpu else recipe.compute.processes


def _needed(context: Context, reading: Reading, machine: Machine, base: float) -> StagePlan:
    """What a stage comes to."""
    recipe, gpu = context.run.recipe, machine.gpu
    stage, processes = recipe.stage[context.name], processes_on(machine, recipe)
    sampling = isinstance(stage, Select | Evaluate)
    budget = stage.micro_tokens if sampling else stage.optim.micro_tokens
    under = Conditions(precision_on(machine, recipe), gpu, not sampling and stage.optim.checkpointing)
    made = Sketch(under, processes, budget)
    sketch(context, reading, made)
    keeps = GPU_KEEPS if gpu else CPU_KEEPS_CHECKPOINTING if under.checkpointing else CPU_KEEPS
    kernels = CPU_KERNELS if not gpu and (sampling or isinstance(stage, Policy) or under.precision == "bfloat16") else 0
    phases = [
        replace(
            phase, base=CONTEXT if gpu else base, data=0.0 if gpu else reading.size,
            allocator=kernels + keeps * (phase.activations + phase.working),
        )
        for phase in made.phases
    ]  # fmt: skip
    room = machine.memory / (1 if gpu else processes)
    peak = max(phases, key=lambda phase: phase.total)
    # A GPU waits for operators to be started in one part, and for what they compute in another.
    parts = {name: machine.seconds(work) for name, work in made.work.items()}
    return StagePlan(context.name, stage.kind, peak, room, {"data": reading.seconds, **parts})


def _helpful(
    stage: StagePlan, recipe: Recipe, machine: Machine, under: Callable[[Sequence[str]], StagePlan]
) -> dict[str, StagePlan]:
    """The stage under each setting that makes it smaller, and under all of them together."""
    settings = changes(recipe, stage.name, precision_on(machine, recipe), processes_on(machine, recipe))
    found = {setting: changed for setting in settings if (changed := under([setting])).peak < stage.peak * 0.99}
    adapted = any(setting.endswith(".lora={}") for setting in found)
    both = [setting for setting in found if not (adapted and setting.endswith(".critic=trunk"))]  # do not go together
    return found | ({" ".join(both): under(both)} if len(both) > 1 else {})


def changes(recipe: Recipe, name: str, precision: str, processes: int) -> list[str]:
    """Settings that may take less memory, as `key=value`, those first that change no result."""
    stage, at = recipe.stage[name], f"stage.{name}"
    if isinstance(stage, Evaluate | Select):
        found = [f"{at}.micro_tokens={max(1, stage.micro_tokens // 4)}"]
    else:
        found = [f"{at}.optim.micro_tokens={max(1, stage.optim.micro_tokens // 4)}"]
        found += [] if stage.optim.checkpointing else [f"{at}.optim.checkpointing=true"]
    found += ["compute.processes=1"] if processes > 1 else []
    found += ["compute.precision=bfloat16"] if precision == "float32" else []
    if isinstance(stage, Policy):
        half = stage.rollout.batch_size // stage.rollout.group_size // 2 * stage.rollout.group_size
        found += [f"{at}.rollout.batch_size={half}"] if half else []
        judges = {reward: recipe.stage.get(reward.removeprefix("@")) for reward in stage.rewards}
        many = [judge[1:] for judge, of in judges.items() if isinstance(of, Reward) and of.ensemble > 1]
        found += [f"stage.{judge}.ensemble=1" for judge in many]
        own = isinstance(stage.params, PpoParams) and stage.params.critic != "trunk" and not stage.lora
        found += [f"{at}.params.critic=trunk"] if own else []
    return found + ([f"{at}.lora={{}}"] if isinstance(stage, Trained) and not stage.lora else [])
