"""Best-of-n from one pool, and what an evaluation leaves of kept checkpoints."""

from __future__ import annotations

from itertools import combinations
from typing import cast

import numpy as np
import pytest

from accord.errors import RecipeError
from accord.recipe_file import parse
from accord.stages.curves import best_weights


@pytest.mark.parametrize(("pool", "n"), [(6, 1), (6, 2), (6, 4), (6, 6)])
def test_best_of_n_is_the_mean_over_every_draw(pool: int, n: int) -> None:
    value = np.random.default_rng(0).normal(size=pool)  # of answers in order of their reward, worst first
    expected = np.mean([value[max(drawn)] for drawn in combinations(range(pool), n)])
    assert value @ best_weights(pool, n) == pytest.approx(expected)
    assert best_weights(pool, n).sum() == pytest.approx(1)


def test_curves_need_checkpoints() -> None:
    recipe = {
        "name": "x",
        "stage": {
            "ppo": {"kind": "policy", "model": "m", "data": "d/p", "rewards": {"r/m": 1}},
            "evaluate": {"kind": "evaluate", "models": {"m": "m"}, "data": "d/p", "curves": {"ppo": "@ppo"}},
        },
    }
    with pytest.raises(RecipeError) as caught:
        parse(cast("dict[str, object]", recipe))  # pyright: ignore
    assert str(caught.value) == (
        "stage.evaluate.curves.ppo: '@ppo' keeps no checkpoints; give a policy stage with checkpoints = true"
    )
