"""Every knob of accord, as one tree of pydantic models: what a recipe may say, its defaults, and what each key means.

Reading a recipe file is recipe_file.py. Nothing heavier than pydantic is imported, so a mistake is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from accord.recipe.base import Section, Table, one_of, unknown
from accord.recipe.evaluate import Evaluate, Sampling
from accord.recipe.likelihood import Pretrain, Sft, Shape
from accord.recipe.policy import Mix, Policy, PolicyOptim, PpoParams, Rewards, RewardTerm, RolloutParams
from accord.recipe.preference import DpoParams, Preference, PreferenceOptim
from accord.recipe.reward import BradleyTerryParams, Reward
from accord.recipe.training import Compute, Fitted, Held, Lora, Optim, Source, Sources, Stage, Trained

__all__ = [
    "KINDS",
    "AnyStage",
    "BradleyTerryParams",
    "Compute",
    "DpoParams",
    "Evaluate",
    "Fitted",
    "Held",
    "Lora",
    "Mix",
    "Optim",
    "Policy",
    "PolicyOptim",
    "PpoParams",
    "Preference",
    "PreferenceOptim",
    "Pretrain",
    "Recipe",
    "Reward",
    "RewardTerm",
    "Rewards",
    "RolloutParams",
    "Sampling",
    "Section",
    "Sft",
    "Shape",
    "Source",
    "Sources",
    "Stage",
    "Table",
    "Trained",
    "one_of",
    "unknown",
]

AnyStage: TypeAlias = Pretrain | Sft | Reward | Preference | Policy | Evaluate
KINDS: dict[str, type[Stage]] = {
    "pretrain": Pretrain,
    "sft": Sft,
    "reward": Reward,
    "preference": Preference,
    "policy": Policy,
    "evaluate": Evaluate,
}


class Recipe(Section):
    """What to do, stage after stage in the order of the file."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Names the run folder, `runs/<name>`."""
    seed: int = 0
    compute: Compute = Compute()
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Where metrics go beside metrics.jsonl. Weights & Biases sends them out, but with WANDB_MODE=offline."""
    stage: dict[str, Annotated[AnyStage, Field(discriminator="kind")]] = Field(min_length=1)
