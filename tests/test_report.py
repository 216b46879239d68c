"""The run report, on a made-up run folder."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_fixture import HOME, RECIPE, RESULTS, language_rows, make_run, make_stage, save, save_rows

from accord.errors import DataError
from accord.report import write_report
from accord.report.read import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "fixture")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8").replace("\u00a0", " ")


def render(folder: Path, recipe: str = RECIPE) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(recipe)
    return write_report(folder).read_text(encoding="utf-8").replace("\u00a0", " ")


def compare(folder: Path, **models: dict) -> str:
    """The page of a comparison: metrics as `(value, stderr)` or as a bare value, with sft as the baseline."""
    found: dict[str, dict] = {}
    for model, metrics in models.items():
        pairs = {key: value if isinstance(value, tuple) else (value, None) for key, value in metrics.items()}
        found[model] = {key: {"value": value, "stderr": error, "n": 100} for key, (value, error) in pairs.items()}
    save(folder / "eval/results.json", {"baseline": "sft", "models": found})
    return render(folder)


def plain(html: str) -> str:
    """What a reader sees of it."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def section(page: str, at: int) -> str:
    return page.partition(f'<section id="stage-{at}">')[2].partition("</section>")[0]


def test_same_run_gives_same_bytes(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert {path.name for path in run.iterdir() if "report" in path.name} == {"report.html"}


def test_page_needs_no_network(page: str) -> None:
    assert "://" not in page
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)", page)


def test_user_text_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more" in page
    assert "a &lt;b&gt;crow&lt;/b&gt;" in page
    assert "same &lt;i&gt;twice&lt;/i&gt;" in page


