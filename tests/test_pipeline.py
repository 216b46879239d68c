"""One tiny recipe through every stage: what it leaves opens in plain transformers, and every number can be recounted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import accord.stages.fit
from accord.data.batch import Group
from accord.data.dropped import Dropped
from accord.data.records import Message, bucket, conversation
from accord.data.sources import read
from accord.errors import RecipeError
from accord.objectives.kl import adapted
from accord.recipe import RewardTerm, Source, Table
from accord.recipe_file import parse
from accord.run import Run, read_json, read_rows
from accord.sampler import Rollout
from accord.score import Score, combine, from_function, part_name
from accord.score.model import combine_members
from accord.stages import run as run_recipe
from accord.stages.fit import Step

HELD = {"source": "accord:demo/choose", "limit": 12}


def table(base: Path) -> Table:
    """Every kind of stage, as small as it goes."""
    few = {"schedule": "constant", "warmup": 0, "steps": 3, "batch_size": 8, "lr": 1e-3}
    pairs = {"source": "accord:demo/pairs", "limit": 40}
    return cast(Table, {
        "name": "tiny",
        "compute": {"device": "cpu", "precision": "float32", "threads": 1},
        "stage": {
            "sft": {"kind": "sft", "model": str(base), "data": {"source": "accord:demo/chats", "limit": 32},
                    "eval_data": 0.2, "optim": few},
            "reward": {"kind": "reward", "model": "@sft", "data": pairs, "eval_data": 0.3, "ensemble": 2, "folds": 2,
                       "optim": few},
            "chooser": {"kind": "reward", "model": "@sft", "data": pairs, "seed": 1, "optim": few},
            "ppo": {"kind": "policy", "model": "@sft", "data": {"source": "accord:demo/prompts", "limit": 16},
                    "eval_data": HELD, "eval": 1, "checkpoints": True,
                    "rewards": {"@reward": {"combine": "min"}}, "eval_rewards": {"@chooser": 1},
                    "params": {"kl_target": 0.5, "kl_horizon": 100, "kl_budget": 5, "critic_warmup": 1,
                               "critic_layers": 1},
                    "rollout": {"batch_size": 8, "group_size": 2, "max_new_tokens": 12},
                    "mix": {"data": [pairs, {"source": "accord:demo/text", "limit": 2}], "coef": 0.1, "batch_size": 3},
                    "optim": {**few, "lr": 1e-2}},
            "dpo": {"kind": "preference", "model": "@sft", "data": pairs, "eval_data": 0.3, "optim": few},
            "evaluate": {"kind": "evaluate", "models": {"sft": "@sft", "ppo": "@ppo"}, "data": HELD,
                         "rewards": {"@chooser": 1}, "suites": ["prompts", "demo"], "sampling": {"max_new_tokens": 12},
                         "curves": {"ppo": "@ppo"}, "best_of": 4},
        },
    })  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    return run_recipe(parse(table(base)), tmp_path_factory.mktemp("runs") / "tiny")


def metrics(run: Run, stage: str, key: str) -> list[float]:
    return [
        cast(float, row[key]) for row in read_rows(run.stage(stage).path / "metrics.jsonl") if row.get(key) is not None
    ]


# ------------------------------------------------------------------------------------------------------ model folders


@pytest.mark.parametrize("folder", ["sft/model", "ppo/model", "dpo/model"])
def test_policies_answer_in_plain_transformers(made: Run, folder: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(made.path / folder)
    tokenizer = AutoTokenizer.from_pretrained(made.path / folder)
    assert tokenizer.pad_token_id not in {None, tokenizer.eos_token_id}
    chat = [{"role": "user", "content": "Where does a carrot grow?"}]
    tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    answer = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=12)
    assert tokenizer.decode(tokens[0]) == "User: Where does a carrot grow?\nAssistant:"
    rows = read_rows(made.path / "evaluate/answers.jsonl")
    name = folder.partition("/")[0]
    if name in {"sft", "ppo"}:  # those that were evaluated: the greedy answers are those of plain generate
        row = next(r for r in rows if r["model"] == name and cast(dict[str, float], r["sampling"])["temperature"] == 0)
        prompt = cast(list[dict[str, str]], row["prompt"])
        tokens = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        answer = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=12)
        said = tokenizer.decode(answer[0, tokens.shape[1] :], skip_special_tokens=True).strip()
        assert said == row["response"]


@pytest.mark.parametrize("folder", ["reward/model", "reward/model-1", "chooser/model", "ppo/critic"])
def test_scorers_score_in_plain_transformers(made: Run, folder: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(made.path / folder)
    tokenizer = AutoTokenizer.from_pretrained(made.path / folder)
    chat = [{"role": "user", "content": "Where does a carrot grow?"}, {"role": "assistant", "content": "In a field."}]
    tokens = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)
    assert model(tokens).logits.shape == (1, 1)


def test_the_scores_of_held_out_pairs_are_plain_rewards(made: Run) -> None:
    folder = made.stage("reward").path
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.padding_side = "right"
    pairs = list(read(Source(source="accord:demo/pairs", limit=40), Dropped(), "test"))
    held = [pair for pair in pairs if bucket(pair, 10_000) < 3000]
    rows = read_rows(folder / "scores.jsonl")
    assert len(rows) == len(held) > 3
    chats = [[*conversation(pair), {"role": "assistant", "content": pair.chosen}] for pair in held]  # pyright: ignore
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    given = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    expected = model(**given).logits[:, 0].tolist()
    assert [row["chosen"] for row in rows] == pytest.approx(expected, rel=1e-4, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------ numbers


def test_accuracies_can_be_recounted(made: Run) -> None:
    folder = made.stage("reward")
    result = cast(dict[str, dict[str, float]], folder.record["result"])
    members = [read_rows(folder.path / name) for name in ("scores.jsonl", "scores-member-1.jsonl")]
    margins = [
        sum(cast(float, row["chosen"]) - cast(float, row["rejected"]) for row in rows)
        for rows in zip(*members, strict=True)
    ]
    assert result["accuracy"]["value"] == pytest.approx(np.mean([margin > 0 for margin in margins]))
    folds = [read_rows(folder.path / f"scores-fold-{k}.jsonl") for k in range(2)]
    assert result["folds"]["n"] == sum(map(len, folds)) == 40 - len(members[0])  # every training pair once
    right = [cast(float, row["chosen"]) > cast(float, row["rejected"]) for rows in folds for row in rows]
    assert result["folds"]["value"] == pytest.approx(np.mean(right))


def test_the_kept_checkpoint_is_the_best_within_the_budget(made: Run) -> None:
    rows = [row for row in read_rows(made.path / "ppo/metrics.jsonl") if "eval/reward" in row]
    allowed = [row for row in rows if cast(float, row["eval/kl"]) <= 5]
    best = max(allowed, key=lambda row: cast(float, row["eval/reward"]))
    result = cast(dict[str, float], made.stage("ppo").record["result"])
    assert (result["step"], result["reward"]) == (best["step"], best["eval/reward"])
    assert rows[0]["step"] == 0
    assert rows[0]["eval/kl"] == pytest.approx(0, abs=1e-6)


def test_policy_metrics_are_complete(made: Run) -> None:
    wanted = {
        "loss", "lr", "grad_norm", "tokens_per_second", "seconds", "reward/mean", "reward/reward", "kl/mean", "kl/beta",
        "policy/clip_fraction", "policy/entropy", "value/loss", "value/explained_variance", "rollout/length",
        "rollout/finished", "sampler/mismatch", "time/rollout", "time/score", "time/prepare", "time/update",
    }  # fmt: skip
    assert wanted <= set(read_rows(made.path / "ppo/metrics.jsonl")[-1])
    assert len(metrics(made, "ppo", "mix/loss")) == 2  # not while the critic warms up
    assert max(metrics(made, "ppo", "sampler/mismatch")) < 1e-4
    assert metrics(made, "ppo", "kl/mean")[:2] == pytest.approx(
        [0, 0], abs=1e-4
    )  # the policy rests while the critic warms up


def test_a_critic_learns_in_its_upper_layers_alone(made: Run) -> None:
    """Of two layers the second, with the norm and the head above it."""
    start, critic = (load_file(made.path / folder / "model.safetensors") for folder in ("reward/model", "ppo/critic"))
    changed = {name for name, weight in critic.items() if not torch.equal(weight, start[name])}
    assert changed == {name for name in start if name.startswith(("model.layers.1.", "model.norm", "score"))}


def test_beta_follows_its_target(made: Run) -> None:
    kl, beta = metrics(made, "ppo", "kl/mean"), metrics(made, "ppo", "kl/beta")
    for i in range(len(beta) - 1):
        error = min(max(kl[i] / 0.5 - 1, -0.2), 0.2)
        assert beta[i + 1] == pytest.approx(beta[i] * (1 + error * 8 / 100))
    assert adapted(2.0, 6.0, target=6.0, horizon=10_000, rollouts=64) == 2
    assert adapted(2.0, 60.0, target=6.0, horizon=10_000, rollouts=64) == pytest.approx(2 * (1 + 0.2 * 64 / 10_000))


def test_results_can_be_recounted_from_the_answers(made: Run) -> None:
    results = json.loads((made.path / "evaluate/results.json").read_text())
    rows = read_rows(made.path / "evaluate/answers.jsonl")
    reward: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        greedy = cast(dict[str, float], row["sampling"])["temperature"] == 0
        key = (str(row["model"]), f"{row['suite']}{'@greedy' if greedy else ''}")
        prompt = json.dumps(row["prompt"])
        reward.setdefault(key, {})[prompt] = cast(dict[str, float], row["scores"])["reward"]
    assert results["baseline"] == "sft"
    for (model, label), values in reward.items():
        found = results["models"][model]
        assert found[f"{label}/reward"]["value"] == pytest.approx(np.mean(list(values.values())))
        theirs = reward["sft", label]
        wins = [0.5 if value == theirs[prompt] else float(value > theirs[prompt]) for prompt, value in values.items()]
        if model != "sft":
            assert found[f"{label}/win_rate"]["value"] == pytest.approx(np.mean(wins))
        assert ("demo" in label) == (f"{label}/gold" in found)
    assert set(results["models"]["ppo"]) >= {
        f"prompts{way}/{metric}" for way in ("", "@greedy") for metric in ("length", "finished", "kl", "win_rate")
    } | {"prompts/perplexity"}
    assert all(
        entry.keys() == {"value", "stderr", "n"} for found in results["models"].values() for entry in found.values()
    )


def test_perplexity_is_that_of_plain_transformers(made: Run) -> None:
    results = json.loads((made.path / "evaluate/results.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(made.path / "sft/model")
    tokenizer = AutoTokenizer.from_pretrained(made.path / "sft/model")
    nll = tokens = 0.0
    for record in read(Source(source="accord:demo/choose", limit=12), Dropped(), "test"):
        chat: list[Message] = record.messages  # pyright: ignore[reportAttributeAccessIssue]
        start = len(tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False))
        whole = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)
        logp = model(whole).logits.log_softmax(-1)[0, :-1].gather(1, whole[0, 1:, None])[start - 1 :, 0]
        nll, tokens = nll - logp.sum().item(), tokens + len(logp)
    assert results["models"]["sft"]["prompts/perplexity"]["value"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- scores


def rollout(text: str, group: int = 0) -> Rollout:
    return Rollout(prompt=[], text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop", group=group)


def test_members_combine_as_in_the_paper() -> None:
    values = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 6.0]])
    assert combine_members(values, RewardTerm(combine="mean")).tolist() == [2, 2]
    assert combine_members(values, RewardTerm(combine="min")).tolist() == [1, 0]
    uwo = combine_members(values, RewardTerm(combine="uwo", penalty=0.5))
    assert uwo.tolist() == pytest.approx([2 - 0.5 * 2 / 3, 2 - 0.5 * 8])


def disjoint(base: Path, **fields: object) -> Table:
    return cast(Table, {
        **table(base),
        "stage": {"reward": {"kind": "reward", "model": str(base), "data": {"source": "accord:demo/pairs", "limit": 40},
                             "disjoint": True, **fields}},
    })  # fmt: skip


def test_members_of_a_disjoint_ensemble_share_no_prompt(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[set[tuple[int, ...]]] = []

    def note(groups: list[Group], *others: object, **named: object) -> Iterator[Step]:
        learnt.append({tuple(row.tokens[: row.train.index(True)]) for group in groups for row in group})
        return steps(groups, *others, **named)  # type: ignore[arg-type]

    steps = accord.stages.fit.steps
    monkeypatch.setattr("accord.stages.fit.steps", note)
    for size in (2, 1):
        run_recipe(parse(disjoint(base, ensemble=size, optim={"steps": 1})), tmp_path / str(size))
    first, second, every = learnt
    assert first
    assert second
    assert not first & second
    assert first | second == every


def test_an_evaluation_beyond_the_last_step_is_at_the_end_alone(base: Path, tmp_path: Path) -> None:
    for name, every in (("end", 100), ("each", 2)):
        made = run_recipe(parse(disjoint(base, eval=every, eval_data=0.3, optim={"steps": 2})), tmp_path / name)
        steps = [row["step"] for row in read_rows(made.stage("reward").path / "metrics.jsonl") if "eval/loss" in row]
        assert steps == ([2] if name == "end" else [0, 2])


def test_too_few_prompts_for_a_disjoint_ensemble_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stage.reward.disjoint: the 40 records of data leave member \d+ nothing"):
        run_recipe(parse(disjoint(base, ensemble=500)), tmp_path / "many")


def test_functions_score_one_answer_or_a_whole_group(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def words(rollout):\n    return len(rollout.text.split()) or float('nan')\n"
        "def rank(rollouts):\n    return [sorted(r.text for r in rollouts).index(x.text) for x in rollouts]\n"
    )
    scorer = combine(
        {f"{file}:words": RewardTerm(weight=2.0), f"{file}:rank": RewardTerm(weight=0.5)},
        lambda name, term: pytest.fail("no model is named"),
        "test",
    )
    found = scorer([rollout("b c", 0), rollout("z", 1), rollout("a", 0), rollout("", 1)])
    assert [score.parts for score in found[:3]] == [
        {"words": 2, "rank": 1},
        {"words": 1, "rank": 1},
        {"words": 1, "rank": 0},
    ]
    assert [score.value for score in found[:3]] == [4.5, 2.5, 2.0]
    assert math.isnan(found[3].value)  # one part not scored: the whole is not
    assert from_function(f"{file}:words", "test")([rollout("a b c")]) == [Score(3.0)]
    assert [part_name(name) for name in ("@reward", "a/my.py:f", "runs/x/judge/model")] == ["reward", "f", "judge"]


def test_a_run_says_what_it_ran_on(made: Run) -> None:
    record = read_json(made.path / "run.json")
    assert record["status"] == "done"
    assert {"versions", "hardware", "seed", "threads", "precision", "seconds"} <= set(record)


def test_curves_hold_every_checkpoint_and_best_of_n(made: Run) -> None:
    rl, best = cast(list[dict[str, list[dict[str, float]]]], read_json(made.path / "evaluate/curves.json")["series"])
    assert [point["step"] for point in rl["points"]] == [0, 1, 2, 3]
    assert rl["points"][0]["kl"] == 0  # the policy as it came in
    assert [point["n"] for point in best["points"]] == [1, 2, 4]
    assert [point["kl"] for point in best["points"]] == pytest.approx([0, math.log(2) - 1 / 2, math.log(4) - 3 / 4])
    proxy = [cast("dict[str, float]", point["proxy"])["value"] for point in best["points"]]
    assert proxy == sorted(proxy)  # more to choose from is never worse by what chooses
    assert all({"value", "stderr", "n"} == set(cast("dict[str, float]", p["gold"])) for p in rl["points"])
