"""`accord run --sweep`: one recipe with several values of a setting, the stages that they do not change done once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from accord.console import say
from accord.errors import RecipeError
from accord.recipe import Recipe
from accord.recipe_file import load, references

VALUES = re.compile(r"""(?:[^,\[\]{}"']|\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*')+""")
UNSAFE = re.compile(r"[^\w.=+-]+")
COMMON = "common"


@dataclass(frozen=True)
class Variant:
    """A recipe under one combination of values and one seed."""

    setting: str
    seed: int
    recipe: Recipe

    @property
    def label(self) -> str:
        """The name of its folder."""
        return f"{UNSAFE.sub('_', self.setting)}-seed-{self.seed}"


def expand(
    path: Path, overrides: Sequence[str], sweeps: Sequence[str], seeds: int
) -> tuple[Recipe, list[str], list[Variant]]:
    """The recipe itself, the stages that a sweep changes, and every variant of it.

    The changed stages are those that are named and all that read them. Only they get seeds of their own, so that the
    others are common to all variants.
    """
    recipe = load(path, list(overrides))
    axes: list[list[str]] = []
    changed: set[str] = set()
    for sweep in sweeps:
        key, _, text = sweep.partition("=")
        parts = key.split(".")
        values = [value.strip() for value in VALUES.findall(text)]
        if len(parts) < 3 or parts[0] != "stage" or parts[1] not in recipe.stage or not values:
            raise RecipeError(f"--sweep {sweep}", "names no setting of a stage with its values",
                              "as in stage.ppo.params.kl=0.01,0.05", f"stages: {', '.join(recipe.stage)}")  # fmt: skip
        axes.append([f"{key}={value}" for value in values])
        changed.add(parts[1])
    for name, stage in recipe.stage.items():
        if any(other in changed for _, other in references(stage)):
            changed.add(name)
    variants: list[Variant] = []
    for chosen in product(*axes):
        setting = ", ".join(
            choice.partition("=")[0].rpartition(".")[2] + "=" + choice.partition("=")[2] for choice in chosen
        )
        for seed in range(seeds):
            own = [
                f"stage.{name}.seed={(recipe.seed if stage.seed is None else stage.seed) + seed}"
                for name, stage in recipe.stage.items()
                if name in changed and stage.kind != "evaluate"
            ]
            variants.append(Variant(setting, seed, load(path, [*overrides, *chosen, *(own if seeds > 1 else [])])))
    return recipe, [name for name in recipe.stage if name in changed], variants


def run_sweep(path: Path, overrides: Sequence[str], sweeps: Sequence[str], seeds: int, out: Path | None) -> None:
    """Run what is common once, every variant on top of it, and draw them side by side."""
    recipe, changed, variants = expand(path, overrides, sweeps, seeds)  # mistakes in any of them, before any work
    from accord.report import write_report
    from accord.report.model_cards import write_cards
    from accord.report.sweep import Setting, write_sweep
    from accord.stages import run

    folder = out or Path("runs") / f"{recipe.name}-sweep"
    common = [name for name in recipe.stage if name not in changed]
    if common:
        say(f"\ncommon     {', '.join(common)}")
        run(recipe, folder / COMMON, only=common)
        write_cards(folder / COMMON)
    for number, variant in enumerate(variants, 1):
        say(f"\nvariant {number} of {len(variants)}: {variant.setting}, seed {variant.seed}")
        place = folder / variant.label
        place.mkdir(parents=True, exist_ok=True)
        for name in common:
            if not (place / name).exists():
                (place / name).symlink_to(os.path.join("..", COMMON, name), target_is_directory=True)
        run(variant.recipe, place, inspected=number > 1)
        write_cards(place)
        write_report(place)
    settings = [
        Setting(setting, tuple(folder / variant.label for variant in variants if variant.setting == setting))
        for setting in dict.fromkeys(variant.setting for variant in variants)
    ]
    print(f"\nreport: {write_sweep(folder, recipe.name, settings, changed)}")