def test_ids_are_unique_and_references_resolve(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_colours_are_variables_with_a_value_in_both_themes(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not re.search(r":\s*#[0-9a-f]{6}", drawn)
    for name in set(re.findall(r"var\(--([\w-]+)\)", drawn)):
        assert len(re.findall(rf"--{name}: #", page)) == 2


def test_table_shows_the_measured_numbers(page: str) -> None:
    rows = re.findall(r"<tr><th>(\w+).*?</tr>", section(page, 6), flags=re.DOTALL)
    assert rows[1:4] == ["sft", "dpo", "ppo"]  # the baseline first
    found = re.findall(r'<td class="num( best)?">(.*?)</td>', section(page, 6))
    cells = [(best, plain(text)) for best, text in found]
    assert cells[6:10] == [("", "0.312 ± 0.058"), ("", "0"), ("", "9.41 ± 0.22"), ("", "41.0 ± 1.2")]
    assert ("", "66.4 % ± 3.3") in cells
    assert ("", "12.90 ± 0.41") in cells
    assert [cell for cell in cells if cell[0]][4:6] == [(" best", "1.243 ± 0.052"), (" best", "72.8 % ± 3.1")]
    assert not re.search("<th>(win|tie|lose)<", section(page, 6))  # which the win rate sums up, and a figure shows


def test_the_verdict_comes_first_and_the_comparison_before_the_training(page: str) -> None:
    assert page.count('<p class="better">ppo is better than sft: gold 0.') == 1
    places = [page.index(text) for text in ('<div class="card verdict better">', 'class="pipeline"', 'id="stage-6"')]
    assert places == sorted(places)
    assert places[-1] < page.index('id="stage-1"') < page.index('id="stage-5"')


def test_every_model_is_measured_against_the_baseline(page: str) -> None:
    errors = (1.243 - 0.312) / math.hypot(0.052, 0.058)
    said = re.search("<li>ppo against sft: gold .*? reward (.*?)</li>", page)
    assert said
    assert said[1] == f"+0.931 ({errors:.1f} standard errors above), win rate 72.8 ± 3.1 %, KL 6.28 ± 0.17."


def test_pipeline_says_what_each_stage_starts_from(page: str) -> None:
    chips = re.findall(r'<li><a class="chip".*?</li>', page, flags=re.DOTALL)
    assert [plain(chip) for chip in chips] == [
        "base 15 min 05 s",
        "sft from base 5 min 12 s",
        "reward from sft 10 min 40 s",
        "ppo from sft with reward 25 min 30 s",
        "dpo from sft 6 min 42 s",
        "eval of sft, dpo, ppo 1 min 58 s",
    ]
    shares = [float(share) for share in re.findall(r"--share: ([\d.]+)%", page)]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_figures_of_the_comparison(page: str) -> None:
    assert re.findall("<figcaption>(.*?)</figcaption>", section(page, 6)) == [
        "Gold and its parts, sampled",
        "Gold and its parts, greedy",
        "Win, tie and loss against sft",
        "Reward of the answers",
        "Gold against distance",
        "Proxy against distance",
    ]


def test_win_rates_are_drawn_where_ties_are_not_known(tmp_path: Path) -> None:
    page = compare(tmp_path, sft={"demo/reward": 0.1}, ppo={"demo/reward": 0.2, "demo/win_rate": (0.6, 0.02)})
    assert re.findall("<figcaption>(.*?)</figcaption>", section(page, 6)) == ["Win rate against sft"]


def test_accuracy_is_drawn_between_chance_and_the_ceiling(page: str) -> None:
    accuracy = section(page, 3).partition("<figcaption>Accuracy: chosen")[2].partition("</figure>")[0]
    for words in ("chance 50 %", "two annotators agree 73.4 %", "a perfect judge 81.5 %"):
        assert f"</i>{words}</li>" in accuracy


def test_perplexity_of_training_is_drawn_beside_the_held_out(page: str) -> None:
    drawn = section(page, 2).partition("<figcaption>Perplexity<")[2].partition("</figure>")[0]
    assert re.findall(r"</i>([^<]+)</li>", drawn) == ["perplexity", "held-out perplexity"]


@pytest.mark.parametrize(
    ("reward", "gold", "warned"),
    [
        ((0.9, 0.05), (0.28, 0.04), True),  # gold 1.6 standard errors above
        ((0.9, 0.05), (0.1, 0.04), True),
        ((0.9, 0.05), (0.4, 0.04), False),
        ((0.4, 0.05), (0.1, 0.04), False),  # reward 1.4 standard errors above
        ((0.9, 0.05), 0.2, True),
        ((0.9, 0.05), 0.3, False),
        (0.9, (0.1, 0.04), False),
    ],
)
def test_reward_up_and_gold_not_is_called_hacking(tmp_path: Path, reward: object, gold: object, warned: bool) -> None:
    sft = {"demo/reward": (0.3, 0.05), "demo/gold": (0.2, 0.03)}
    page = compare(tmp_path, sft=sft, ppo={"demo/reward": reward, "demo/gold": gold})
    assert (page.count('<p class="warning">Reward up, truth not: reward hacking. ppo') == 1) == warned


@pytest.mark.parametrize(("gold", "warned"), [((1.0, 0.0), False), ((0.8, 0.04), True)])
def test_gold_that_cannot_rise_is_no_hacking(tmp_path: Path, gold: tuple[float, float], warned: bool) -> None:
    sft = {"demo/reward": (0.3, 0.05), "demo/gold": (1.0, 0.0)}
    page = compare(tmp_path, sft=sft, ppo={"demo/reward": (0.9, 0.05), "demo/gold": gold})
    assert ("reward hacking" in page) == warned


def test_hacking_is_found_in_any_trial_and_said_once_for_each_model(tmp_path: Path) -> None:
    sft = {f"demo{way}/{name}": (0.2, 0.02) for way in ("", "@greedy") for name in ("gold", "reward")}
    dpo = sft | {"demo/reward": (0.9, 0.02), "demo@greedy/reward": (0.9, 0.02)}
    ppo = sft | {"demo@greedy/reward": (0.9, 0.02)}
    page = compare(tmp_path, sft=sft, dpo=dpo, ppo=ppo)
    warnings = re.findall(r'class="warning">(.*?)</p>', page)
    assert [warning.partition("hacking. ")[2].partition(":")[0] for warning in warnings] == [
        "dpo against sft",
        "ppo against sft (demo, greedy)",
    ]


def test_a_suite_is_one_table_with_a_block_for_each_sampling(tmp_path: Path) -> None:
    sft = {"demo/length": 9.0, "demo/truths": 1.0, "demo/reward": (0.2, 0.02), "demo/gold": (0.2, 0.02)}
    sft |= {"demo@greedy/gold": (0.3, 0.02), "prompts/reward": (0.1, 0.02)}
    page = compare(tmp_path, sft=sft, ppo={"demo@greedy/gold": (0.5, 0.02), "demo/gold": (0.21, 0.02)})
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["demo", "prompts, sampled"]
    demo = page.partition("<h3>demo</h3>")[2].partition("<h3>")[0]
    titles = re.findall(r"<th>([^<]+)", demo.partition("</thead>")[0])
    assert titles == ["model", "gold ↑", "reward ↑", "truths", "length"]
    blocks = [re.sub(r"<[^>]+>", " ", block).split() for block in demo.split("<tbody>")[1:]]
    assert [(block[0], block[1]) for block in blocks] == [("sampled", "sft"), ("greedy", "sft")]
    assert [plain(cell) for cell in re.findall(r'best">(.*?)</td>', demo)] == ["0.500 ± 0.020"]


def test_lower_perplexity_is_better(tmp_path: Path) -> None:
    page = compare(tmp_path, sft={"prompts/perplexity": (9.0, 0.1)}, ppo={"prompts/perplexity": (8.0, 0.1)})
    assert [plain(cell) for cell in re.findall(r'class="num best">(.*?)</td>', page)] == ["8.00 ± 0.10"]


def test_policy_shows_budget_and_chosen_checkpoint(page: str) -> None:
    ppo = section(page, 4)
    assert ppo.count("KL budget 8<") == 2  # over steps, and against reward
    assert "chosen checkpoint, step 45" in ppo
    assert "Highest held-out reward among checkpoints" in ppo
    assert "1.090 ± 0.060" in ppo
    assert "1 value not finite, shown as gaps." in ppo


def test_smoothing_is_said_and_only_where_there_are_many_points(page: str) -> None:
    assert "moving average of 21 points" in section(page, 1)
    assert "moving average" not in section(page, 2)


def test_ensemble_members_share_a_figure_and_folds_stay_out(page: str) -> None:
    loss = section(page, 3).partition("<figcaption>Loss<")[2].partition("</figure>")[0]
    assert re.findall(r"</i>([^<]+)</li>", loss) == ["member 0", "member 1", "member 2", "loss", "held-out loss"]
    assert "71.5 ± 2.6 %" in section(page, 3)
    assert "70.2 ± 1.1 %" in section(page, 3)


def test_rows_read_and_dropped_are_shown(page: str) -> None:
    sft = section(page, 2)
    assert "1,950 of 2,000 training rows used" in sft
    assert "2 identical, 48 too long, 1 empty answer" in sft
    assert "…/data/pairs.jsonl:7: rejected is empty" in sft


def test_paths_are_cut_to_their_end(page: str) -> None:
    assert HOME not in page
    assert "…/data/chats.jsonl" in section(page, 2)
    assert "<td>rewards.…/rewards/mine.py:brevity.weight</td>" in section(page, 4)


def test_pair_rewards_are_the_mean_over_the_ensemble(run: Path, page: str) -> None:
    rows = [json.loads(line) for line in (run / "reward/scores.jsonl").read_text().splitlines()]
    mean = sum(row["chosen"] for row in rows) / len(rows) + (0 + 3 + 6) / 3
    assert f"chosen, mean {mean:.2f}, 300 answers" in section(page, 3)
    assert "Each reward is the mean of 3 ensemble members." in section(page, 3)


def test_margins_are_drawn_where_they_fill_the_last_row(page: str, tmp_path: Path) -> None:
    assert section(page, 3).count("<svg") == 6  # with the folds
    assert "Margin of held-out pairs" not in section(page, 3)
    save_rows(tmp_path / "reward/scores.jsonl", [{"chosen": 1.0, "rejected": 0.0}, {"chosen": 0.5, "rejected": 2.0}])
    save_rows(tmp_path / "reward/scores-member-1.jsonl", [{"chosen": 9.0, "rejected": 9.0}])  # of an older run
    reward = section(render(tmp_path), 3)
    assert re.findall("<figcaption>(.*?)</figcaption>", reward) == [
        "Reward of held-out answers",
        "Margin of held-out pairs",
    ]
    assert "mean \u22120.25, 2 pairs" in reward
    assert "ensemble members" not in reward


def test_every_model_is_in_every_figure_and_card(page: str) -> None:
    compared = section(page, 6)
    assert all(f"<li><i class=\"fill\" style=\"--c: var(--series-{at})\"></i>{name}, mean" in compared
               for at, name in enumerate(RESULTS, start=1))  # fmt: skip
    assert compared.count('<article class="card answers">') == 12
    assert "cut at the length limit" in compared


def test_recipe_alone(tmp_path: Path) -> None:
    page = render(tmp_path)
    assert "The run has no results yet." in page
    assert page.count("not run") >= 6
    assert "<svg" not in page


def test_unfinished_run_with_torn_line_and_nulls(tmp_path: Path) -> None:
    save(tmp_path / "run.json", {"status": "interrupted"})
    rows = [{"step": 1, "loss": 2.5, "grad_norm": None}, {"step": 2, "loss": None, "grad_norm": None}]
    save_rows(tmp_path / "base/metrics.jsonl", rows)
    with (tmp_path / "base/metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    save(tmp_path / "sft/stage.json", {"kind": "sft", "status": "running"})
    (tmp_path / "sft/metrics.jsonl").write_text("")
    page = render(tmp_path)
    assert "interrupted" in page
    assert section(page, 1).count("<svg") == 2  # loss and perplexity: no figure of a metric that is never finite
    assert section(page, 1).count("1 value not finite") == 1
    assert 'status interrupted">interrupted' in section(page, 2)  # by then it runs no more
    assert "<svg" not in section(page, 2)


def test_an_ensemble_that_is_being_fitted(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "tiny"\n[stage.base]\nkind = "reward"\n')
    save(tmp_path / "base/stage.json", {"kind": "reward", "status": "running"})
    for member in (0, 1):
        rows = [{"member": member, "step": step, "loss": 0.7 - 0.1 * step} for step in (1, 2, 3)]
        save_rows(tmp_path / f"base/state/member-{member}/metrics.jsonl", rows)
    (stage, *_) = read_run(tmp_path).stages
    assert [row["member"] for row in stage.metrics] == [0, 0, 0, 1, 1, 1]


def test_sft_only(tmp_path: Path) -> None:
    make_stage(tmp_path / "sft", "sft", 3.0)
    save_rows(tmp_path / "sft/metrics.jsonl", language_rows(random.Random(1), 5, 0.6))
    page = render(tmp_path, 'name = "tiny"\n[stage.sft]\nkind = "sft"\n')
    assert "3.0 s" in page
    assert page.count("<svg") == 4


def test_odd_names_and_prompts(tmp_path: Path) -> None:
    answer = {"model": "$a_b <i>模", "prompt": "plain", "response": "", "scores": {"reward": 1}, "sampling": {}}
    save_rows(tmp_path / "eval/answers.jsonl", [answer, answer | {"model": "b", "response": "x\ud800"}])
    win = {"prompts/win_rate": {"value": 1, "stderr": 0, "n": 3}}
    save(tmp_path / "eval/results.json", {"baseline": "b", "models": {"b": {}, "$a_b <i>模": win}})
    page = render(tmp_path)
    assert "$a_b &lt;i&gt;模" in page
    assert "<i>模" not in page
    assert "(empty answer)" in page


def test_broken_files_are_named(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(DataError) as caught:
            write_report(tmp_path)
        return str(caught.value)

    give = "give a run folder, runs/<name>"
    assert said() == f"{tmp_path}: holds no run: there is no recipe.toml, and no results.json of an evaluation; {give}"
    path, fix = tmp_path / "recipe.toml", "run the recipe again: accord run"
    path.write_text("name = ")
    assert said() == f"{path}: is no recipe of a run (Invalid value (at end of document)); {fix}"
    path.write_text(RECIPE)
    (tmp_path / "base").mkdir()
    log, record, fix = (
        tmp_path / "base/metrics.jsonl",
        tmp_path / "base/stage.json",
        "remove its folder to have the stage done again",
    )
    log.write_text('{"step": 1\n{"step": 2}\n')
    assert said() == f"{log}:1: is no JSON (Expecting ',' delimiter: line 1 column 11 (char 10)); {fix}"
    record.write_text("{")
    error = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert said() == f"{record}: is no JSON ({error}); {fix}"


def test_import_is_light() -> None:
    code = "import sys, accord.report; print(*(m for m in ('torch', 'matplotlib') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
