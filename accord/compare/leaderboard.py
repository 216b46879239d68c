"""Many models on one scale from comparisons two by two: Bradley-Terry strengths and ranks, with intervals over prompts.

    P(a beats b) = 1 / (1 + exp(s_b - s_a))                                 (Bradley & Terry 1952, doi 10.2307/2334029)

A tie counts as half a win for each, as in Chatbot Arena (Chiang et al. 2024, https://arxiv.org/abs/2403.04132).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accord.compare.logistic import Array, fit
from accord.errors import DataError
from accord.estimate import Estimate

# Each strength has a normal prior around 0 with this precision: nothing beside a few games (it moves seven baseball teams with
# 78 games each by less than 0.001), but strengths stay finite where a model wins or loses all of its own.
RIDGE = 0.001
ELO = 400 / math.log(10)  # points for each unit of strength: 400 are odds of ten to one


@dataclass(frozen=True)
class Game:
    """One comparison. `value` is 1 where `a` won, 0 where `b` did, 0.5 for a tie, or a probability between."""

    prompt: Hashable
    a: str
    b: str
    value: float


@dataclass(frozen=True)
class Standing:
    """A model's place: its strength (mean 0 over the models), the interval of it and of its rank, and its games."""

    model: str
    strength: Estimate
    low: float
    high: float
    rank: int
    best: int
    worst: int

    def elo(self, centre: float = 1000.0) -> tuple[float, float, float]:
        """Strength and interval on the scale of chess, on which the mean over the models is `centre`."""
        return centre + ELO * self.strength.value, centre + ELO * self.low, centre + ELO * self.high


@dataclass(frozen=True)
class Leaderboard:
    """Standings, best first. `notes` say what to know before they are believed; the likelihood has a maximum of its own, so
    that strengths are due to the data and not to the ridge, where `separable` is False."""

    standings: list[Standing]
    separable: bool
    notes: list[str]


def leaderboard(
    games: Sequence[Game], *, draws: int = 400, level: float = 0.95, seed: int = 0, ridge: float = RIDGE
) -> Leaderboard:
    """Strengths with bootstrap intervals: prompts are drawn anew with all the games on them, `draws` times.

    Games without a verdict (NaN) are left out. DataError where none is left or a model plays against itself.
    """
    played = [game for game in games if not math.isnan(game.value)]
    models = sorted({name for game in played for name in (game.a, game.b)})
    _check(played)
    place = {name: i for i, name in enumerate(models)}
    a, b = (np.array([place[name] for name in names]) for names in zip(*[(g.a, g.b) for g in played], strict=True))
    value = np.array([game.value for game in played], float)
    prompts: dict[Hashable, int] = {}
    prompt = np.array([prompts.setdefault(game.prompt, len(prompts)) for game in played])
    wins = _wins(a, b, value, np.ones(len(played)), len(models))
    centre = strengths(wins, ridge=ridge)
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(models)))
    for k in range(draws):
        weight = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)))[prompt].astype(float)
        drawn[k] = strengths(_wins(a, b, value, weight, len(models)), ridge=ridge, start=centre)
    separable = not _connected(wins)
    notes = [SEPARABLE] if separable else []
    standings = _standings(models, centre, drawn, wins, (1 - level) / 2)
    return Leaderboard(standings, separable, notes)


SEPARABLE = (
    "The models fall into groups of which one won every game against the other, or never met it: how far apart the groups are"
    " is not in the data, and comes from the ridge. Let models of both groups meet on more prompts."
)


def strengths(wins: Array, *, ridge: float = RIDGE, start: Array | None = None) -> Array:
    """Bradley-Terry strengths [M] with mean 0 from how often row beat column, [M, M]; ties are half in both places."""
    upper, lower = np.triu_indices(len(wins), 1)
    total = wins[upper, lower] + wins[lower, upper]
    met = total > 0
    upper, lower, total = upper[met], lower[met], total[met]
    features = np.zeros((len(upper), len(wins)))
    features[np.arange(len(upper)), upper] = 1
    features[np.arange(len(upper)), lower] = -1
    found = fit(
        features, wins[upper, lower] / total, counts=total, start=start,
        mean=np.zeros(len(wins)), precision=np.full(len(wins), ridge),
    )  # fmt: skip
    return found.weights - found.weights.mean()


def _wins(a: NDArray[np.int64], b: NDArray[np.int64], value: Array, weight: Array, models: int) -> Array:
    """How often each model (row) beat each other (column), [M, M]."""
    size = models * models
    won = np.bincount(a * models + b, weight * value, size) + np.bincount(b * models + a, weight * (1 - value), size)
    return won.reshape(models, models).astype(float)


def _connected(wins: Array) -> bool:
    """Whether each model can be reached from each other over wins or ties, so that the likelihood has a maximum (Ford 1957)."""
    reach = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(len(wins))))):
        reach = reach @ reach
    return bool(reach.all())


def _standings(models: Sequence[str], centre: Array, drawn: Array, wins: Array, tail: float) -> list[Standing]:
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    ranks = (drawn[:, None, :] > drawn[:, :, None]).sum(-1) + 1  # [draws, M]
    best, worst = np.quantile(ranks, [tail, 1 - tail], axis=0, method="nearest")
    played = (wins + wins.T).sum(1)
    order = [int(i) for i in np.argsort(-centre, kind="stable")]
    return [
        Standing(
            models[i], Estimate(float(centre[i]), float(drawn[:, i].std(ddof=1)), round(float(played[i]))),
            float(low[i]), float(high[i]), rank, int(best[i]), int(worst[i]),
        )
        for rank, i in enumerate(order, 1)
    ]  # fmt: skip


def _check(games: Sequence[Game]) -> None:
    if not games:
        raise DataError("leaderboard", "no game has a verdict", "give comparisons with a value between 0 and 1")
    for game in games:
        if game.a == game.b:
            raise DataError("leaderboard", f"{game.a!r} plays against itself", "compare different models")
        if not 0 <= game.value <= 1:
            raise DataError(
                "leaderboard", f"the value {game.value:g} of {game.a} against {game.b}", "0 to 1, 0.5 a tie"
            )
