"""Comparisons against published figures and plain numpy: AlpacaEval, Bradley-Terry, pairs with ties."""

from __future__ import annotations

import csv
import gzip
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs_data

from accord.compare.alpaca import Judgement, from_annotations, length_controlled
from accord.compare.leaderboard import Game, leaderboard, strengths
from accord.compare.logistic import fit, sigmoid
from accord.compare.pairs import against, differences, match
from accord.errors import DataError
from accord.estimate import Estimate
from accord.sampler import Rollout
from accord.score import Score
from accord.score.judge import ByScore
from accord.suites import Answered

ALPACA = DATA / "alpaca_eval"
FILES = sorted((ALPACA / "annotations").glob("*.jsonl.gz"))
NAMES = [path.name.removesuffix(".jsonl.gz") for path in FILES]


def lines(path: Path) -> list[dict[str, object]]:
    """The rows of a packed file."""
    with gzip.open(path, "rt", encoding="utf-8") as text:
        return [json.loads(line) for line in text]


@cache
def published() -> dict[str, dict[str, float]]:
    """AlpacaEval's leaderboard, as shares."""
    with (ALPACA / "leaderboard_weighted_gpt4_turbo.csv").open() as text:
        rows = {row.pop(""): row for row in csv.DictReader(text)}
    kept = ("win_rate", "standard_error", "length_controlled_winrate")
    return {name: {key: float(row[key]) / 100 for key in kept if row[key]} for name, row in rows.items()}


@cache
def found() -> dict[str, dict[str, Estimate]]:
    """What is made of each stored file alone, without those of models that are not on the leaderboard."""
    baseline = lines(ALPACA / "baseline_gpt4_1106_preview.jsonl.gz")
    rows = {name: lines(path) for name, path in zip(NAMES, FILES, strict=True) if name in published()}
    return {name: from_annotations(of, baseline) for name, of in rows.items()}


# ------------------------------------------------------------------------------------------------------------- AlpacaEval


@needs_data
def test_published_win_rates_to_four_digits() -> None:
    for name, rates in found().items():
        expected = published()[name]
        assert rates["win_rate"].value == pytest.approx(expected["win_rate"], abs=5e-7), name
        assert rates["win_rate"].stderr == pytest.approx(expected["standard_error"], abs=5e-7), name
        assert rates["win"].value + rates["tie"].value + rates["lose"].value == pytest.approx(1)


@needs_data
def test_length_controlled_rates_rank_the_models_as_published() -> None:
    names = [name for name in found() if "length_controlled_winrate" in published()[name]]
    ours = np.array([found()[name]["length_controlled"].value for name in names])
    theirs = np.array([published()[name]["length_controlled_winrate"] for name in names])
    ranks = [values.argsort().argsort() for values in (ours, theirs)]
    assert np.corrcoef(*ranks)[0, 1] >= 0.95
    assert np.abs(ours - theirs).mean() < 0.012
    stderr = np.array([found()[name]["length_controlled"].stderr for name in names])
    assert (np.abs(ours - theirs) < 2 * stderr).all()


@needs_data
def test_the_answer_that_fools_the_judge_is_named() -> None:
    if "NullModel" not in found():
        pytest.skip("NullModel is not stored")
    assert [name for name, rates in found().items() if "repeated" in rates] == ["NullModel"]
    assert found()["NullModel"]["repeated"].value == 1


@needs_data
@pytest.mark.parametrize("name", ["gpt-3.5-turbo-1106", "alpaca-7b"])
def test_concise_and_verbose_variants_are_closer_than_by_win_rate(name: str) -> None:
    variants = [f"{name}_concise", name, f"{name}_verbose"]
    if not set(variants) <= set(found()):
        pytest.skip(f"not all variants of {name} are stored")
    spread = {}
    for key in ("win_rate", "length_controlled"):
        shares = np.array([found()[variant][key].value for variant in variants])
        spread[key] = np.ptp(np.log(shares / (1 - shares)))
    assert spread["length_controlled"] < 0.9 * spread["win_rate"]


