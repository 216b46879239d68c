"""The report's verdict: three sentences that claim no more than was measured, case by case."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest
from report_fixture import make_run, make_stage, policy_rows, save, save_rows

from accord.report.case import open_case
from accord.report.gaps import gap
from accord.report.read import read_run
from accord.report.verdict import Verdict, verdict

RECIPE = """
name = "case"
[stage.sft]
kind = "sft"
model = "accord:tiny"
[stage.reward]
kind = "reward"
model = "@sft"
ensemble = 1
[stage.ppo]
kind = "policy"
model = "@sft"
rewards = { "@reward" = { weight = 1.0 } }
params = { kl = 0.05, kl_budget = 10.0 }
[stage.dpo]
kind = "preference"
model = "@sft"
params = { beta = 0.1 }
[stage.eval]
kind = "evaluate"
models = { base = "accord:tiny", sft = "@sft", ppo = "@ppo", dpo = "@dpo" }
baseline = "sft"
"""
SFT = RECIPE.partition("[stage.reward]")[0]
BASE = {"gold": (0.6, 0.02), "greedy/gold": (0.8, 0.02), "reward": (0.0, 0.05), "kl": 0.0, "length": 40.0}
GOOD = {"gold": (0.8, 0.02), "greedy/gold": (0.9, 0.02), "reward": (0.9, 0.05), "kl": (3.0, 0.1), "length": 41.0}


def judge(folder: Path, recipe: str = RECIPE, **models: dict) -> Verdict:
    """The verdict on models whose metrics are `(value, stderr)` or a bare value; `greedy/...` are those when greedy."""
    (folder / "recipe.toml").write_text(recipe)
    found: dict[str, dict] = {}
    for model, metrics in models.items():
        pairs = {key: value if isinstance(value, tuple) else (value, None) for key, value in metrics.items()}
        found[model] = {
            f"demo{'@greedy' if key.startswith('greedy/') else ''}/{key.removeprefix('greedy/')}": {
                "value": value, "stderr": error, "n": 100,
            }
            for key, (value, error) in pairs.items()
        }  # fmt: skip
    if models:
        save(folder / "eval/results.json", {"baseline": "sft", "models": found})
    said = verdict(read_run(folder))
    for sentence in (said.better, said.price, said.advice):
        assert re.fullmatch(r"[A-Za-z].*[^.]\.", sentence), sentence
        assert not re.search(r"\. |\.\.|,,| ,|  |nan|inf\b|None", sentence), sentence
    return Verdict(*[s.replace("\u00a0", " ") for s in (said.better, said.price, said.advice)], said.sure)


# -------------------------------------------------------------------------------------------------- better or not


def test_better_names_gold_sampled_and_greedy_with_their_errors(tmp_path: Path) -> None:
    said = judge(tmp_path, sft=BASE, ppo=GOOD)
    assert said.better == (
        "ppo is better than sft: gold 0.800 against 0.600 when sampled (+0.200 ± 0.028) and 0.900 against 0.800 when "
        "greedy (+0.100 ± 0.028), both beyond two standard errors."
    )
    assert said.sure == 1


@pytest.mark.parametrize(
    ("gold", "greedy", "claim", "sure"),
    [
        ((0.8, 0.02), (0.81, 0.02), "ppo is better than sft: ", 0),
        ((0.8, 0.02), (0.7, 0.02), "ppo is better than sft when sampled but worse when decoded greedily: ", 0),
        ((0.62, 0.02), (0.9, 0.02), "ppo is better than sft when decoded greedily and not clearly different", 0),
        ((0.62, 0.02), (0.7, 0.02), "ppo is worse than sft when decoded greedily and not clearly different", 0),
        ((0.62, 0.02), (0.81, 0.02), "ppo is not clearly better than sft: ", 0),
        ((0.5, 0.02), (0.7, 0.02), "ppo is worse than sft: ", -1),
        ((0.8, None), (0.9, None), "ppo has higher gold than sft, which without standard errors says little: ", 0),
    ],
)
def test_claims_follow_two_standard_errors(tmp_path: Path, gold: tuple, greedy: tuple, claim: str, sure: int) -> None:
    said = judge(tmp_path, sft=BASE, ppo=GOOD | {"gold": gold, "greedy/gold": greedy})
    assert said.better.startswith(claim)
    assert said.sure == sure


def test_the_best_trained_model_is_judged_and_an_untrained_one_never(tmp_path: Path) -> None:
    base = BASE | {"gold": (0.99, 0.001)}
    dpo = GOOD | {"gold": (0.7, 0.02)}
    assert judge(tmp_path, base=base, sft=BASE, dpo=dpo, ppo=GOOD).better.startswith("ppo is better than sft")
    worse = BASE | {"gold": (0.4, 0.02), "greedy/gold": (0.5, 0.02)}
    said = judge(tmp_path, sft=BASE, ppo=worse, dpo=worse | {"gold": (0.45, 0.02)}).better
    assert said.startswith("No trained model is better than sft, and the best of them, dpo, is worse: ")


def test_without_gold_the_reward_and_the_win_rate_speak(tmp_path: Path) -> None:
    ppo = {"reward": (0.9, 0.05), "win_rate": (0.7, 0.03)}
    assert judge(tmp_path, sft={"reward": (0.0, 0.05)}, ppo=ppo).better == (
        "ppo is better than sft: reward 0.900 against 0.000 when sampled (+0.900 ± 0.071, beyond two standard errors), "
        "with a win rate of 70.0 ± 3.0 %."
    )
    said = judge(tmp_path, sft={"kl": 0.0}, ppo={"win_rate": (0.52, 0.03)})
    assert said.better == (
        "ppo is not clearly better than sft: it wins 52.0 ± 3.0 % of the comparisons when sampled (within two standard "
        "errors from 50 %)."
    )
    assert (
        judge(tmp_path, sft={"kl": 0.0}, ppo={"kl": 1.0}).better == "Whether ppo is better than sft was not measured."
    )


def test_errors_are_paired_where_the_answers_give_back_the_table(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    case = open_case(run)
    assert case
    assert case.best == "ppo"
    ours, base = (
        {a.prompt: a.gold for a in case.compared.answers if a.model == name and a.sampling != "greedy"}
        for name in ("ppo", "sft")
    )
    far = [(ours[prompt] or 0.0) - (base[prompt] or 0.0) for prompt in ours]
    middle = sum(far) / len(far)
    error = math.sqrt(sum((x - middle) ** 2 for x in far) / (len(far) - 1) / len(far))
    found = gap(case.compared, case.main, "ppo", "gold")
    assert found
    assert found.value == pytest.approx(middle)
    assert found.stderr == pytest.approx(error)
    reward = gap(case.compared, case.main, "ppo", "reward")  # which the fixture's answers do not give back
    assert reward
    assert reward.stderr == pytest.approx(math.hypot(0.052, 0.058))


# ---------------------------------------------------------------------------------------------------------- price


def test_price_lists_what_was_measured_and_what_fell(tmp_path: Path) -> None:
    sft = BASE | {"perplexity": (9.4, 0.2), "over_refusal": (0.02, 0.01), "facts": (0.9, 0.01)}
    ppo = GOOD | {"length": 50.0, "perplexity": (12.9, 0.4), "over_refusal": (0.08, 0.01), "facts": (0.8, 0.01)}
    assert judge(tmp_path, sft=sft, ppo=ppo).price == (
        "The price is 3.00 ± 0.10 nats of KL per answer, answers 25 % longer (40 to 50 tokens), perplexity up 37 % "
        "(9.4 to 12.9), 8.0 % over-refusal (from 2.0 %) and correct facts lower by 0.100 ± 0.014."
    )


def test_price_says_what_is_not_known_and_what_did_not_change(tmp_path: Path) -> None:
    said = judge(tmp_path, sft={"gold": (0.5, 0.01)}, ppo={"gold": (0.9, 0.01)})
    assert said.price == "What that cost was not measured: there is no KL, length or perplexity of both models."
    assert judge(tmp_path, sft=BASE, ppo=GOOD).price == (
        "The price is 3.00 ± 0.10 nats of KL per answer and answers as long as before (41 tokens), while nothing else "
        "that was measured clearly fell."
    )


# --------------------------------------------------------------------------------------------------------- advice


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        (
            {"gold": (0.5, 0.02)},
            "raise kl in ppo (now 0.05) and train the reward model on more labels or as an ensemble, because ppo's "
            "reward rose (+0.900 ± 0.071) while its gold fell (\u22120.100 ± 0.028).",
        ),
        ({"kl": (12.0, 0.1)}, "raise kl in ppo (now 0.05), because ppo lies 12.00 ± 0.10 nats from sft, over the budget"),
        ({"greedy/gold": (0.7, 0.02)}, "or keep an earlier checkpoint, because decoded greedily ppo has lost gold"),
        ({"refusal": (0.5, 0.05)}, "add demonstrations and comparisons of refusals, because ppo refuses 50 % of"),
        ({"over_refusal": (0.3, 0.05)}, "add harmless requests that look unsafe"),
        ({"facts": (0.4, 0.02)}, "collect comparisons whose answers differ in correct facts, or raise kl in ppo"),
        ({"gold": (0.61, 0.02), "kl": (0.1, 0.01), "reward": (0.0, 0.05)}, "train longer or lower kl, because ppo has"),
        ({"gold": (0.63, 0.02), "reward": (0.0, 0.05)}, "compare on about 360 prompts instead of 100"),
        ({"gold": 0.9}, "compare on more prompts, because without standard errors"),
    ],
)  # fmt: skip
def test_advice_follows_from_the_numbers(tmp_path: Path, more: dict, advice: str) -> None:
    said = judge(tmp_path, sft=BASE | {"facts": (0.5, 0.02)}, ppo=GOOD | {"facts": (0.9, 0.01)} | more)
    assert said.advice.startswith("Next, ")
    assert advice in said.advice


def test_hacking_of_another_model_is_advised_on_too(tmp_path: Path) -> None:
    dpo = GOOD | {"gold": (0.4, 0.02)}
    assert (
        "raise beta in dpo (now 0.1) and collect more labels, because dpo's reward rose"
        in judge(tmp_path, sft=BASE, ppo=GOOD, dpo=dpo).advice
    )


@pytest.mark.parametrize(
    "settings", ['objective = "simpo"\nparams = { beta = 2.0 }', "params = { reference_free = true }"]
)
def test_no_beta_is_raised_where_there_is_no_reference(tmp_path: Path, settings: str) -> None:
    recipe = RECIPE.replace("params = { beta = 0.1 }", settings)
    dpo = GOOD | {"gold": (0.4, 0.02)}
    said = judge(tmp_path, recipe, sft=BASE, ppo=GOOD, dpo=dpo).advice
    assert "train less and collect more labels, because dpo's reward rose" in said


def test_advice_on_hacking_names_the_measured_peak(tmp_path: Path) -> None:
    points = [
        {"step": i, "kl": d * d, "gold": 0.6 + d * (0.2 - 0.2 * math.log(d or 1))} for i, d in enumerate(range(5))
    ]
    save(tmp_path / "eval/curves.json", {"series": [{"name": "one model", "kind": "rl", "points": points}]})
    assert judge(tmp_path, sft=BASE, ppo=GOOD | {"gold": (0.5, 0.02)}).advice.endswith("gold peaks near 1 nats.")


def test_collapsed_entropy_and_a_weak_reward_model_are_seen(tmp_path: Path) -> None:
    save_rows(tmp_path / "ppo/metrics.jsonl", [{"step": i, "policy/entropy": 2.0 * 0.8**i} for i in range(20)])
    assert "because in ppo entropy fell from 1.6 to 0.036 nats" in judge(tmp_path, sft=BASE, ppo=GOOD).advice
    (tmp_path / "ppo/metrics.jsonl").unlink()
    accuracy = {"value": 0.53, "stderr": 0.03, "n": 300}
    make_stage(tmp_path / "reward", "reward", 1.0, result={"accuracy": accuracy})
    assert (
        "reward puts only 53.0 ± 3.0 % of held-out pairs in the right order"
        in judge(tmp_path, sft=BASE, ppo=GOOD).advice
    )


def test_with_nothing_wrong_the_next_gain_is_named(tmp_path: Path) -> None:
    assert judge(tmp_path, sft=BASE, ppo=GOOD).advice.startswith("Nothing that was measured went wrong, so repeat")
    parts = {"facts": (0.9, 0.01), "compliance": (0.7, 0.01), "over_refusal": (0.01, 0.01)}
    said = judge(tmp_path, sft=BASE, ppo=GOOD | parts)
    assert "the largest room is in compliance (0.7)" in said.advice
    make_stage(tmp_path / "reward", "reward", 1.0, result={"accuracy": 0.7, "ceiling": 0.8})
    assert (
        "reward puts 70 % of pairs in the right order where 80 % can be reached"
        in judge(tmp_path, sft=BASE, ppo=GOOD).advice
    )
    save_rows(tmp_path / "ppo/metrics.jsonl", policy_rows(random.Random(1), 24))
    make_stage(tmp_path / "ppo", "policy", 1.0, result={"step": 24, "kl_budget": 20})
    assert "the held-out reward of ppo still rose at its last step" in judge(tmp_path, sft=BASE, ppo=GOOD).advice
    (tmp_path / "ppo/stage.json").unlink()
    (tmp_path / "ppo/metrics.jsonl").unlink()
    (tmp_path / "reward/stage.json").unlink()
    reward = judge(tmp_path, sft={"reward": (0.0, 0.05)}, ppo={"reward": (0.9, 0.05)})
    assert "nothing measured the truth" in reward.advice


# ----------------------------------------------------------------------------------------- runs without a comparison


def test_sft_alone(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 2.0, "eval/loss": 2.5}, {"step": 2, "loss": 1.5, "eval/loss": 1.75}]
    make_stage(tmp_path / "sft", "sft", 90.0)
    save_rows(tmp_path / "sft/metrics.jsonl", rows)
    said = judge(tmp_path, SFT)
    assert said.better == (
        "No comparison says yet whether a model got better, but the held-out loss of sft went from 2.5 to 1.75."
    )
    assert (
        said.price
        == "The price so far is 1.5 minutes of training, and what became of other abilities was not measured."
    )
    assert said.advice.startswith("Next, add an evaluate stage with a comparison, since")


def test_policy_without_a_comparison(tmp_path: Path) -> None:
    make_stage(tmp_path / "ppo", "policy", 30.0, result={"step": 24})
    save_rows(tmp_path / "ppo/metrics.jsonl", policy_rows(random.Random(1), 24))
    said = judge(tmp_path)
    assert "the held-out reward of ppo went from 0.310 ± 0.060 to 1.410 ± 0.060" in said.better
    assert (
        "30 seconds of training, 11 nats of KL on held-out prompts and answers of 55 tokens instead of 41" in said.price
    )
    assert said.advice.startswith("Next, run the evaluate stage")


def test_reward_model_alone_nothing_and_a_failed_stage(tmp_path: Path) -> None:
    said = judge(tmp_path)
    assert (said.better, said.price) == ("The run has no results yet.", "What it costs is not known yet.")
    make_stage(tmp_path / "reward", "reward", 1.0, result={"accuracy": {"value": 0.7, "stderr": 0.02, "n": 9}})
    assert "the reward model reward puts 70.0 ± 2.0 % of held-out pairs" in judge(tmp_path).better
    save(tmp_path / "ppo/stage.json", {"kind": "policy", "status": "failed"})
    assert judge(tmp_path, sft=BASE, ppo=GOOD).advice.startswith("Next, mend what made ppo fail")
    save(tmp_path / "ppo/stage.json", {"kind": "policy", "status": "interrupted"})
    assert judge(tmp_path).advice == "Next, let ppo finish: the same command goes on where it stopped."
