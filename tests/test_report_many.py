"""The page of several runs and evaluations: what it says, and what a browser makes of it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, look, needs_chromium
from report_fixture import make_run, save, save_rows
from test_cli import Accord, accord  # noqa: F401  (a fixture)

from accord.report import write_report
from accord.report.compared import NONE
from accord.report.many import comparison_json, write_comparison
from accord.report.paired import difference
from accord.report.read import read_run
from accord.report.several import differing, members, merged, pairs
from accord.report.words import MINUS

RATINGS = {"ratings/helpfulness": (3.9, 0.11), "ratings/coherence": (4.2, 0.08), "ratings/preferred": (0.61, 0.04)}


def evaluation(folder: Path, name: str, seed: int, *, prompts: range = range(60), better: float = 0.0) -> Path:
    """A folder as `accord evaluate --out` leaves it: results and answers, no recipe."""
    dice = random.Random(seed)
    hard = [random.Random(at).gauss(0, 1) for at in prompts]  # the same prompts are hard for every model
    rows = [
        {"model": name, "suite": "quiz", "prompt": [{"role": "user", "content": f"question {at} <b>"}], "why": "",
         "response": f"answer {at}", "finish": "stop", "tokens": 10 + at % 3, "sampling": {"temperature": 1.0},
         "scores": {"points": difficulty + better + dice.gauss(0, 0.3)}}
        for at, difficulty in zip(prompts, hard, strict=True)
    ]  # fmt: skip
    points = np.array([row["scores"]["points"] for row in rows])
    found = {
        "quiz/points": {"value": points.mean(), "stderr": points.std(ddof=1) / len(points) ** 0.5, "n": len(points)}
    }
    found |= {key: {"value": value, "stderr": error, "n": 80} for key, (value, error) in RATINGS.items()}
    found |= {"quiz/finished": {"value": 1.0, "stderr": 0.0, "n": len(points)}}
    save(folder / "results.json", {"baseline": name, "models": {name: found}})
    save_rows(folder / "answers.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that differ in a setting, in the answers of one model, and in a stage."""
    here = tmp_path_factory.mktemp("runs")
    one, two = make_run(here / "one"), make_run(here / "two")
    recipe = (
        (two / "recipe.toml").read_text().replace("kl_budget = 8.0", "kl_budget = 4.0").replace('"fixture"', '"other"')
    )
    recipe = recipe.replace('[stage.dpo]\nkind = "preference"\nmodel = "@sft"\nobjective = "dpo"\n', "")
    (two / "recipe.toml").write_text(recipe)
    rows = [json.loads(line) for line in (two / "eval/answers.jsonl").read_text().splitlines()]
    for at, row in enumerate(rows):
        if row["model"] == "ppo":
            row["scores"]["gold"] = min(1.0, row["scores"]["gold"] + 0.1 * (at % 2))
    save_rows(two / "eval/answers.jsonl", rows)
    log = [json.loads(line) for line in (two / "ppo/metrics.jsonl").read_text().splitlines()]
    save_rows(two / "ppo/metrics.jsonl", [row | {"kl/mean": 2 * row.get("kl/mean", 0)} for row in log])
    return one, two


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> str:
    return write_comparison(runs, None).read_text(encoding="utf-8").replace("\u00a0", " ")


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.replace("<wbr>", "")).split())


def test_the_page_lies_beside_the_first_run_and_names_all(runs: tuple[Path, Path], page: str):
    assert (runs[0].parent / "fixture-against-other.html").exists()
    assert "<h1>fixture against other</h1>" in page
    assert "://" not in page
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_page_of_several_is_headed_as_one_of_a_run(page: str, tmp_path: Path):
    odd = write_report(evaluation(tmp_path / "a <b> & c", "x", 1)).read_text(encoding="utf-8")
    assert "<title>a &lt;b&gt; &amp; c · run report</title>" in odd
    assert "<title>fixture against other · comparison</title>" in page
    heads = [re.sub(r"<title>.*?</title>", "", html.partition("<header>")[0]) for html in (odd, page)]
    assert heads[0] == heads[1] != ""
    for html in (odd, page):
        assert html.rstrip().endswith("</main>\n</body>\n</html>")


def test_what_differs_in_the_recipes(runs: tuple[Path, Path], page: str):
    rows, same = differing([member.run for member in members(runs)])
    assert {row.key: row.values for row in rows if "dpo" not in row.key} == {
        "stage.ppo.params.kl_budget": ("8.0", "4.0")
    }
    assert same > 10
    said = plain(page)
    assert "stage.ppo.params.kl_budget 8.0 4.0" in said
    assert f"stage.dpo preference {NONE}" in said
    assert "stage.dpo.objective" not in said  # that the stage is there says enough


def test_differences_are_paired_over_common_prompts(runs: tuple[Path, Path]):
    every = members(runs)
    compared = merged(every)
    assert compared
    assert ("other/ppo", "fixture/ppo") in pairs(every, compared)
    assert ("other/sft", "fixture/sft") not in pairs(every, compared)  # the very same answers
    trial = next(t for t in compared.trials if t.sampling == "sampled" and "gold" in t.metrics)
    found = difference(compared, trial, "gold", "other/ppo", "fixture/ppo")
    assert found
    sides = []
    for folder in runs:
        rows = [json.loads(line) for line in (folder / "eval/answers.jsonl").read_text().splitlines()]
        sides.append([r["scores"]["gold"] for r in rows if r["model"] == "ppo" and r["sampling"]["temperature"] == 1.0])
    apart = np.array(sides[1]) - np.array(sides[0])
    assert found.prompts == len(apart) == 120
    assert found.gap.value == pytest.approx(apart.mean())
    assert found.gap.stderr == pytest.approx(apart.std(ddof=1) / 120**0.5)
    assert difference(compared, trial, "win_rate", "other/ppo", "fixture/ppo") is None  # of another baseline each


