"""`python -m benchmarks`: run works, alternating accord and its peers; print ratios, write the page and raw results."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar, cast, get_args

import torch
import typer

from benchmarks import growth, material, table
from benchmarks.compare import DISTURBED, Check, checked, compare, counted
from benchmarks.peers.probe import Result
from benchmarks.runs import ROOT, Failed, missing, run, worker
from benchmarks.works import SIZES, WORKS, Job, Precision, Side, Size, Work

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Thing = TypeVar("Thing")
CHECKED = 3  # float32 steps where only bfloat16 is timed


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line."""

    size: Size
    works: list[Work]
    precisions: list[Precision]
    pairs: int
    steps: int | None
    threads: int
    trl_ppo: str
    folder: Path

    def job(self, work: Work, precision: Precision, side: Side, *, steps: int, warmup: int) -> Job:
        """What one process is told."""
        out = self.folder / "runs" / f"{work.name}-{precision}-{side.name.replace(' ', '-').replace(',', '')}"
        return Job(
            work=work.name, size=self.size.name, precision=precision, folder=str(self.folder / self.size.name),
            out=str(out), steps=steps, warmup=warmup, threads=self.threads, trl_ppo=self.trl_ppo,
        )  # fmt: skip

    def steps_of(self, work: Work) -> int:
        """Steps that are measured."""
        return self.steps or work.steps_of(self.size)


@app.command(epilog="\n\n".join(f"{work.name}: {work.says}." for work in WORKS.values()))
def main(
    only: Annotated[str, typer.Option(help=f"Works, by comma: {', '.join(WORKS)}.")] = "",
    size: Annotated[
        str, typer.Option(help=f"Shape of the model: {', '.join(SIZES)} (the last two need a GPU).")
    ] = "15m",
    precision: Annotated[str, typer.Option(help="bfloat16 (or bf16), float32, or both by comma.")] = "bfloat16",
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each side, one after the other in turn.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Measured steps; unset as each work says.")] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each process; 0 leaves the number to the libraries.")
    ] = 0,
    trl_ppo: Annotated[
        str, typer.Option(help="Folder with trl 1.12.0, the last with PPO; without it PPO is skipped.")
    ] = "",
    work: Annotated[
        Path | None, typer.Option(help="Folder for models and data, to use again; unset is temporary.")
    ] = None,
    page: Annotated[Path, typer.Option(help="Page with the tables.")] = ROOT / "docs/performance.md",
    raw: Annotated[Path, typer.Option(help="Raw results, merged with those that are there.")] = ROOT
    / "docs/performance.json",
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave page and raw results as they are.")] = False,
    grow: Annotated[
        bool, typer.Option("--grow", help="Print instead how accord's own cost grows with the work, in one thread.")
    ] = False,
) -> None:
    """Compare accord with TRL, plain PyTorch and transformers: the same weights, rows and settings, one process each, in turn.

    Models and rows are made from fixed seeds. Each work prints how many times as fast accord is (middle, smallest and
    largest of the pairs), its memory and its time to the first step, and checks that both do the same: equal rows, equal
    counts, float32 losses within 1e-3, metrics. A step during which others used the processor is left out; run it on a
    quiet machine.

    Example: python -m benchmarks                                  (15m, bfloat16, everything; about a quarter of an hour)

    Example: python -m benchmarks --only sft,dpo --size 124m --pairs 3 --precision bf16,float32

    Example: python -m benchmarks --only ppo --trl-ppo DIR --no-page

    Example: python -m benchmarks --grow --size tiny
    """
    with folder_of(work) as folder:
        if grow:
            os.environ["ACCORD_CACHE"] = str(folder / "cache")  # of this measurement alone
            print(growth.HEAD)
            for found in growth.measure(one(size, SIZES, "--size"), precision_of(precision), folder, repeats=pairs):
                print(found.line(), flush=True)
            return
        plan = Plan(
            one(size, SIZES, "--size"), [one(name, WORKS, "--only") for name in split(only) or WORKS],
            [precision_of(name) for name in split(precision)], pairs, steps, threads,
            str(Path(trl_ppo).resolve()) if trl_ppo else "", folder.resolve(),
        )  # fmt: skip
        if plan.size.cuda and not torch.cuda.is_available():
            raise typer.BadParameter(
                f"{size} needs a GPU, and there is none here; on a CPU: tiny, 15m, 124m", param_hint="--size"
            )
        for record in carry_out(plan):  # written work by work: what is done stays, whatever comes after it
            if not no_page:
                key = f"{record['size']} {record['precision']} {record['work']}"
                table.keep(raw, {**table.load(raw), key: record})
                table.fill(page, table.load(raw))
    if not no_page:
        print(f"\nwritten: {page}, {raw}")


