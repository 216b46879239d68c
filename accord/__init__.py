"""accord: turn a base language model into an aligned assistant."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

# Read when torch is first imported. Threads that wait spin for milliseconds by default, so beside a busy neighbour the one that
# they wait for has no processor; to sleep at once costs as much where there is none. This is about 40 microseconds, longer
# than most gaps between two operations (docs/log.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from accord.data.batch import Batch, Row, collate
    from accord.data.records import Example, Pair, Prompt, Ranking, Rating, Text
    from accord.engine import Engine
    from accord.objectives import Loss, objective
    from accord.outputs import Outputs, Roles
    from accord.recipe import Recipe
    from accord.recipe_file import load, parse
    from accord.sampler import Ask, Rollout
    from accord.sampler.local import LocalSampler
    from accord.score import Score
    from accord.stages import run

# Names are found on first use, so that `import accord` and the command line answer at once.
_HOMES = {
    "accord.data.batch": ["Batch", "Row", "collate"],
    "accord.data.records": ["Example", "Pair", "Prompt", "Ranking", "Rating", "Text"],
    "accord.engine": ["Engine"],
    "accord.outputs": ["Outputs", "Roles"],
    "accord.objectives": ["Loss", "objective"],
    "accord.recipe": ["Recipe"],
    "accord.recipe_file": ["load", "parse"],
    "accord.sampler": ["Ask", "Rollout"],
    "accord.sampler.local": ["LocalSampler"],
    "accord.score": ["Score"],
    "accord.stages": ["run"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Ask", "Batch", "Engine", "Example", "LocalSampler", "Loss", "Outputs", "Pair", "Prompt", "Ranking", "Rating", "Recipe",
    "Roles", "Rollout", "Row", "Score", "Text", "collate", "load", "objective", "parse", "run",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'accord' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