def test_curves_lie_over_each_other_and_time_is_told(page: str):
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert "ppo: KL" in titles
    assert "ppo: held-out reward against KL" in titles
    assert "ppo: mean reward" not in titles  # it went the same way in both
    assert "Time by stage" in titles
    assert not [title for title in titles if "Win" in title]  # rates against different baselines
    assert "time of ppo 25 min 30 s 25 min 30 s" in plain(page)


def test_evaluations_without_a_recipe(tmp_path: Path):
    a, b = evaluation(tmp_path / "a", "small", 1), evaluation(tmp_path / "b", "large", 2, better=0.4)
    far = evaluation(tmp_path / "c", "far", 3, prompts=range(100, 160))
    page = plain(write_comparison([a, b, far], tmp_path / "page.html").read_text()).replace("\u00a0", " ")
    assert "b/large is above a/small: points" in page
    assert "paired over 60 prompts" in page
    assert "unpaired" in page
    assert "What differs in the recipes" not in page
    found = json.loads(comparison_json([a, b, far]))
    by = {(row["model"], row["metric"]): row for row in found["differences"]}
    points = [
        [json.loads(line)["scores"]["points"] for line in (x / "answers.jsonl").read_text().splitlines()]
        for x in (a, b)
    ]
    apart = np.array(points[1]) - np.array(points[0])
    assert by["b/large", "quiz/points"]["value"] == pytest.approx(apart.mean())
    assert by["b/large", "quiz/points"]["stderr"] == pytest.approx(apart.std(ddof=1) / 60**0.5)
    assert by["c/far", "quiz/points"]["paired"] is False
    assert set(found["results"]) == {"a/small", "b/large", "c/far"}
    assert found["results"]["a/small"]["ratings/helpfulness"] == {"value": 3.9, "stderr": 0.11, "n": 80}


def test_one_evaluation_has_a_page_of_its_own(tmp_path: Path):
    folder = evaluation(tmp_path / "quiz-run", "small", 1)
    page = write_report(folder).read_text()
    assert read_run(folder).stages[0].kind == "evaluate"
    assert "<h1>quiz-run</h1>" in page
    assert re.findall(r"<figcaption>(People.*?)</figcaption>", page) == ["People&#39;s ratings", "People&#39;s votes"]
    assert "question 3 &lt;b&gt;" in page


def test_the_page_of_what_the_evaluate_command_leaves(tmp_path: Path, accord: Accord):  # noqa: F811
    save_rows(tmp_path / "given.jsonl", [{"prompt": f"p {i}", "response": "one two"} for i in range(4)])
    assert accord("evaluate", "--responses", tmp_path / "given.jsonl", "--out", tmp_path / "out").code == 0
    assert accord("report", tmp_path / "out").code == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "given was measured" in page
    assert "not run" not in page
    assert re.search(r">\s*words\b", page)


def test_the_command(tmp_path: Path, accord: Accord):  # noqa: F811
    a, b = evaluation(tmp_path / "a", "x", 1), evaluation(tmp_path / "b", "x", 2)
    said = accord("report", a, b, "--out", tmp_path / "page.html")
    assert (said.code, said.out.strip()) == (0, str(tmp_path / "page.html"))
    assert json.loads(accord("report", a, b, "--json").out)["differences"]
    assert accord("report", a, "--json").code == 2
    assert accord("report", a, tmp_path).code == 2
    assert accord("report", a, b, "--out", tmp_path / "no/page.html").code == 2
    assert accord("report", a).out.strip() == str(a / "report.html")


def test_runs_of_one_name_are_told_apart(tmp_path: Path):
    for at in ("x", "y"):
        evaluation(tmp_path / at / "eval", "m", 1)
    assert [m.label for m in members([tmp_path / "x/eval", tmp_path / "y/eval"])] == ["x/eval", "y/eval"]
    assert [m.label for m in members([tmp_path / "x/eval"] * 2)] == ["x/eval (1)", "x/eval (2)"]


@needs_chromium
def test_pages_in_a_browser(runs: tuple[Path, Path], page: str, tmp_path: Path):
    pages = [runs[0].parent / "fixture-against-other.html", write_report(evaluation(tmp_path / "a", "x", 1))]
    seen = look([*pages, write_report(runs[0])], tmp_path)
    assert seen.console == []
    assert seen.requests == []
    assert seen.widths == [(PHONE, DESKTOP)] * 3  # nothing sticks out


@needs_chromium
def test_the_browser_would_tell(tmp_path: Path):
    bad = tmp_path / "bad.html"
    wide = '<div style="width:900px">wide</div><img src="http://example.com/a"><script>console.error("x")</script>'
    bad.write_text(f'<!doctype html><body style="margin:0">{wide}')
    seen = look([bad], tmp_path)
    assert any('"x"' in line for line in seen.console)
    assert "http://example.com/a" in seen.requests
    assert seen.widths == [(900, DESKTOP)]


def test_a_minus_is_a_minus(page: str):
    assert f"other/ppo {MINUS} fixture/ppo" in page
