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

from accord.errors import DataError
from accord.report import write_report

RECIPE = """
name = "fixture"
seed = 7
[stage.base]
kind = "pretrain"
data = [{ source = "accord:demo/text" }]
[stage.base.shape]
layers = 2
width = 64
[stage.sft]
kind = "sft"
model = "@base"
data = [{ source = "accord:demo/chats" }]
[stage.reward]
kind = "reward"
model = "@sft"
ensemble = 3
folds = 4
[stage.ppo]
kind = "policy"
model = "@sft"
[stage.ppo.rewards."@reward"]
weight = 1.0
[stage.ppo.params]
kl_budget = 8.0
[stage.dpo]
kind = "preference"
model = "@sft"
objective = "dpo"
[stage.eval]
kind = "evaluate"
models = { sft = "@sft", dpo = "@dpo", ppo = "@ppo" }
baseline = "sft"
"""
RESULTS = {
    "sft": {"reward": (0.312, 0.058), "kl": (0.0, 0.0), "perplexity": (9.41, 0.22)},
    "dpo": {"reward": (0.871, 0.049), "kl": (3.12, 0.11), "perplexity": (9.47, 0.25)},
    "ppo": {"reward": (1.243, 0.052), "kl": (6.28, 0.17), "perplexity": (12.9, 0.41)},
}
WINS = {"dpo": (0.664, 0.033), "ppo": (0.728, 0.031)}
ATTACK = "<script>alert('x')</script> & more"


