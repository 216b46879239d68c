"""Many models on one scale from comparisons two by two: Bradley-Terry strengths and ranks, with intervals over prompts.

    P(a beats b) = 1 / (1 + exp(s_b - s_a))                                 (Bradley & Terry 1952, doi 10.2307/2334029)

A tie counts as half a win for each, as in Chatbot Arena (Chiang et al. 2024, https://arxiv.org/abs/2403.04132).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accord.compare.logistic import Array, fit, sigmoid
from accord.errors import DataError
from accord.estimate import Ranged

# Each strength has a normal prior around 0 with this precision: nothing beside a few games (it moves seven baseball teams with
# 78 games each by less than 0.001), but strengths stay finite where a model wins or loses all of its own.
RIDGE = 0.001
TAILS = (0.025, 0.975)
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
    """A model's place: strength and rank with their intervals, `n` of both its games. Strengths are log-odds; 0 is the anchor
    or else the mean over the models."""

    model: str
    strength: Ranged
    rank: Ranged

    def elo(self, centre: float = 1000.0) -> tuple[float, float, float]:
        """Strength and interval on the scale of chess, on which strength 0 is `centre`."""
        strength = self.strength
        return centre + ELO * strength.value, centre + ELO * strength.low, centre + ELO * strength.high

    @property
    def chance(self) -> Ranged:
        """How often it beats a model of strength 0, by the strengths; the standard error is by the delta method."""
        value, low, high = sigmoid(np.array([self.strength.value, self.strength.low, self.strength.high])).tolist()
        return Ranged(value, value * (1 - value) * self.strength.stderr, self.strength.n, low, high)


@dataclass(frozen=True)
class Leaderboard:
    """Standings, best first. `notes` say what to know before they are believed; the likelihood has a maximum of its own, so
    that strengths are due to the data and not to the ridge, where `separable` is False."""

    standings: list[Standing]
    separable: bool
    notes: list[str]


def leaderboard(
    games: Sequence[Game], *, anchor: str | None = None, draws: int = 400, seed: int = 0, ridge: float = RIDGE
) -> Leaderboard:
    """Strengths with bootstrap intervals: prompts are drawn anew with all the games on them, `draws` times.

    Strengths count from `anchor`, or else from their mean. Games without a verdict (NaN) are left out. DataError where none is
    left, a model plays against itself or the anchor does not play.
    """
    played = [game for game in games if not math.isnan(game.value)]
    models = sorted({name for game in played for name in (game.a, game.b)})
    _check(played)
    if anchor is not None and anchor not in models:
        raise DataError("leaderboard", f"no game of {anchor!r} has a verdict", f"models that play: {', '.join(models)}")
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
    if anchor is not None:
        centre, drawn = centre - centre[place[anchor]], drawn - drawn[:, [place[anchor]]]
    standings = _standings(models, centre, drawn, wins)
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


def _standings(models: Sequence[str], centre: Array, drawn: Array, wins: Array) -> list[Standing]:
    ranks = (drawn[:, None, :] > drawn[:, :, None]).sum(-1) + 1  # [draws, M]
    played = (wins + wins.T).sum(1).round().astype(int)
    order = [int(i) for i in np.argsort(-centre, kind="stable")]
    return [
        Standing(
            models[i], _ranged(centre[i], drawn[:, i], played[i]), _ranged(rank, ranks[:, i], played[i], "nearest")
        )
        for rank, i in enumerate(order, 1)
    ]


def _ranged(
    value: float, drawn: Array | NDArray[np.int64], n: int, method: Literal["linear", "nearest"] = "linear"
) -> Ranged:
    """A value with the standard deviation and the middle 95 % of its bootstrap draws."""
    low, high = np.quantile(drawn, TAILS, method=method).tolist()
    return Ranged(float(value), float(drawn.std(ddof=1)), int(n), low, high)


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
