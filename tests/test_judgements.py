"""Ready judgements on the command line: win rates of one pair of models, a leaderboard of more, and rows that are none."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs_data
from report_fixture import save_rows
from test_cli import Accord, accord  # noqa: F401  (a fixture)

from accord.compare.leaderboard import Game, leaderboard

ALPACA = DATA / "alpaca_eval"
Results = dict[str, dict[str, dict[str, float]]]


def judgements(model: str, other: str, wins: int, of: int = 40, **more: object) -> list[dict]:
    """A row for each of `of` prompts, of which the model wins the first."""
    return [
        {"instruction": f"prompt {at}", "generator_1": other, "generator_2": model, "output_1": "theirs", "output_2": "our own",
         "preference": 2 if at < wins else 1, **more}
        for at in range(of)
    ]  # fmt: skip


def results(out: Path) -> tuple[Results, str]:
    found = json.loads((out / "results.json").read_text())
    return found["models"], found["baseline"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three models against one, a file each."""
    made = {"weak": 8, "strong": 30, "middle": 20}
    for model, wins in made.items():
        save_rows(tmp_path / f"{model}.jsonl", judgements(model, "base", wins))
    return [tmp_path / f"{model}.jsonl" for model in made]


def test_a_file_about_one_pair_has_win_rates_and_no_leaderboard(files: list[Path], accord: Accord, tmp_path: Path):  # noqa: F811
    said = accord("evaluate", "--suite", "winrate", "--annotations", files[0], "--out", tmp_path / "out")
    assert said.code == 0, said.err
    models, baseline = results(tmp_path / "out")
    assert baseline == "base"
    assert {name: set(found) for name, found in models.items()} == {
        "weak": {f"winrate/{key}" for key in ("win_rate", "win", "tie", "lose", "length_controlled", "repeated")}
    }
    assert models["weak"]["winrate/win_rate"]["value"] == 0.2
    assert said.out.splitlines()[0].split() == ["mean", "[95", "%", "interval]", "weak"]
    assert "leaderboard" not in said.out
    assert "against" not in (tmp_path / "out/answers.jsonl").read_text()