def save(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def save_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def language_rows(rng: random.Random, steps: int, start: float) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        loss = 1.4 + start * math.exp(-3 * step / steps) + rng.gauss(0, 0.08)
        row = {"step": step, "loss": loss, "lr": 3e-3 * (1 - step / steps), "grad_norm": 1 + rng.random()}
        row["tokens_per_second"] = 5200 + 400 * rng.random()
        if step % max(1, steps // 8) == 0:
            row["eval/loss"] = loss + 0.1
            row["eval/perplexity"] = math.exp(loss + 0.1)
        rows.append(row)
    return rows


def pair_rows(rng: random.Random, steps: int, **more: int) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        done = 1 - math.exp(-3 * step / steps)
        row = {"step": step, **more, "loss": 0.69 - 0.3 * done + rng.gauss(0, 0.03), "lr": 1e-4}
        row |= {"accuracy": 0.5 + 0.25 * done + rng.gauss(0, 0.04), "margin": done + rng.gauss(0, 0.1)}
        row |= {"grad_norm": 1 + rng.random()}
        if step % (steps // 5) == 0:
            row |= {"eval/loss": 0.7 - 0.25 * done, "eval/accuracy": 0.5 + 0.2 * done}
            row |= {"eval/margin": 0.8 * done}
        rows.append(row)
    return rows


def policy_rows(rng: random.Random, steps: int) -> list[dict]:
    rows: list[dict] = []
    for step in range(steps + 1):
        done = step / steps
        row: dict = {"step": step}
        if step:
            row |= {"reward/mean": 0.3 + 1.2 * done + rng.gauss(0, 0.15), "kl/mean": 11 * done**1.3}
            row |= {"reward/reward": 0.4 + 1.2 * done + rng.gauss(0, 0.1), "reward/ended": -0.1 * rng.random()}
            row |= {"kl/beta": 0.05 + 0.02 * done, "policy/loss": rng.gauss(-0.01, 0.01)}
            row |= {"policy/clip_fraction": 0.1 + 0.05 * rng.random(), "policy/entropy": 2.3 - 0.8 * done}
            row |= {"value/loss": 0.4 * math.exp(-3 * done), "value/explained_variance": 0.8 * done}
            row |= {"rollout/length": 40 + 15 * done + rng.gauss(0, 2), "rollout/finished": 0.9 + 0.08 * done}
            row |= {"sampler/mismatch": 1e-6 * rng.random(), "time/rollout": 2 + rng.random()}
            row |= {"time/score": 0.4, "time/prepare": 0.3, "time/update": 1.5 + 0.3 * rng.random()}
        if step % (steps // 8) == 0:
            row |= {"eval/reward": 0.31 + 1.1 * done**0.7, "eval/reward_stderr": 0.06, "eval/kl": 11 * done**1.3}
            row |= {"eval/length": 41 + 14 * done, "eval/finished": 0.91 + 0.07 * done}
        rows.append(row)
    rows[20]["value/explained_variance"] = None
    return rows


def make_stage(folder: Path, kind: str, seconds: float, **more: object) -> None:
    record = {"kind": kind, "fingerprint": "0" * 8, "status": "done", "seconds": seconds}
    save(folder / "stage.json", record | more)


def make_answers(rng: random.Random) -> list[dict]:
    rows = []
    for at in range(40):
        prompt = [{"role": "user", "content": f"Tell me story {at} about a fox & a <b>crow</b>."}]
        for model, found in RESULTS.items():
            for heat in (1.0, 0.0):
                text = f"The {model} fox ran home. " * (40 if at == 1 else 4)
                row = {"model": model, "prompt": prompt, "response": ATTACK if at == 0 else text}
                row |= {"finish": "length" if at == 2 else "stop", "sampling": {"temperature": heat}}
                row |= {"scores": {"reward": rng.gauss(found["reward"][0], 0.7)}, "why": ""}
                rows.append(row)
    return rows


def make_run(folder: Path) -> Path:
    """Write a whole run; all of its numbers are invented."""
    rng = random.Random(7)
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    facts = {"versions": {"python": "3.11", "torch": "2.6"}, "seed": 7, "status": "done", "seconds": 4210.0}
    facts |= {"hardware": {"cpu": "fixture", "cores": 2}, "threads": 2, "started": "2025-01-01 00:00"}
    save(folder / "run.json", facts)
    make_stage(folder / "base", "pretrain", 905.0)
    save_rows(folder / "base/metrics.jsonl", language_rows(rng, 400, 2.0))
    dropped = {"identical": {"count": 2, "example": "same <i>twice</i>"}, "too_long": {"count": 48, "example": "a"}}
    train = {"read": 2000, "kept": 1950, "dropped": dropped}
    data = {"train": train, "eval": {"read": 100, "kept": 100, "dropped": {}}}
    make_stage(folder / "sft", "sft", 312.4, data=data)
    save_rows(folder / "sft/metrics.jsonl", language_rows(rng, 24, 0.6))
    folds = {"value": 0.702, "stderr": 0.011, "n": 1200, "each": [0.69, 0.72, 0.71, 0.688]}
    result = {"accuracy": {"value": 0.715, "stderr": 0.026, "n": 300}, "folds": folds}
    make_stage(folder / "reward", "reward", 640.0, result=result)
    rows = [row for member in range(3) for row in pair_rows(rng, 40, member=member)]
    save_rows(folder / "reward/metrics.jsonl", rows + pair_rows(rng, 40, fold=0))
    pairs = [{"chosen": rng.gauss(0.6, 1), "rejected": rng.gauss(-0.3, 1), "source": "a"} for _ in range(300)]
    save_rows(folder / "reward/scores.jsonl", pairs)
    # Written the way a policy stage does: the standard error stands beside its value.
    why = "Highest held-out reward among checkpoints within the KL budget."
    result = {"step": 45, "reward": 1.09, "reward_stderr": 0.06, "kl": 5.97, "kl_budget": 8.0, "why": why}
    make_stage(folder / "ppo", "policy", 1530.0, result=result)
    save_rows(folder / "ppo/metrics.jsonl", policy_rows(rng, 72))
    make_stage(folder / "dpo", "preference", 402.0)
    logps = [
        {"chosen_logp": -40 - row["margin"], "rejected_logp": -42 - 3 * row["margin"]} for row in pair_rows(rng, 80)
    ]
    rows = [row | more for row, more in zip(pair_rows(rng, 80), logps, strict=True)]
    save_rows(folder / "dpo/metrics.jsonl", rows)
    make_stage(folder / "eval", "evaluate", 118.0)
    models: dict[str, dict] = {}
    for name, found in RESULTS.items():
        found = found | ({"win_rate": WINS[name]} if name in WINS else {})
        values = {f"prompts/{k}": {"value": v, "stderr": e, "n": 200} for k, (v, e) in found.items()}
        greedy = {
            f"prompts@greedy/{k}": {"value": v * 1.1, "stderr": e, "n": 200}
            for k, (v, e) in found.items()
            if k != "perplexity"
        }
        models[name] = values | greedy
        models[name]["prompts/length"] = {"value": 47.5, "stderr": 1.2, "n": 200}
    save(folder / "eval/results.json", {"baseline": "sft", "models": models})
    save_rows(folder / "eval/answers.jsonl", make_answers(rng))
    return folder


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
    cells = re.findall(r'<td class="num( best)?">(.*?)</td>', section(page, 6))
    assert cells[:4] == [("", "0.312 ± 0.058"), ("", "0"), ("", "9.41 ± 0.22"), ("", "47.5 ± 1.2")]
    assert ("", "66.4 ± 3.3 %") in cells
    assert ("", "12.90 ± 0.41") in cells
    assert [cell for cell in cells if cell[0]][:2] == [(" best", "1.243 ± 0.052"), (" best", "72.8 ± 3.1 %")]


def test_verdict_states_lead_errors_and_kl(page: str) -> None:
    assert "ppo leads on reward: 1.243 ± 0.052 against sft&#39;s 0.312 ± 0.058." in page
    errors = (1.243 - 0.312) / math.hypot(0.052, 0.058)
    assert (
        f"ppo: reward +0.931 against sft ({errors:.1f} standard errors above), win rate 72.8 ± 3.1 %, KL 6.28" in page
    )


@pytest.mark.parametrize(
    ("ppo", "said"),
    [
        ({"value": 0.4, "stderr": 0.05}, "No model is clearly ahead of sft on reward."),
        ({"value": 0.1, "stderr": 0.05}, "No model has a higher mean reward than the baseline"),
        ({"value": 0.9}, "without standard errors that says little"),
        ({"value": None}, "no reward for the baseline and another model"),
    ],
)
def test_verdict_claims_no_more_than_was_measured(tmp_path: Path, ppo: dict, said: str) -> None:
    models = {"sft": {"prompts/reward": {"value": 0.3, "stderr": 0.05}}, "ppo": {"prompts/reward": ppo}}
    save(tmp_path / "eval/results.json", {"baseline": "sft", "models": models})
    page = render(tmp_path)
    assert said in page
    assert 'class="num best"' not in page


def test_lower_perplexity_is_better(tmp_path: Path) -> None:
    models = {name: {"prompts/perplexity": {"value": v, "stderr": 0.1}} for name, v in (("sft", 9.0), ("ppo", 8.0))}
    save(tmp_path / "eval/results.json", {"baseline": "sft", "models": models})
    assert 'class="num best">8.00 ± 0.10<' in render(tmp_path)


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
    assert "2 identical, 48 too long" in sft


def test_every_model_is_in_every_figure_and_card(page: str) -> None:
    compared = section(page, 6)
    assert all(f"<li><i class=\"fill\" style=\"--c: var(--series-{at})\"></i>{name}, mean" in compared
               for at, name in enumerate(RESULTS, start=1))  # fmt: skip
    assert compared.count('<article class="card answers">') == 12
    assert "cut at the length limit" in compared


def test_recipe_alone(tmp_path: Path) -> None:
    page = render(tmp_path)
    assert "No comparison has been run." in page
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
    assert section(page, 1).count("<svg") == 1  # no figure of a metric that is never finite
    assert "1 value not finite" in section(page, 1)
    assert 'status interrupted">interrupted' in section(page, 2)  # by then it runs no more
    assert "<svg" not in section(page, 2)


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
    with pytest.raises(DataError, match=r"recipe\.toml"):
        write_report(tmp_path)
    save_rows(tmp_path / "base/metrics.jsonl", [{"step": 1}])
    (tmp_path / "base/metrics.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        render(tmp_path)


def test_import_is_light() -> None:
    code = "import sys, accord.report; print(*(m for m in ('torch', 'matplotlib') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
