"""Detectors of what goes wrong: each on a series that must fire and on ones that must not; in a real run; on the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from report_fixture import make_stage, save, save_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord.data.dropped import Dropped
from accord.data.sources import read
from accord.pitfalls import DETECTORS, Finding, Seen, Watch, find
from accord.pitfalls.measures import at_equal_length, distinct, on_length
from accord.pitfalls.seen import Bend, Both, Change
from accord.recipe import Source, Table
from accord.recipe_file import parse
from accord.report import write_report
from accord.report.pitfalls import findings
from accord.report.read import read_run
from accord.run import read_json
from accord.stages import run
from benchmarks.pitfalls.table import wilson

NOISE = np.random.default_rng(0).normal(0, 1, 60)


def logged(**series: list[float]) -> list[dict[str, float | None]]:
    """Rows of metrics.jsonl; a key's `__` stands for the `/`."""
    length = max(len(values) for values in series.values())
    return [
        {
            "step": float(i + 1),
            **{key.replace("__", "/"): values[i] for key, values in series.items() if i < len(values)},
        }
        for i in range(length)
    ]


def line(start: float, end: float, n: int = 30, noise: float = 0.0) -> list[float]:
    return [start + (end - start) * i / (n - 1) + noise * NOISE[i] for i in range(n)]


def policy(settings: dict | None = None, done: float = 1.0, **series: list[float]) -> Seen:
    return Seen("policy", settings or {}, logged(**series), done)


def change(metric: str, before: float, after: float, stderr: float | None = 0.02) -> Change:
    return Change("demo", "sampled", "ppo", "sft", metric, before, after, stderr)