def annotations(n: int = 600, *, phi: float = 1.5, theta: float = -0.5, seed: int = 0) -> list[Judgement]:
    """Judgements by the model itself: the chance of each pair, with the baseline's length mattering too."""
    rng = np.random.default_rng(seed)
    theirs, asked = rng.lognormal(7, 0.6, n), rng.integers(20, 200, n)
    ours = theirs * rng.lognormal(-0.3, 0.5, n)
    longer = np.tanh((ours - theirs) / (ours - theirs).std(ddof=1))
    base = np.log1p(theirs)
    chance = sigmoid(theta + phi * longer - 0.5 * (base - base.mean()) / base.std())
    won = rng.random(n) < chance
    return [
        Judgement("x" * int(q), float(w), float(a), float(b))
        for q, w, a, b in zip(asked, won, ours, theirs, strict=True)
    ]


def test_the_length_controlled_rate_is_that_of_equal_lengths() -> None:
    controlled = [length_controlled(annotations(4000, seed=s), range(4000)) for s in range(4)]
    # Truth: the mean of sigmoid(-0.5 - 0.5 z) over standardised log lengths, here by its definition.
    rng = np.random.default_rng(0)
    z = np.log1p(rng.lognormal(7, 0.6, 4000))
    truth = sigmoid(-0.5 - 0.5 * (z - z.mean()) / z.std()).mean()
    raw = np.mean([j.preference for j in annotations(4000)])
    assert np.mean([e.value for e in controlled if e]) == pytest.approx(truth, abs=0.015)
    assert abs(raw - truth) > 0.05  # which the win rate itself is far from


def test_the_standard_error_is_that_of_fresh_judgements() -> None:
    flat = (1.5, 10.0)  # all from the data
    fresh = [length_controlled(annotations(seed=s), range(600), length_effect=flat) for s in range(150)]
    values, errors = [e.value for e in fresh if e], [e.stderr for e in fresh if e]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)
    prior = length_controlled(annotations(), range(600))
    assert prior is not None
    assert prior.stderr < errors[0]


def test_each_judgement_twice_says_no_more_than_once() -> None:
    once = annotations(200)
    groups = list(range(200))
    single = length_controlled(once, groups, length_effect=(1.5, 10.0))
    double = length_controlled([*once, *once], [*groups, *groups], length_effect=(1.5, 10.0))
    assert single is not None
    assert double is not None
    assert double.stderr == pytest.approx(single.stderr, rel=0.03)


def test_newton_finds_where_the_slope_is_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y, counts = np.c_[np.ones(80), rng.normal(size=(80, 2))], rng.random(80), rng.integers(1, 5, 80).astype(float)
    mean, precision = np.array([0.0, 1.0, -1.0]), np.array([0.1, 2.0, 0.5])
    made = fit(x, y, mean=mean, precision=precision, counts=counts)
    slope = x.T @ (counts * (y - 1 / (1 + np.exp(-x @ made.weights)))) - precision * (made.weights - mean)
    assert np.abs(slope).max() < 1e-5
    assert made.converged
    lost = fit(np.ones((50, 1)), np.zeros(50), mean=np.zeros(1), precision=np.array([0.01]))  # separable
    assert lost.converged
    w = lost.weights[0]
    assert 50 / (1 + math.exp(-w)) == pytest.approx(-0.01 * w)  # where data and prior pull alike


def row(preference: object, **more: object) -> dict[str, object]:
    """A row in AlpacaEval's own form."""
    return {"instruction": "i", "output_1": "base", "output_2": "model's", "preference": preference, **more}


def test_both_versions_and_ties_and_what_was_not_parsed() -> None:
    rows = [row(p, instruction=str(i)) for i, p in enumerate([1, 2, 0, 1.5, None, math.nan, "2", ""])]
    rates = from_annotations(rows)
    assert (rates["win_rate"].value, rates["win_rate"].n) == (0.6, 5)
    assert [rates[name].value for name in ("win", "tie", "lose")] == [0.4, 0.4, 0.2]
    assert rates["length_controlled"].n == 5


def test_lengths_come_from_texts_counts_or_the_baselines_file() -> None:
    rows = [{"instruction": str(i), "output": "x" * i, "preference": 1 + i % 2} for i in range(20)]
    assert "length_controlled" not in from_annotations(rows)
    answers = [{"instruction": str(i), "output": "y" * (i * i % 7)} for i in range(20)]
    joined = from_annotations(rows, answers)["length_controlled"]
    texts = [{**r, "output_1": a["output"]} for r, a in zip(rows, answers, strict=True)]
    counts = [
        {"instruction": r["instruction"], "preference": r["preference"], "length_2": i, "length_1": i * i % 7}
        for i, r in enumerate(rows)
    ]
    assert joined == from_annotations(texts)["length_controlled"] == from_annotations(counts)["length_controlled"]


