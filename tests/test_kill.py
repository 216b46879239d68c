"""The quickstart, shrunk, killed at random moments: it ends with the bytes of a run that was left alone."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from test_run import CONTEXT, content, ended, start

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.toml"
KILLS = 10
FEW = {
    "sft": 'data={ source = "accord:demo/chats", limit = 48 } save=2 optim.batch_size=4',
    "reward": 'data={ source = "accord:demo/rankings", limit = 16 } '
    'eval_data={ source = "accord:demo/rankings-held", limit = 6 } save=2 optim.batch_size=2',
    "judge": 'data={ source = "accord:demo/rankings", limit = 12 } '
    'eval_data={ source = "accord:demo/rankings-held", limit = 4 } save=2 optim.batch_size=2',
    "ppo": 'data={ source = "accord:demo/prompts", limit = 32 } eval_data={ source = "accord:demo/choose", limit = 6 } '
    "eval=3 save=2 rollout.batch_size=8 rollout.max_new_tokens=16 optim.batch_size=4 optim.steps=8 mix.batch_size=4",
    "dpo": 'data={ source = "accord:demo/rankings", limit = 48 } eval_data=0.2 save=2 optim.batch_size=4 eval=5',
    "evaluate": 'data={ source = "accord:demo/choose", limit = 6 } sampling.max_new_tokens=16',
}
SHRUNK = [
    "compute.processes=1",
    "compute.threads=1",
    *(
        f"stage.{stage}.{setting}"
        for stage, settings in FEW.items()
        for setting in re.findall(r"\S+?=(?:\{.*?\}|\S+)", settings)
    ),
]


def left(out: Path) -> dict[str, object]:
    """What the stages of a run have left."""
    return content(out, [path for path in out.rglob("*") if path.parent != out])


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path):
    CONTEXT.set_forkserver_preload(["accord.cli.commands", "accord.stages.policy", "accord.stages.reward"])
    began = time.monotonic()
    assert ended(start(RECIPE, tmp_path / "whole", *SHRUNK)) == 0, (tmp_path / "whole.txt").read_text()
    seconds = time.monotonic() - began
    dice, kills, out = random.Random(0), 0, tmp_path / "run"
    while kills < KILLS:
        process = start(RECIPE, out, *SHRUNK)
        process.join(dice.uniform(0.1, seconds / 4))
        if process.exitcode is not None:  # done already: the rest of the kills go into a second run
            assert process.exitcode == 0
            assert left(out) == left(tmp_path / "whole")
            out = tmp_path / f"run-{kills}"
            continue
        process.kill()
        process.join()
        kills += 1
    assert ended(start(RECIPE, out, *SHRUNK)) == 0, out.with_suffix(".txt").read_text()
    assert left(out) == left(tmp_path / "whole")
    assert not [path for path in out.rglob(".*") if path.name not in {".gitignore", ".lock"}]