JUDGED = {"eval_rewards": {"@judge": {}}}
ERROR = [0.05] * 30
SICK: dict[str, Seen] = {
    "reward hacking": policy(
        JUDGED, reward__mean=line(0, 2, noise=0.1), eval__reward=line(1, 0.5), eval__reward_stderr=ERROR
    ),
    "reward hacking/compared": Seen("evaluate", changes=[change("reward", 0, 1), change("gold", 0.5, 0.5)]),
    "over-optimisation": Seen(
        "evaluate",
        bends=[Bend("ppo", [(0, 0.5, 0.01), (1, 0.6, 0.01), (4, 0.7, 0.01), (9, 0.6, 0.01)], 4.2, True)],
    ),
    "mode collapse": policy(policy__entropy=line(2, 0.05), rollout__distinct=line(0.4, 0.05)),
    "mode collapse/compared": Seen("evaluate", changes=[change("distinct_2", 0.6, 0.2)]),
    "forgetting": Seen("evaluate", changes=[change("perplexity", 5, 9, 0.3)]),
    "forgetting/paired": Seen("evaluate", changes=[change("forgetting", 0, 0.5, 0.05)]),
    "overfitting": Seen(
        "reward",
        rows=logged(accuracy=line(0.5, 1), eval__accuracy=line(0.5, 0.6), eval__loss=[0.69, 0.6, 0.7, 0.9, 1.2]),
    ),
    "length bias": policy(
        reward__mean=line(0, 1, noise=0.02),
        rollout__length=line(10, 20, noise=0.2),
        rollout__length_slope=line(0.09, 0.1),
    ),
    "length bias/compared": Seen(
        "evaluate", both=[Both("demo", "sampled", "ppo", 0.1 * n + 0.01 * NOISE[n], n) for n in range(1, 20)]
    ),
    "KL too high": policy(kl__mean=line(0, 40), rollout__length=line(20, 20)),
    "KL too high/budget": policy({"params": {"kl_budget": 5}}, eval__kl=line(0, 6)),
    "KL too low": policy(eval__kl=line(0, 0.001), reward__mean=line(0, 0, noise=0.1)),
    "loss spike": Seen("sft", rows=logged(loss=[*line(2, 1, noise=0.02), 9.0])),
    "critic failure": policy(value__explained_variance=line(-3, -1)),
    "critic failure/loss": policy(value__explained_variance=line(0, 0.3), value__loss=line(1, 30)),
    "sampler mismatch": policy(sampler__mismatch=line(0.2, 0.2)),
    "sycophancy": Seen("evaluate", changes=[change("flip", 0.1, 0.6)]),
    "falling chosen log-probability": Seen("preference", rows=logged(eval__chosen_logp=line(-10, -30))),
    "falling chosen log-probability/train": Seen("preference", rows=logged(chosen_logp=line(-10, -30, noise=2))),
    "off-policy preference data": Seen("preference", result={"surprise": {"value": 2.0, "stderr": 0.1, "n": 100}}),
}
WELL: dict[str, Seen] = {
    "a policy that learns": policy(
        JUDGED | {"params": {"kl_budget": 9}}, reward__mean=line(0, 2, noise=0.1), eval__reward=line(0, 1),
        eval__reward_stderr=ERROR, eval__kl=line(0, 5), kl__mean=line(0, 5), policy__entropy=line(2, 1),
        rollout__distinct=line(0.4, 0.35), rollout__length=line(20, 21, noise=0.5), rollout__length_slope=line(0.01, 0.01),
        value__explained_variance=line(-1, 0.6), value__loss=line(1, 0.3), sampler__mismatch=line(1e-6, 1e-6),
    ),
    "a judge that falls within its errors": policy(
        JUDGED, reward__mean=line(0, 2, noise=0.1), eval__reward=line(1, 0.95), eval__reward_stderr=ERROR
    ),
    "the proxy judging itself": policy(
        {"eval_rewards": {}}, reward__mean=line(0, 2), eval__reward=line(1, 0.5), eval__reward_stderr=ERROR
    ),
    "sure and varied": policy(policy__entropy=line(2, 0.05), rollout__distinct=line(0.4, 0.4)),
    "longer for another reason": policy(
        reward__mean=line(0, 1, noise=0.02), rollout__length=line(10, 20), rollout__length_slope=line(0.01, 0.01)
    ),
    "still at the beginning": policy(
        done=0.1, eval__kl=line(0, 0.001), reward__mean=line(0, 0), value__explained_variance=line(-3, -1)
    ),
    "a loss that falls": Seen("sft", rows=logged(loss=line(6, 1, noise=0.1))),
    "pairs that are learned": Seen(
        "preference",
        rows=logged(
            accuracy=line(0.5, 0.8), eval__accuracy=line(0.5, 0.75), eval__loss=line(0.69, 0.5),
            eval__chosen_logp=line(-10, -10.5),
        ),
        result={"surprise": {"value": 0.1, "stderr": 0.1, "n": 100}},
    ),
    "a better model": Seen(
        "evaluate",
        changes=[change("reward", 0, 1), change("gold", 0.5, 0.7), change("perplexity", 5, 5.2), change("flip", 0.1, 0.1),
                 change("distinct_2", 0.6, 0.55)],
        bends=[Bend("ppo", [(0, 0.5, 0.01), (1, 0.6, 0.01), (4, 0.7, 0.01), (9, 0.75, 0.01)], 30.0, False)],
        both=[Both("demo", "sampled", "ppo", 1 + 0.1 * NOISE[n], n) for n in range(20)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_what_is_sick_is_told_with_numbers(name: str) -> None:
    found = find(SICK[name])
    assert [finding.name for finding in found] == [name.partition("/")[0]]
    told = found[0]
    assert any(sign.isdigit() for sign in told.evidence)
    assert told.threshold
    assert told.advice
    assert math.isfinite(told.value)


@pytest.mark.parametrize("name", WELL)
def test_of_what_is_well_nothing_is_told(name: str) -> None:
    assert find(WELL[name]) == []


@pytest.mark.parametrize("kind", ["sft", "reward", "policy", "preference", "evaluate"])
def test_what_was_not_measured_is_not_told(kind: str) -> None:
    nothing = [{"step": float(i), "loss": None, "eval/kl": None} for i in range(40)]
    assert [detect(Seen(kind)) for detect in DETECTORS] == [None] * 14
    assert [detect(Seen(kind, rows=nothing)) for detect in DETECTORS] == [None] * 14


def test_every_detector_has_been_seen_to_fire() -> None:
    assert {name.partition("/")[0] for name in SICK} == {f.name for seen in SICK.values() for f in find(seen)}
    assert len({name.partition("/")[0] for name in SICK}) == len(DETECTORS)


def test_what_is_less_sure_is_a_hint_and_comes_last() -> None:
    assert [f.severity for f in find(policy(policy__entropy=line(2, 0.05)))] == ["hint"]
    told = {f.name: f.severity for seen in SICK.values() for f in find(seen)}
    assert [name for name, severity in told.items() if severity == "hint"] == ["overfitting"]
    rows = logged(
        accuracy=line(0.5, 1), eval__accuracy=line(0.5, 0.6), eval__loss=[0.6, 0.7, 0.9], loss=[*line(1, 1), 9]
    )
    assert [f.name for f in find(Seen("reward", rows=rows))] == ["loss spike", "overfitting"]


def test_a_watch_tells_once_and_as_soon_as_it_can() -> None:
    watch = Watch("sft", {})
    told: list[tuple[int, Finding]] = []
    for i, loss in enumerate([*line(2, 1, noise=0.02), 9.0, 9.0, 1.0], 1):
        watch.add(i, {"loss": loss})
        told += [(i, finding) for finding in watch.look(i / 40)]
    assert [(i, finding.at_step) for i, finding in told] == [(31, 31)]


def test_distinct_counts_pairs_of_neighbours() -> None:
    assert distinct([[1, 2, 3], [1, 2, 4]]) == 3 / 4
    assert distinct([[1], []]) is None


def test_the_slope_on_length_is_that_of_least_squares() -> None:
    length, reward = 10 + 3 * NOISE[:20], NOISE[20:40]
    slope, correlation = on_length(reward.tolist(), length.tolist(), list(range(20))) or (0, 0)
    assert slope == pytest.approx(np.polyfit(length, reward, 1)[0])
    assert correlation == pytest.approx(np.corrcoef(length, reward)[0, 1])


def test_within_prompts_the_prompts_do_not_count() -> None:
    """Simpson: longer questions earn more, and within each of them longer answers less."""
    length, reward = [1, 2, 3, 11, 12, 13], [1.0, 0.9, 0.8, 5.0, 4.9, 4.8]
    assert on_length(reward, length, [0, 0, 0, 1, 1, 1]) == pytest.approx((-0.1, -1.0))
    assert (on_length(reward, length, range(6)) or (0, 0))[0] > 0
    assert on_length([1.0, math.nan], [1, 2], [0, 0]) is None


def test_the_gain_at_equal_length_is_the_intercept() -> None:
    length = 5 + 2 * NOISE[:30]
    reward = 0.3 + 0.1 * length + 0.2 * NOISE[30:60]
    fit, covariance = np.polyfit(length, reward, 1, cov=True)
    assert at_equal_length(reward.tolist(), length.tolist()) == pytest.approx((fit[1], math.sqrt(covariance[1, 1])))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(5, 5, 0.5655, 1.0), (0, 60, 0.0, 0.0602), (8, 10, 0.4902, 0.9433)]
)
def test_intervals_are_wilsons(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx(
        (low, high), abs=1e-4
    )  # as statsmodels' proportion_confint(method="wilson")


# ------------------------------------------------------------------------------------------------------------ real runs


def table(base: Path, **stage: object) -> Table:
    it = {"model": str(base), "save": 1000, **stage}
    return cast(Table, {"name": "it", "compute": {"device": "cpu", "threads": 1}, "stage": {"it": it}})


def test_a_run_that_forgets_nothing_of_its_steps_is_told_live(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"source": "accord:demo/chats", "limit": 64}
    optim = {"lr": 3.0, "clip": 0.0, "warmup": 8, "schedule": "constant", "batch_size": 4, "steps": 16}
    folder = run(parse(table(base, kind="sft", data=data, eval=2, optim=optim)), tmp_path / "run").stage("it")
    told = capsys.readouterr().err
    assert told.count("looks like loss spike") == 1
    found = cast("list[dict[str, object]]", read_json(folder.path / "stage.json")["findings"])
    assert [finding["name"] for finding in found] == ["loss spike"]
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert page.count("<b>loss spike</b>") == 1
    assert str(found[0]["advice"]) in page


def test_surprise_is_what_the_answers_are_above_the_entropy(tmp_path: Path, base: Path) -> None:
    """Recounted in plain transformers, over the answers' tokens."""
    data = {"source": "accord:demo/pairs", "limit": 6}
    optim = {"batch_size": 4, "steps": 1}
    folder = run(parse(table(base, kind="preference", data=data, optim=optim)), tmp_path / "run").stage("it")
    stated = cast("dict[str, dict[str, float]]", read_json(folder.path / "stage.json")["result"])["surprise"]
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    above, tokens = 0.0, 0
    for pair in read(Source(**data), Dropped(), "test"):
        for answer in (pair.chosen, pair.rejected):  # pyright: ignore
            asked = tokenizer.apply_chat_template(pair.prompt, tokenize=False, add_generation_prompt=True)  # pyright: ignore
            chat = [*pair.prompt, {"role": "assistant", "content": answer}]  # pyright: ignore
            whole = tokenizer.apply_chat_template(chat, tokenize=False)
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
            start = len(tokenizer(asked, add_special_tokens=False)["input_ids"])
            logp = model(torch.tensor([ids])).logits[0].detach().double().log_softmax(-1)
            for at in range(start, len(ids)):
                entropy = -float((logp[at - 1].exp() * logp[at - 1]).sum())
                above += -float(logp[at - 1, ids[at]]) - entropy
                tokens += 1
    assert stated["value"] == pytest.approx(above / tokens, rel=0.02)


RECIPE = """
name = "made"
[stage.ppo]
kind = "policy"
model = "a"
[stage.ppo.eval_rewards."@judge"]
weight = 1
[stage.eval]
kind = "evaluate"
models = { sft = "b", ppo = "@ppo" }
baseline = "sft"
"""


def test_the_report_shows_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    make_stage(tmp_path / "ppo", "policy", 1.0)
    save_rows(tmp_path / "ppo/metrics.jsonl", cast("list[dict]", SICK["reward hacking"].rows))
    make_stage(tmp_path / "eval", "evaluate", 1.0)
    found = {
        "demo/perplexity": {"value": 5.0, "stderr": 0.1, "n": 50},
        "sycophancy/flip": {"value": 0.1, "stderr": 0.02},
    }
    worse = {
        "demo/perplexity": {"value": 9.0, "stderr": 0.1, "n": 50},
        "sycophancy/flip": {"value": 0.5, "stderr": 0.05},
    }
    worse |= {"known/forgetting": {"value": 0.6, "stderr": 0.05, "n": 50}}
    save(tmp_path / "eval/results.json", {"baseline": "sft", "models": {"sft": found, "ppo": worse}})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("What to look at") == 2
    assert [page.count(f"<b>{name}</b>") for name in ("reward hacking", "forgetting", "sycophancy")] == [1, 1, 1]
    assert "The reward rose from" in page
    assert "because in ppo the reward rose from" in page  # which comes first in what to do next


def test_what_the_baseline_grew_from_has_not_gone_wrong(tmp_path: Path) -> None:
    made = '[stage.sft]\nkind = "sft"\nmodel = "b"\n[stage.ppo]'
    recipe = RECIPE.replace("[stage.ppo]", made).replace('{ sft = "b", ppo', '{ base = "b", sft = "@sft", ppo')
    (tmp_path / "recipe.toml").write_text(recipe)
    make_stage(tmp_path / "eval", "evaluate", 1.0)
    good, bad = ({"demo/perplexity": {"value": value, "stderr": 0.1, "n": 50}} for value in (5.0, 9.0))
    for model, told in (("base", []), ("ppo", ["forgetting"])):
        models = {"sft": good, "base": good, "ppo": good} | {model: bad}
        save(tmp_path / "eval/results.json", {"baseline": "sft", "models": models})
        run = read_run(tmp_path)
        assert [finding.name for finding in findings(run, run.stages[-1])] == told


def test_of_some_stages_a_comparison_tells_what_they_made(tmp_path: Path) -> None:
    recipe = RECIPE.replace("{ sft", '{ given = "x.jsonl", sft') + 'curves = { low = "@ppo", high = "@other" }\n'
    (tmp_path / "recipe.toml").write_text(f'{recipe}[stage.other]\nkind = "policy"\nmodel = "b"\n')
    make_stage(tmp_path / "eval", "evaluate", 1.0)
    good, bad = ({"demo/perplexity": {"value": value, "stderr": 0.1, "n": 50}} for value in (5.0, 9.0))
    save(tmp_path / "eval/results.json", {"baseline": "sft", "models": {"sft": good, "ppo": good, "given": bad}})
    fell = [(0, 0.5), (1, 0.6), (4, 0.7), (9, 0.6), (16, 0.5)]
    points = [{"step": kl, "kl": kl, "gold": {"value": gold, "stderr": 0.01, "n": 99}} for kl, gold in fell]
    save(tmp_path / "eval/curves.json", {"series": [{"name": "high", "kind": "rl", "points": points}]})
    run = read_run(tmp_path)
    by_name = {stage.name: stage for stage in run.stages}
    told = {
        made: [f.name for f in findings(run, by_name["eval"], [by_name[made]] if made else [])]
        for made in ("", "ppo", "other")
    }
    assert told == {"": ["over-optimisation", "forgetting"], "ppo": [], "other": ["over-optimisation"]}


def test_the_frozen_figures_are_those_of_the_page() -> None:
    root = Path(__file__).parents[1] / "docs/evaluation"
    page, stated = (root / "pitfalls.md").read_text(), json.loads((root / "pitfalls.json").read_text())["detectors"]
    assert len(stated) == len(DETECTORS)
    for row in stated:
        assert f"| {row['name']} | {row['hits']}/{row['sick']} |" in page
        assert f"| {row['false_alarms']}/{row['healthy']} |" in page
