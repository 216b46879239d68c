"""Workers as processes of their own, one at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.probe import Result
from benchmarks.works import Job, Side

ROOT = Path(__file__).parents[1]
QUIET = {
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error",
}  # fmt: skip
# What libgomp does unless told otherwise: accord, which workers of peers import too, asks for less.
SPINS = {"GOMP_SPINCOUNT": "300000"}
GET_PPO = (
    "TRL dropped PPO after 1.12.0; to compare: pip download --no-deps trl==1.12.0 && "
    "unzip -d DIR trl-1.12.0-py3-none-any.whl, then --trl-ppo DIR"
)


class Failed(Exception):
    """A worker did not come to its end; the text is the last that it said."""


def missing(side: Side, trl_ppo: str) -> str:
    """Why a side cannot take part, and what helps; empty where it can."""
    if side.needs == "--trl-ppo":
        return "" if trl_ppo and (Path(trl_ppo) / "trl/experimental/ppo").is_dir() else GET_PPO
    if side.needs and importlib.util.find_spec(side.needs) is None:
        return f"{side.needs} is not installed: pip install '{side.needs}>=1.16,<2'"
    return ""


def run(side: Side, job: Job) -> Result:
    """Have a side do a job, from the start of its process; its folder is new, and so is every cache."""
    shutil.rmtree(job.out, ignore_errors=True)
    Path(job.out).mkdir(parents=True)
    caches = {"XDG_CACHE_HOME": f"{job.out}/cache", "HF_HOME": f"{job.out}/cache/huggingface"}
    waits = {} if side.worker.startswith("accord") else SPINS
    path = [job.trl_ppo] if side.needs == "--trl-ppo" else []
    job = replace(job, own_settings=side.own_settings, began=time.monotonic())
    result = Result(**json.loads(worker(side.worker, job.dump(), environment={**caches, **waits}, path=path)))
    result.side = side.name
    return result


def worker(name: str, told: str, *, environment: Mapping[str, str] | None = None, path: list[str] | None = None) -> str:
    """Run `benchmarks.peers.NAME` in a process and return the last line that it prints, a JSON object."""
    # This repository before an installed accord, a peer of a given folder before an installed one.
    whole = {**os.environ, **QUIET, **(environment or {}), "PYTHONPATH": os.pathsep.join([*(path or []), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.peers.{name}", told], env=whole, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{name} ended with {done.returncode}: " + "\n".join(done.stderr.strip().splitlines()[-12:]))
    return done.stdout.strip().splitlines()[-1]