def split(names: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def one(name: str, known: dict[str, Thing], option: str) -> Thing:
    """The thing of that name; a usage error where there is none."""
    if name not in known:
        raise typer.BadParameter(f"unknown: {name!r}; known: {', '.join(known)}", param_hint=option)
    return known[name]


def precision_of(name: str) -> Precision:
    """A precision by its name or short name."""
    found = {"bf16": "bfloat16", "fp32": "float32"}.get(name, name)
    if found not in get_args(Precision):
        raise typer.BadParameter(f"unknown: {name!r}; known: bfloat16, float32", param_hint="--precision")
    return cast(Precision, found)


@contextmanager
def folder_of(given: Path | None) -> Iterator[Path]:
    """The folder for models and data."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as made:
        yield Path(made)


# ----------------------------------------------------------------------------------------------------------- the works


def carry_out(plan: Plan) -> Iterator[table.Record]:
    """All works in all precisions, told line by line."""
    where = table.machine(bool(plan.trl_ppo))
    print(where)
    steps = {work.name: work.warmup + plan.steps_of(work) for work in plan.works}
    material.prepare(plan.size, plan.works, plan.folder / plan.size.name, steps=steps)
    for precision in plan.precisions:
        asked = {"size": plan.size.name, "precision": precision, "threads": plan.threads}
        limit = json.loads(worker("rate", json.dumps(asked)))
        rate, others = limit["rate"], limit["foreign"] or 0.0
        print(f"{plan.size.name}, {precision}: matrix products {rate / 1e9:,.0f} billion operations per second")
        print("!!! others are at work on this machine: figures will not hold\n" if others > DISTURBED else "")
        for work in plan.works:
            compared, runs, skipped = one_work(plan, work, precision, rate)
            yield {
                "work": work.name, "size": plan.size.name, "precision": precision, "machine": where,
                "date": table.today(), "rate": rate, "compared": compared, "skipped": skipped, "runs": runs,
            }  # fmt: skip


Told = tuple[list[dict[str, object]], dict[str, list[dict[str, object]]], list[str]]


def one_work(plan: Plan, work: Work, precision: Precision, rate: float) -> Told:
    """Every side in turn, as often as there are pairs; then each of ours against each peer."""
    print(f"{work.name:<14} {work.says}", flush=True)
    skipped = [f"{side.name} left out: {why}" for side in work.peers if (why := missing(side, plan.trl_ppo))]
    for reason in skipped:
        print(f"{'':<14} {reason}")
    sides = [side for side in (*work.ours, *work.peers) if not missing(side, plan.trl_ppo)]
    runs: dict[str, list[Result]] = {side.name: [] for side in sides}
    for _ in range(plan.pairs):
        for side in sides:
            job = plan.job(work, precision, side, steps=plan.steps_of(work), warmup=work.warmup)
            if (found := attempt(side, job, skipped)) is None:
                sides = [other for other in sides if other is not side]
                del runs[side.name]
            else:
                runs[side.name].append(found)
    compared = []
    exact = agreement(plan, work, precision, sides, runs, skipped)
    for ours in [side for side in work.ours if side in sides]:
        for peer in [side for side in work.peers if side in sides]:
            checks = [] if ours.own_settings else exact[peer.name]
            found = compare(work, plan.size, runs[ours.name], runs[peer.name], rate=rate, checks=checks)
            print("\n".join(table.lines(work.name, found)), flush=True)
            compared.append(asdict(found))
    return compared, {name: [asdict(result) for result in results] for name, results in runs.items()}, skipped


def attempt(side: Side, job: Job, skipped: list[str]) -> Result | None:
    """One run with a line about it; None, and a reason more in `skipped`, where it failed."""
    try:
        found = run(side, job)
    except Failed as error:
        print(f"{'':<14} !!! {side.name} FAILED: {error}", flush=True)
        skipped.append(f"{side.name} failed: {str(error).splitlines()[-1]}")
        return None
    measured = range(job.warmup, job.total)
    tokens = counted(job.of, found)
    rate = sum(tokens[i] for i in measured) / sum(found.seconds[i] for i in measured)
    others = [value for i in measured if (value := found.foreign[i]) is not None]
    speed = f"{rate:>8,.0f} tokens/s" if job.warmup else f"{job.total} steps in {job.precision}"
    print(
        f"{'':<14} {side.name:<22} {speed:<18}  {found.peak_mb:>6,.0f} MB  first step {found.seconds[0]:>5.1f} s"
        + (f"  reference {found.once:.1f} s" if found.once else "")
        + (f"  others {statistics.mean(others):.2f} cores" if others else ""),
        flush=True,
    )
    return found


def agreement(
    plan: Plan, work: Work, precision: Precision, sides: Sequence[Side], runs: dict[str, list[Result]],
    skipped: list[str],
) -> dict[str, list[Check]]:  # fmt: skip
    """What is checked of accord against each peer: in the runs themselves, and of losses in float32 where those were not."""
    ours = work.ours[0]
    peers = [side for side in work.peers if side in sides] if ours in sides else []
    found = {peer.name: checked(work, runs[ours.name][-1], runs[peer.name][-1], precision) for peer in peers}
    if precision == "float32" or work.method not in {"sft", "reward", "dpo"}:
        return found
    exact = {
        side.name: attempt(side, plan.job(work, "float32", side, steps=CHECKED, warmup=0), skipped)
        for side in [ours, *peers]
    }
    for peer in peers:
        a, b = exact[ours.name], exact[peer.name]
        if a and b:
            found[peer.name] += [check for check in checked(work, a, b, "float32") if check.name == "losses"]
    return found


if __name__ == "__main__":
    app()