def test_files_about_several_models_have_a_leaderboard(files: list[Path], accord: Accord, tmp_path: Path):  # noqa: F811
    said = accord("evaluate", "--suite", "winrate", "--annotations", *files, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    models, baseline = results(tmp_path / "out")
    assert baseline == "base"
    places = sorted(models, key=lambda name: models[name]["winrate/rank"]["value"])
    assert places == ["strong", "base", "middle", "weak"] or places == ["strong", "middle", "base", "weak"]
    for name, share in (("weak", 0.2), ("strong", 0.75), ("middle", 0.5)):
        found = models[name]
        assert found["winrate/win_rate"]["value"] == share
        assert found["winrate/expected_win_rate"]["value"] == pytest.approx(share, abs=1e-3)  # the ridge moves it
        strength = found["winrate/strength"]
        assert strength["value"] == pytest.approx(math.log(share / (1 - share)), abs=2e-3)
        # By the delta method, sd(mean) / (p (1 - p)); the log-odds of few games are skewed, and draws are 400.
        assert strength["stderr"] == pytest.approx(1 / math.sqrt(40 * share * (1 - share)), rel=0.2)
        assert strength["low"] < strength["value"] < strength["high"]
        assert strength["n"] == 40
        chance = found["winrate/expected_win_rate"]
        assert chance["low"] == pytest.approx(1 / (1 + math.exp(-strength["low"])))
    assert models["base"]["winrate/strength"] == {"value": 0.0, "stderr": 0.0, "n": 120, "low": 0.0, "high": 0.0}
    table = said.out.partition("leaderboard by Bradley-Terry, strength 0 is base:\n")[2].splitlines()
    assert [line.split()[0] for line in table[2:6]] == places
    assert table[2].split()[1] == "1"
    assert table[2].split()[-1] == "40"
    rows = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(rows) == 120
    assert {row["against"] for row in rows} == {"base"}


def test_files_may_follow_one_another_or_be_given_one_by_one(files: list[Path], accord: Accord, tmp_path: Path):  # noqa: F811
    save_rows(tmp_path / "theirs.jsonl", [{"instruction": f"prompt {at}", "output": "theirs"} for at in range(40)])
    one_by_one = [word for file in files for word in ("--annotations", file)]
    for out, words in (("a", ["--annotations", *files, f"base={tmp_path}/theirs.jsonl"]), ("b", one_by_one)):
        said = accord("evaluate", "--suite", "winrate", *words, "--out", tmp_path / out)
        assert said.code == 0, said.err
    (first, baseline), (second, _) = results(tmp_path / "a"), results(tmp_path / "b")
    assert baseline == "base"
    assert first == second
    recipe = (tmp_path / "a/recipe.toml").read_text()
    assert "theirs.jsonl" in recipe.partition("models")[2]  # NAME=FILE stays a model


def test_a_round_without_a_common_opponent(accord: Accord, tmp_path: Path):  # noqa: F811
    games = {("a", "b"): 30, ("b", "c"): 24, ("c", "a"): 6}
    save_rows(tmp_path / "all.jsonl", [row for (one, two), wins in games.items() for row in judgements(one, two, wins)])
    arguments = ["evaluate", "--suite", "winrate", "--annotations", tmp_path / "all.jsonl", "--out"]
    assert accord(*arguments, tmp_path / "out", "--baseline", "c").code == 0
    models, baseline = results(tmp_path / "out")
    assert baseline == "c"
    # The likelihood's maximum by plain gradient ascent.
    s = np.zeros(3)
    for _ in range(4000):
        slope = np.zeros(3)
        for (one, two), wins in games.items():
            i, j = "abc".index(one), "abc".index(two)
            more = wins - 40 / (1 + np.exp(s[j] - s[i]))
            slope += more * (np.eye(3)[i] - np.eye(3)[j])
        s += 0.01 * slope
    found = [models[name]["winrate/strength"]["value"] for name in "abc"]
    assert found == pytest.approx(s - s[2], abs=2e-3)
    assert models["b"]["winrate/win_rate"]["value"] == 0.6  # of its games against c alone
    assert "winrate/win_rate" not in models["a"]
    unknown = accord(*arguments, tmp_path / "no", "--baseline", "d")
    assert unknown.code == 2
    assert "no judgement is of 'd', the baseline; known: a, b, c" in unknown.err
    assert accord(*arguments, tmp_path / "first").code == 0
    assert results(tmp_path / "first")[1] == "b"  # the first that is met


def test_models_that_no_row_names_have_the_names_of_their_files(accord: Accord, tmp_path: Path):  # noqa: F811
    for name, wins in (("one.v2", 10), ("two", 30)):
        bare = [{key: row[key] for key in ("instruction", "preference")} for row in judgements("", "", wins)]
        save_rows(tmp_path / f"{name}.jsonl", bare)
    paths = [tmp_path / "one.v2.jsonl", tmp_path / "two.jsonl"]
    for baseline in ("gpt", None):
        more = ["--baseline", baseline] if baseline else []
        assert accord("evaluate", "--annotations", *paths, *more, "--out", tmp_path / f"out-{baseline}").code == 0
        models, found = results(tmp_path / f"out-{baseline}")
        assert found == (baseline or "baseline")
        assert {name: value["winrate/rank"]["value"] for name, value in models.items()} == {
            "two": 1,
            found: 2,
            "one.v2": 3,
        }


def test_a_model_against_itself_is_no_game(files: list[Path], accord: Accord, tmp_path: Path):  # noqa: F811
    save_rows(tmp_path / "base.jsonl", judgements("base", "base", 0, preference=1.5))
    words = ["evaluate", "--suite", "winrate", "--annotations"]
    said = accord(*words, *files[:2], tmp_path / "base.jsonl", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "40 judgements are of a model against itself" in said.err
    assert results(tmp_path / "out")[0]["base"]["winrate/rank"]["n"] == 80
    assert accord(*words, files[0], tmp_path / "base.jsonl", "--out", tmp_path / "pair").code == 0
    assert "winrate/rank" not in results(tmp_path / "pair")[0]["weak"]  # still one pair


def test_groups_that_never_lost_to_each_other_are_named(accord: Accord, tmp_path: Path):  # noqa: F811
    rows = [*judgements("a", "b", 40), *judgements("c", "b", 20)]
    save_rows(tmp_path / "rows.jsonl", rows)
    said = accord("evaluate", "--annotations", tmp_path / "rows.jsonl", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "comes from the ridge" in said.err
    assert accord("report", tmp_path / "out").code == 0
    assert "comes from the ridge" in (tmp_path / "out/report.html").read_text()


BAD = [
    ({"preference": 3}, "weak.jsonl:41: preference 3 is not in AlpacaEval's form; 1 to 2, 0 for a tie, null"),
    ({"preference": "A"}, "weak.jsonl:41: preference 'A' is no number; 1 to 2, 0 for a tie, null"),
    (
        {"instruction": None},
        "weak.jsonl:41: no instruction; rows have instruction, output_2 (or output) and preference",
    ),
    ({"generator_2": 7}, "weak.jsonl:41: generator_2 is 7; it must be the name of a model"),
    ({"generator_1": ["x"]}, "weak.jsonl:41: generator_1 is ['x']; it must be the name of a model"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_row_that_is_no_judgement_is_named(
    files: list[Path], accord: Accord, tmp_path: Path, change: dict[str, object], words: str  # noqa: F811
):  # fmt: skip
    with files[0].open("a") as rows:
        rows.write(json.dumps(judgements("weak", "base", 1, 1)[0] | change) + "\n")
    said = accord("evaluate", "--annotations", *files, "--out", tmp_path / "out")
    assert said.code == 2
    assert words in said.err


def test_files_without_a_verdict_or_that_are_not_there(files: list[Path], accord: Accord, tmp_path: Path):  # noqa: F811
    for name in "ab":
        save_rows(tmp_path / f"{name}.jsonl", judgements(name, "base", 0, preference=None))
    said = accord("evaluate", "--annotations", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--out", tmp_path / "out")
    assert said.code == 2
    assert "no judgement has a preference; 1 where the baseline is better" in said.err
    said = accord("evaluate", "--annotations", *files, tmp_path / "absent.jsonl", "--out", tmp_path / "out")
    assert said.code == 2
    assert f"annotations.3: no such file: {tmp_path}/absent.jsonl" in said.err
    said = accord("evaluate", "--annotations", *files, files[0], "--out", tmp_path / "out")
    assert said.code == 2
    assert "annotations names a file twice" in said.err
    save_rows(tmp_path / "votes.jsonl", [{"model": "m", "prompt": "p", "helpfulness": 3}])
    said = accord("evaluate", "--ratings", tmp_path / "votes.jsonl", "--baseline", "x", "--out", tmp_path / "out")
    assert said.code == 2
    assert "baseline is one of models" in said.err


def test_the_page_shows_places_best_first(files: list[Path], accord: Accord, tmp_path: Path):  # noqa: F811
    assert accord("evaluate", "--annotations", *files, "--out", tmp_path / "out").code == 0
    assert accord("report", tmp_path / "out").code == 0
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    rows = re.findall(r"<tr><th>(\w+).*?</th>\s*<td[^>]*>(\d) <small>(\d to \d)</small>", page)
    assert [(name, place) for name, place, _ in rows if name in ("strong", "weak")] == [("strong", "1"), ("weak", "4")]
    assert [int(place) for _, place, _ in rows] == [1, 2, 3, 4]
    assert "log-odds of Bradley and Terry" in page


def test_strengths_count_from_the_anchor():
    rng = np.random.default_rng(0)
    games = [Game(at, one, two, float(rng.random() < 0.6)) for at in range(60) for one, two in ("ab", "bc", "ac")]
    free, held = leaderboard(games, draws=100), leaderboard(games, draws=100, anchor="b")
    by_name = [{place.model: place for place in board.standings} for board in (free, held)]
    start = by_name[0]["b"].strength.value
    for name, place in by_name[1].items():
        assert place.strength.value == pytest.approx(by_name[0][name].strength.value - start)
        assert place.rank == by_name[0][name].rank
    assert by_name[1]["b"].strength.stderr == 0
    assert by_name[1]["b"].chance.value == 0.5


@needs_data
def test_ten_models_of_alpaca_eval_rank_as_published(accord: Accord, tmp_path: Path):  # noqa: F811
    files = sorted((ALPACA / "annotations").glob("*.jsonl.gz"))
    assert accord("evaluate", "--suite", "winrate", "--annotations", *files, "--out", tmp_path / "out").code == 0
    models, baseline = results(tmp_path / "out")
    with (ALPACA / "leaderboard_weighted_gpt4_turbo.csv").open() as text:
        published = {row[""]: float(row["win_rate"]) / 100 for row in csv.DictReader(text)}
    names = {name: "NullModel" if name == "example" else name for name in models}  # as its answers name it
    known = [name for name in models if names[name] in published and name != baseline]
    assert len(known) >= 8
    strengths = np.array([models[name]["winrate/strength"]["value"] for name in known])
    rates = np.array([published[names[name]] for name in known])
    assert (strengths.argsort() == rates.argsort()).all()
    assert [models[name]["winrate/expected_win_rate"]["value"] for name in known] == pytest.approx(rates, abs=1e-5)
    for name in known:
        strength, rate = models[name]["winrate/strength"], published[names[name]]
        assert strength["low"] < math.log(rate / (1 - rate)) < strength["high"]
