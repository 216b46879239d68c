"""accord: a recipe file through `accord run`, its numbers from metrics.jsonl."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import tomli_w

from accord import cli
from accord.data.batch import Batch
from accord.engine import Engine, Learner
from accord.outputs import Outputs
from accord.run import StageFolder, read_rows
from benchmarks.peers import letters
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.works import BETA, GROUP, KL, LR, SEED, Job


class Enough(Exception):
    """All steps that are measured have been done; what a stage does afterwards is not."""


def recipe(job: Job) -> dict[str, object]:
    """The recipe of a job: what both sides are given is said, all else is accord's default."""
    compute: dict[str, object] = {"device": job.device, "precision": job.precision}
    return {
        "name": "bench",
        "seed": SEED,
        "compute": compute | ({"threads": job.threads} if job.threads else {}),
        "stage": {"bench": stage(job)},
    }


def stage(job: Job) -> dict[str, object]:
    """The one stage."""
    work = job.of
    optim: dict[str, object] = {
        "lr": LR[work.method], "schedule": "constant", "warmup": 0, "batch_size": work.batch, "steps": job.total,
        "eps": 1e-8, "clip": 1.0,
    }  # fmt: skip
    base: dict[str, object] = {"data": str(job.rows), "optim": optim}
    if work.method == "sft":
        return base | {"kind": "sft", "model": str(job.model("policy"))}
    if work.method == "reward":
        return base | {"kind": "reward", "model": str(job.model("reward"))}
    if work.method == "dpo":
        return base | {"kind": "preference", "model": str(job.model("policy")), "params": {"beta": BETA}}
    return base | policy(job, optim)


def policy(job: Job, optim: dict[str, object]) -> dict[str, object]:
    """The tables of a policy stage."""
    work = job.of
    judge = str(job.model("reward")) if work.judge == "model" else f"{letters.__file__}:of_rollout"
    rollout = {"batch_size": work.batch, "max_new_tokens": work.answer[1], "temperature": 1.0}
    found = {"kind": "policy", "objective": work.method, "model": str(job.model("actor")), "rewards": {judge: 1.0}}
    if work.method != "ppo":
        params: dict[str, object] = {"kl": KL, "missing_eos": 0.0}
        return {**found, "params": params, "rollout": {**rollout, "group_size": GROUP}}
    if job.own_settings:
        own = {key: optim[key] for key in ("steps", "lr", "batch_size")}
        return {**found, "rollout": rollout, "optim": own}
    return {
        **found,
        "rollout": rollout,
        "params": {"kl": KL, "missing_eos": 0.0, "epochs": 4, "critic": judge},
        "optim": {**optim, "batch_size": work.batch // 2},
    }


@contextmanager
def watched(probe: Probe) -> Iterator[None]:
    """Look on while stages log steps, update on batches and compute a reference; what they do stays as it is."""
    update, outputs, log = Engine.update, Engine.outputs, StageFolder.log

    def seen_update(self: Engine, learner: Learner, batch: Batch, *rest: object, **named: object) -> dict[str, float]:
        whole = probe.job.of.method == "reward"  # whose loss reads every token
        probe.saw(batch.tokens, batch.attend, None if whole else batch.train)
        return cast("Callable[..., dict[str, float]]", update)(self, learner, batch, *rest, **named)

    def seen_outputs(self: Engine, *rest: object, **named: object) -> Outputs:
        began, worked = time.monotonic(), time.process_time()
        found = cast("Callable[..., Outputs]", outputs)(self, *rest, **named)
        if probe.job.of.method == "dpo" and not probe.done:
            probe.result.once += time.monotonic() - began
            probe.result.once_own += time.process_time() - worked
        return found

    def seen_log(self: StageFolder, step: int, numbers: Mapping[str, float | int]) -> None:
        log(self, step, numbers)
        probe.mark()
        if probe.done == probe.job.total:
            raise Enough

    Engine.update, Engine.outputs, StageFolder.log = seen_update, seen_outputs, seen_log
    try:
        yield
    finally:
        Engine.update, Engine.outputs, StageFolder.log = update, outputs, log


def run(job: Job) -> Result:
    """Run the recipe until enough steps are done."""
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe(job)), encoding="utf-8")
    probe = Probe(job)
    try:
        with watched(probe):
            cli.run(path, out=out / "run")
    except Enough:
        pass
    rows = [row for log in sorted((out / "run").rglob("metrics.jsonl")) for row in read_rows(log)]
    losses = [float(str(row["loss"])) for row in rows]
    return probe.report(losses=losses, metrics=[name for row in rows for name in row])


if __name__ == "__main__":
    answer(run(told()))
