"""What `accord plan` says of a stage, beside what a run of it takes: `python -m benchmarks.planned [CASE ...]`.

Plan and run are processes of their own with one thread. Seconds are those that the processor worked, so that neighbours
count little; the ratios stand in docs/performance.md, "How good a plan is".
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import tomli_w

from benchmarks import material
from benchmarks.peers import accord_train, letters
from benchmarks.works import SIZES, WORKS, Job, Precision

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "recipes/quickstart.toml"


@dataclass(frozen=True)
class Case:
    """One stage: a work of the benchmarks, or where there is none a stage of the quickstart, under some settings."""

    work: str = ""
    stage: str = "bench"
    settings: tuple[str, ...] = ()


# The quickstart's stages on the model that it begins with, so that none before them has to run. Answers of 16 tokens are
# seldom shorter, as the plan takes them to be.
REWARDS = f'{{ "{letters.__file__}:of_rollout" = 1.0 }}'
LORA, CHECKPOINTING = "stage.bench.lora={}", "stage.bench.optim.checkpointing=true"
CASES = {
    **{work: Case(work) for work in ("sft", "reward", "dpo", "dpo-long", "grpo", "ppo")},
    "reward-of-3": Case("reward", settings=("stage.bench.ensemble=3",)),
    "ppo-in-part": Case("ppo", settings=("stage.bench.params.critic_layers=3",)),
    "ppo-trunk": Case("ppo", settings=("stage.bench.params.critic=trunk",)),
    **{f"{work}-lora": Case(work, settings=(LORA,)) for work in ("sft", "reward", "dpo", "ppo")},
    **{f"{work}-checkpointing": Case(work, settings=(CHECKPOINTING,)) for work in ("sft", "dpo", "ppo")},
    "evaluate": Case("ppo", stage="evaluate"),
    "quickstart-ppo": Case(
        stage="ppo",
        settings=(
            "compute.processes=1", "stage.ppo.model=accord:tiny", f"stage.ppo.rewards={REWARDS}",
            "stage.ppo.eval_rewards={}", "stage.ppo.optim.steps=4", "stage.ppo.eval=4",
            "stage.ppo.rollout.max_new_tokens=16",
        ),
    ),
    "quickstart-evaluate": Case(
        stage="evaluate",
        settings=(
            "compute.processes=1", f"stage.evaluate.rewards={REWARDS}", "stage.evaluate.sampling.max_new_tokens=16",
            'stage.evaluate.models={ sft = "accord:tiny", ppo = "accord:tiny" }',
        ),
    ),
}  # fmt: skip
# A run in this process: the peak in KiB, and seconds of the processor in all and in sampling.
RUN = """
import json, re, sys, time
from pathlib import Path
from accord.engine import Engine
from accord.recipe_file import load
from accord.stages import run
path, out, stage, *settings = sys.argv[1:]
began, sampling, generate = time.process_time(), [], Engine.generate
def timed(*given, **named):
    start = time.process_time()
    found = generate(*given, **named)
    sampling.append(time.process_time() - start)
    return found
Engine.generate = timed
run(load(Path(path), settings), Path(out), only=[stage])
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps({"peak": int(peak) * 1024, "seconds": time.process_time() - began, "rollout": sum(sampling)}))
"""


@dataclass(frozen=True)
class Needs:
    """What one process takes for a stage, planned or measured."""

    peak: float  # bytes
    seconds: float  # of the processor
    rollout: float  # of them in sampling


def main() -> None:
    """Measure cases and print a table of them, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; without any, all")
    parser.add_argument("--size", default="15m", choices=SIZES, help="of the models, but in the quickstart")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--folder", type=Path, default=Path("runs/planned"))
    asked = parser.parse_args()
    measures = [
        f"{name}, {of}" for name in ("peak MiB", "all s", "rollouts s") for of in ("planned", "measured", "ratio")
    ]
    print(line(["case", *measures]), line(["---"] * (1 + len(measures))), sep="\n", flush=True)
    names: list[str] = asked.cases or list(CASES)
    for name in names:
        print(line(row(name, CASES[name], asked.size, asked.precision, asked.folder.absolute())), flush=True)


def line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def row(name: str, case: Case, size: str, precision: Precision, folder: Path) -> list[str]:
    """Plan a case, run it, and put both side by side."""
    path = made(case, size, precision, folder) if case.work else QUICKSTART
    settings = [str(path), *case.settings, "compute.threads=1", f"compute.precision={precision}"]
    out = folder / f"{name}-{precision}"
    shutil.rmtree(out, ignore_errors=True)
    pairs = zip(astuple(planned(case.stage, settings)), astuple(ran(case.stage, out, settings)), strict=True)
    cells = [(a / unit, b / unit) for (a, b), unit in zip(pairs, (2**20, 1, 1), strict=True)]
    return [name, *(cell for a, b in cells for cell in (f"{a:,.1f}", f"{b:,.1f}", f"{a / b:.2f}" if b else ""))]


def made(case: Case, size: str, precision: Precision, folder: Path) -> Path:
    """The recipe of a work, with its models and rows."""
    work, home = WORKS[case.work], folder / size
    path, steps = folder / f"{case.work}-{case.stage}.toml", work.steps_of(SIZES[size])
    material.prepare(SIZES[size], [work], home, steps={work.name: steps + work.warmup})
    job = Job(work.name, size, precision, str(home), str(folder), steps, work.warmup, threads=1)
    recipe = accord_train.recipe(job)
    if case.stage == "evaluate":
        actor = str(job.model("actor"))
        recipe["stage"] = {
            "evaluate": {
                "kind": "evaluate", "models": {"one": actor, "two": actor}, "data": str(job.rows),
                "rewards": {str(job.model("reward")): 1.0}, "sampling": {"max_new_tokens": work.answer[1]},
            }
        }  # fmt: skip
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    return path


def planned(stage: str, settings: Sequence[str]) -> Needs:
    """What a plan says."""
    said = json.loads(output([sys.executable, "-m", "accord", "plan", *settings, "--json"]))
    of = next(one for one in said["stages"] if one["name"] == stage)
    return Needs(of["peak"], of["seconds"], of["seconds_of"].get("rollout", 0.0))


def ran(stage: str, out: Path, settings: Sequence[str]) -> Needs:
    """What a run takes."""
    path, *others = settings
    return Needs(**json.loads(output([sys.executable, "-c", RUN, path, str(out), stage, *others]).splitlines()[-1]))


def output(command: Sequence[str]) -> str:
    """What a process prints; it ends this one where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
