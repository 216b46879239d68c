"""Every knob of accord, as one tree of pydantic models: what a recipe may say, its defaults, and what each key means.

Reading a recipe file is recipe_file.py. Nothing heavier than pydantic is imported, so a mistake is answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from accord.recipe import policy_params
from accord.recipe.base import Name, Section, Seed, StageName, Table, one_of, unknown
from accord.recipe.evaluate import Decoding, Evaluate, Sampling, Server
from accord.recipe.likelihood import Pretrain, Sft, Shape
from accord.recipe.policy import Mix, Policy, PolicyOptim, Rewards, RewardTerm, RolloutParams
from accord.recipe.policy_params import (
    Estimator,
    GrpoParams,
    Length,
    Level,
    OwnParams,
    PolicyParams,
    PpoParams,
    ReinforceParams,
    RlooParams,
)
from accord.recipe.preference import PREFERENCE_PARAMS, Preference, PreferenceOptim
from accord.recipe.reward import REWARD_PARAMS, Reward
from accord.recipe.select import Select
from accord.recipe.training import Compute, Fitted, Held, Lora, Optim, Source, Sources, Stage, Trained

__all__ = [
    "KINDS",
    "PARAMS",
    "AnyStage",
    "Compute",
    "Decoding",
    "Estimator",
    "Evaluate",
    "Fitted",
    "GrpoParams",
    "Held",
    "Length",
    "Level",
    "Lora",
    "Mix",
    "Optim",
    "OwnParams",
    "Policy",
    "PolicyOptim",
    "PolicyParams",
    "PpoParams",
    "Preference",
    "PreferenceOptim",
    "Pretrain",
    "Recipe",
    "ReinforceParams",
    "Reward",
    "RewardTerm",
    "Rewards",
    "RlooParams",
    "RolloutParams",
    "Sampling",
    "Section",
    "Select",
    "Server",
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

AnyStage: TypeAlias = Pretrain | Sft | Reward | Preference | Policy | Select | Evaluate
KINDS: dict[str, type[Stage]] = {
    "pretrain": Pretrain,
    "sft": Sft,
    "reward": Reward,
    "preference": Preference,
    "policy": Policy,
    "select": Select,
    "evaluate": Evaluate,
}

PARAMS: dict[str, Mapping[str, type[Section]]] = {  # by kind and objective, the default first
    "reward": REWARD_PARAMS,
    "preference": PREFERENCE_PARAMS,
    "policy": policy_params.PARAMS,
}


class Recipe(Section):
    """What to do, stage after stage in the order of the file."""

    name: Name
    """Names the run folder, `runs/<name>`."""
    seed: Seed = 0
    compute: Compute = Compute()
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Where metrics go beside metrics.jsonl. Weights & Biases sends them out, but with WANDB_MODE=offline."""
    stage: dict[StageName, Annotated[AnyStage, Field(discriminator="kind")]] = Field(min_length=1)
    """The stages by name; each has a folder of that name in the run folder."""