@pytest.mark.parametrize("preference", [1, 2, 1.5])
def test_one_sided_judgements_and_equal_lengths_have_a_rate(preference: float) -> None:
    rates = from_annotations([row(preference, instruction=str(i)) for i in range(30)])
    assert rates["length_controlled"].value == pytest.approx(preference - 1, abs=0.02)
    assert math.isfinite(rates["length_controlled"].stderr)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(3)], "preference 3 is not in AlpacaEval's form"),
        ([row("A")], "'A' is no number"),
        ([{"instruction": "i"}], "no preference"),
        ([{"preference": 1}], "no instruction"),
        ([row(1, generator="a"), row(1, generator="b")], "judgements of 2 models"),
    ],
)
def test_rows_that_are_no_annotations(rows: list[dict[str, object]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_annotations(rows)


# ------------------------------------------------------------------------------------------------------------- leaderboard

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = [  # American League 1987: Agresti, Categorical Data Analysis, table 10.10; how often row beat column
    [0, 7, 9, 7, 7, 9, 11], [6, 0, 7, 5, 11, 9, 9], [4, 6, 0, 7, 7, 8, 12], [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12], [4, 4, 5, 6, 6, 0, 6], [2, 4, 1, 3, 1, 7, 0],
]  # fmt: skip
BASEBALL = [
    Game(f"{i}-{j}-{k}", TEAMS[i], TEAMS[j], 1.0)
    for i in range(7)
    for j in range(7)
    for k in range(WINS[i][j])
]  # fmt: skip


def test_published_strengths_of_baseball_teams() -> None:
    expected = [1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0]
    ours = strengths(np.array(WINS, float))
    assert ours - ours[-1] == pytest.approx(expected, abs=6e-4)
    board = leaderboard(BASEBALL, draws=200)
    assert [s.model for s in board.standings] == TEAMS
    assert not board.separable
    assert not board.notes
    first, last = board.standings[0], board.standings[-1]
    assert (first.rank.value, first.rank.low, last.rank.high) == (1, 1, 7)
    assert first.rank.high >= 3  # 78 games do not tell the best three apart
    assert first.strength.n == 78
    assert first.elo()[0] - last.elo()[0] == pytest.approx(400 * 1.581 / math.log(10), abs=0.3)
    # Agresti's standard error of Milwaukee - Baltimore is 0.343, by the likelihood.
    assert 0.2 < first.strength.stderr < 0.343


def test_two_models_by_hand_with_ties() -> None:
    games = [Game(i, "a", "b", value) for i, value in enumerate([1.0] * 120 + [0.5] * 60 + [0.0] * 20)]
    board = leaderboard([*games, Game("x", "a", "b", math.nan)], draws=1000)
    a, b = board.standings
    assert a.strength.value - b.strength.value == pytest.approx(math.log(150 / 50), abs=1e-3)
    # The delta method: sd(mean) / (p (1 - p)), of half the difference.
    values = np.array([game.value for game in games])
    assert a.strength.stderr == pytest.approx(values.std() / math.sqrt(200) / 0.1875 / 2, rel=0.08)
    assert a.strength.low < a.strength.value < a.strength.high
    assert a.elo()[0] - b.elo()[0] == pytest.approx(400 * math.log10(3), abs=0.2)


def test_games_on_one_prompt_are_drawn_together() -> None:
    once = [Game(i, "a", "b", float(i % 3 > 0)) for i in range(90)]
    many = leaderboard(once * 10, draws=300).standings[0].strength
    single = leaderboard(once, draws=300).standings[0].strength
    assert many.stderr == pytest.approx(single.stderr, rel=0.02)


def test_separable_games_converge_and_are_named() -> None:
    board = leaderboard(
        [Game(i, "a", "b", 1.0) for i in range(50)] + [Game(i, "b", "c", i % 2) for i in range(50)], draws=50
    )
    assert board.standings[0].model == "a"
    assert all(math.isfinite(s.strength.value) and math.isfinite(s.strength.high) for s in board.standings)
    assert board.separable
    assert "comes from the ridge" in board.notes[0]


def test_games_that_are_none() -> None:
    for games, said in (
        ([], "no game has a verdict"),
        ([Game(0, "a", "a", 1.0)], "plays against itself"),
        ([Game(0, "a", "b", 2.0)], "the value 2 of a against b"),
    ):
        with pytest.raises(DataError, match=said):
            leaderboard(games)


@needs_data
def test_a_leaderboard_of_judged_models() -> None:
    games = [
        Game(str(r["instruction"]), name, "baseline", float(str(r["preference"])) - 1)
        for name, path in zip(NAMES[:4], FILES[:4], strict=True)
        for r in lines(path)
    ]
    board = leaderboard(games, draws=50)
    by_rate = sorted((name for name in NAMES[:4]), key=lambda name: -published()[name]["win_rate"])
    assert [s.model for s in board.standings if s.model != "baseline"] == by_rate


# ------------------------------------------------------------------------------------------------------------------- pairs


def answered(values: list[float], *, prompts: list[str] | None = None, texts: list[str] | None = None) -> Answered:
    """Answers with a scorer's values; the same prompt is the same cluster."""
    names = prompts or [f"p{i}" for i in range(len(values))]
    said = texts or [f"answer {i}" for i in range(len(values))]
    rollouts = [
        Rollout(prompt=[{"role": "user", "content": p}], text=t, prompt_tokens=[], tokens=[], logp=[], finish="stop")
        for p, t in zip(names, said, strict=True)
    ]
    return Answered(rollouts, {"quality": [Score(v) for v in values]}, [hash(name) for name in names])


NUMBER = ByScore(lambda rollouts: [Score(float(r.text)) for r in rollouts])


def numbered(values: list[float], prompts: list[str] | None = None) -> Answered:
    """Answers that are the number they are worth."""
    return answered(values, prompts=prompts, texts=[str(v) for v in values])


def test_wins_ties_and_losses_by_score() -> None:
    rates = against(numbered([3, 2, 1, 2, math.nan]), numbered([1, 2, 3, 1, 1]), NUMBER)
    values = np.array([1, 0.5, 0, 1])
    assert rates["win_rate"].value == values.mean()
    assert rates["win_rate"].stderr == pytest.approx(values.std(ddof=1) / 2)
    assert [rates[name].value for name in ("win", "tie", "lose")] == [0.5, 0.25, 0.25]
    assert rates["win"].n == 4
    assert set(rates) == {"win_rate", "win", "tie", "lose"}  # a scorer has no place to favour
    close = against(numbered([3, 2]), numbered([2.5, 1]), ByScore(NUMBER.scorer, margin=0.5))
    assert (close["win"].value, close["tie"].value) == (0.5, 0.5)


def test_answers_meet_by_their_prompt() -> None:
    ours, theirs = numbered([1, 2, 3, 4, 5], ["a", "b", "a", "b", "z"]), numbered([0, 9, 8], ["b", "a", "a"])
    assert match(ours, theirs) == [(0, 1), (1, 0), (2, 2), (3, 0)]
    with pytest.raises(DataError, match="no prompt in common"):
        match(numbered([1], ["a"]), numbered([1], ["b"]))


def test_standard_errors_are_clustered_where_prompts_repeat() -> None:
    rng = np.random.default_rng(0)
    wins = rng.integers(2, size=40).astype(float).tolist()
    once = against(numbered(wins), numbered([0.5] * 40), NUMBER)["win_rate"]
    names = [f"p{i}" for i in range(40)]
    four = against(numbered(wins * 4, names * 4), numbered([0.5] * 40, names), NUMBER)["win_rate"]
    assert (four.value, four.n) == (once.value, 160)
    assert four.stderr == pytest.approx(once.stderr)


def test_paired_differences_of_scores() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=200)
    a, b = hard + 0.1 * rng.normal(size=200) + 0.05, hard + 0.1 * rng.normal(size=200)
    gap = differences(answered(a.tolist()), answered(b.tolist()))["quality"]
    assert gap.value == pytest.approx((a - b).mean())
    assert gap.stderr == pytest.approx((a - b).std(ddof=1) / math.sqrt(200))
    assert gap.stderr < math.hypot(a.std(), b.std()) / math.sqrt(200) / 5  # what leaving the pairing out would say
