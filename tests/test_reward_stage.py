"""Reward stages on a preference that is easy to see: every objective learns it, and what they leave can be recounted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from accord.data import chat
from accord.data.batch import Row, collate
from accord.data.records import Message
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Engine
from accord.errors import DataError, ModelError, RecipeError
from accord.model import load_policy, load_scorer
from accord.outputs import Roles, pooling
from accord.recipe import Compute, RewardTerm, Table
from accord.recipe_file import parse
from accord.run import StageFolder, read_json, read_rows
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler
from accord.score import combine
from accord.score.model import RewardModel, as_critic, open_reward
from accord.score.training_range import load_range
from accord.stages import check, run
from accord.stages.export import merged

pytestmark = pytest.mark.usefixtures("fresh")
THINGS = ["cat", "dog", "mat", "user", "question", "answer", "number", "sign"]
ASKS = ["where is the {}?", "and the {}?", "who has the {}?", "hello, a {}", "looked at the {}", "the {} and the dog"]
GOOD, FAIR, BAD, POOR = "the {} is there, it can help you", "numbers and signs 0 1 2", "no : ; ' ! ?", "no ( ) , ."


def judged(kind: str) -> Iterator[dict[str, Any]]:
    """Rows of one kind: a helpful answer is better than numbers, and numbers than signs."""
    for at, (ask, thing) in enumerate((ask, thing) for ask in ASKS for thing in THINGS):
        prompt, good = ask.format(thing), GOOD.format(thing)
        if kind == "pairs":
            yield {
                "prompt": prompt,
                "chosen": good,
                "rejected": (FAIR, BAD)[at % 2],
                "margin": 0.5,
                "source": "ab"[at % 2],
            }
        elif kind in {"rankings", "best"}:
            ranks = [2, 1, 3, 3] if kind == "rankings" else [2, 1, 2, 2]
            yield {"prompt": prompt, "responses": [FAIR, good, BAD, POOR], "ranks": ranks}
        else:
            for text, label in ((good, 2.0), (FAIR, 0.5), (BAD, -1.0)):
                yield {"prompt": prompt, "response": text, "label": label}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


COMPUTE = {"device": "cpu", "precision": "float32", "threads": 1}


def recipe(base: Path, data: str, **settings: object) -> Table:
    """A recipe of one reward stage."""
    optim = {"lr": 3e-3, "batch_size": 8, "steps": 24, "schedule": "constant"}
    stage = {"kind": "reward", "model": str(base), "data": data, "eval_data": 0.3, "optim": optim, **settings}
    return cast(Table, {"name": "r", "compute": COMPUTE, "stage": {"it": stage}})


def fitted(folder: Path, base: Path, data: str, **settings: object) -> StageFolder:
    """A reward stage, run through."""
    return run(parse(recipe(base, data, **settings)), folder / "run").stage("it")


def result(stage: StageFolder) -> dict[str, Any]:
    return cast(dict[str, Any], stage.record["result"])


OWN = """
from accord.objectives import Loss, objective

@objective(outputs=["reward"])
def hinge(out, batch, *, least):
    chosen, rejected = batch.pairs(out.reward)
    return Loss({"hinge": ((least - chosen + rejected).clamp(min=0).sum(), "pair", 1.0)})
"""
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "pairs": ("pairs", {"params": {"margin": True, "centre": 0.01, "label_smoothing": 0.05}}),
    "rankings": ("rankings", {"params": {"ties": True}}),
    "split": ("rankings", {"params": {"ties": True}, "split_rankings": True}),
    "plackett_luce": ("rankings", {"objective": "plackett_luce"}),
    "best_of_k": ("best", {"objective": "best_of_k"}),
    "regression": ("ratings", {"objective": "regression"}),
    "own": ("pairs", {"objective": "own.py:hinge", "params": {"least": 1.0}}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_objective_learns(way: str, tmp_path: Path, base: Path) -> None:
    kind, settings = WAYS[way]
    (tmp_path / "own.py").write_text(OWN)
    if way == "own":
        settings = {**settings, "objective": f"{tmp_path}/own.py:hinge"}
    stage = fitted(tmp_path, base, write(tmp_path / "rows.jsonl", judged(kind)), **settings)
    found = result(stage)
    assert found["accuracy"]["value"] > 0.9
    rows = read_rows(stage.path / "scores.jsonl")
    compared = [row for row in rows if "chosen" in row]
    right = [cast(float, row["chosen"]) > cast(float, row["rejected"]) for row in compared]
    assert found["accuracy"]["value"] == pytest.approx(np.mean(right))
    if way == "regression":
        errors = [(cast(float, r["reward"]) - cast(float, r["label"])) ** 2 for r in rows if "label" in r]
        assert found["mse"]["value"] == pytest.approx(np.mean(errors))
        assert found["mse"]["value"] < 0.5  # of labels with a variance of 1.5


def test_a_split_ranking_is_as_many_elements_of_the_batch_as_it_has_comparisons(tmp_path: Path, base: Path) -> None:
    """Four answers, the last two tied: five comparisons that are decided, one that is not."""
    data = write(tmp_path / "rows.jsonl", list(judged("rankings"))[:8])
    optim = {"steps": 1, "batch_size": 4}
    counts: dict[bool, int] = {}
    for ties in (False, True):
        stage = fitted(
            tmp_path / str(ties), base, data, split_rankings=True, params={"ties": ties}, optim=optim, eval_data=data
        )
        split = cast(dict[str, Any], stage.record["data"])
        counts[ties] = split["train"]["kept"]
        assert split["eval"]["kept"] == 8 * 5  # nobody can be right about a tie
    assert counts == {False: 8 * 5, True: 8 * 6}


def plain_rewards(folder: Path, row: dict[str, Any], text: str, *, mean: bool) -> float:
    """The reward of an answer in plain transformers: the head on the answer's hidden states, averaged, or on the last."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    asked = tokenizer.encode(f"User: {row['prompt']}\nAssistant:", add_special_tokens=False)
    said = tokenizer.encode(f" {text}{tokenizer.eos_token}", add_special_tokens=False)
    with torch.no_grad():
        hidden = model.model(torch.tensor([asked + said])).last_hidden_state
        scores = model.score(hidden)[0, :, 0]
    return float(scores[len(asked) :].mean() if mean else scores[-1])


def test_mean_pooling_is_read_by_whoever_opens_the_folder(tmp_path: Path, base: Path) -> None:
    rows = list(judged("pairs"))
    data = write(tmp_path / "rows.jsonl", rows)
    stage = fitted(tmp_path, base, data, pooling="mean", eval_data=data)
    first = read_rows(stage.path / "scores.jsonl")[0]
    raw = plain_rewards(stage.model, rows[0], rows[0]["chosen"], mean=True)
    assert first["chosen"] == pytest.approx(raw, rel=1e-4, abs=1e-5)
    assert first["chosen"] != pytest.approx(
        plain_rewards(stage.model, rows[0], rows[0]["chosen"], mean=False), rel=1e-2
    )
    config = read_json(stage.model / "config.json")
    assert config["reward_pooling"] == "mean"

    tokenizer, told = load_tokenizer(stage.model, "test"), answered(stage, rows[0]["prompt"], rows[0]["chosen"])
    expected = (raw - cast(float, config["reward_mean"])) / cast(float, config["reward_std"])
    engine = Engine(Compute(device="cpu", precision="float32"))
    for own in (tokenizer, None):  # the tokens as they were sampled, or the text tokenised anew
        reward = open_reward([str(stage.model)], RewardTerm(), engine, micro_tokens=512, where="test", tokenizer=own)
        assert reward([told])[0].value == pytest.approx(expected, rel=1e-4, abs=1e-5)

    again = fitted(tmp_path / "again", stage.model, data, optim={"steps": 1, "lr": 1e-6})
    assert read_json(again.model / "config.json")["reward_pooling"] == "mean"  # as it came in
    critic = load_scorer(stage.model, tokenizer, "test", seed=None)
    as_critic(critic)
    assert pooling(critic) == "last"


# --------------------------------------------------------------------------------------------------------------- scale


def scores(stage: StageFolder, rollouts: list[Rollout]) -> list[float]:
    """What the scorer of a policy stage thinks of answers."""
    tokenizer = load_tokenizer(stage.model, "test")
    engine = Engine(Compute(device="cpu", precision="float32"))
    reward = open_reward([str(stage.model)], RewardTerm(), engine, micro_tokens=512, where="test", tokenizer=tokenizer)
    return [score.value for score in reward(rollouts)]


def answered(stage: StageFolder, prompt: str, text: str) -> Rollout:
    """An answer that was not sampled."""
    tokenizer = load_tokenizer(stage.model, "test")
    messages: list[Message] = [{"role": "user", "content": prompt}]
    said = tokenizer.encode(f" {text}{tokenizer.eos_token}", add_special_tokens=False)
    return Rollout(
        prompt=messages, text=text, prompt_tokens=chat.prompts(tokenizer, [messages])[0], tokens=said, logp=[],
        finish="stop",
    )  # fmt: skip


def test_demonstrations_score_zero_and_training_rows_spread_by_one(tmp_path: Path, base: Path) -> None:
    rows = list(judged("pairs"))
    shown = [{"prompt": row["prompt"], "completion": FAIR} for row in rows[:20]]
    chats = write(tmp_path / "shown.jsonl", shown)
    data = write(tmp_path / "rows.jsonl", rows)
    stage = fitted(tmp_path, base, data, eval_data=data, normalise={"on": "demonstrations", "data": chats})
    assert np.mean(scores(stage, [answered(stage, row["prompt"], FAIR) for row in rows[:20]])) == pytest.approx(
        0, abs=1e-4
    )
    trained = [answered(stage, row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    assert np.std(scores(stage, trained)) == pytest.approx(1, rel=1e-4)


def test_samples_have_mean_zero_and_variance_one(tmp_path: Path, base: Path) -> None:
    rows = list(judged("pairs"))[:24]
    data = write(tmp_path / "rows.jsonl", rows)
    said = {"on": "samples", "max_new_tokens": 6, "temperature": 0.8}
    stage = fitted(tmp_path, base, data, eval_data=data, normalise=said, optim={"steps": 2, "lr": 1e-3})
    tokenizer = load_tokenizer(base, "test")
    prompts: list[list[Message]] = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    both = list(zip(prompts, chat.prompts(tokenizer, prompts), strict=True)) * 11  # of which 256 answers are taken
    asks = [Ask(prompt=prompt, tokens=tokens, number=i) for i, (prompt, tokens) in enumerate(both[:256])]
    sampler = LocalSampler(load_policy(base, tokenizer, "test"), tokenizer, stop_ids(tokenizer, base))
    found = scores(stage, sampler.generate(asks, max_new_tokens=6, temperature=0.8, seed=4))
    assert (np.mean(found), np.std(found)) == (pytest.approx(0, abs=1e-3), pytest.approx(1, rel=1e-3))


# -------------------------------------------------------------------------------------------------------------- range


@pytest.mark.parametrize("held", [0.3, None])
def test_answers_unlike_those_of_training_are_outside_and_charged(
    tmp_path: Path, base: Path, held: float | None
) -> None:
    rows = [*judged("pairs"), *({**row, "prompt": "Now, " + row["prompt"]} for row in judged("pairs"))]
    data = write(tmp_path / "rows.jsonl", rows)
    stage = fitted(tmp_path, base, data, eval_data=held, training_range=True, ensemble=2)
    tokenizer = load_tokenizer(stage.model, "test")
    engine = Engine(Compute(device="cpu", precision="float32"))
    known = [answered(stage, row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    strange = [answered(stage, row["prompt"], "cat cat dog mat mat mat 9 9 9 9 9 hello") for row in rows[:16]]

    def opened(**term: float) -> RewardModel:
        said, folders = RewardTerm(**term), [str(path) for path in stage.members()]
        return open_reward(folders, said, engine, micro_tokens=2048, where="test", tokenizer=tokenizer)

    assert np.mean([score.parts["outside"] for score in opened()(known)]) < 0.1
    free, charged = opened()(strange), opened(outside=0.5)(strange)
    assert np.mean([score.parts["outside"] for score in free]) > 0.9
    for one, other in zip(free, charged, strict=True):
        assert other.value == pytest.approx(one.value - 0.5 * one.parts["outside"], rel=1e-5)

    whole = combine({"@reward": RewardTerm(), "@other": RewardTerm()}, lambda *_: opened(), "test")(strange[:2])
    assert whole[0].parts.keys() == {"reward", "other", "spread", "outside"}
    assert whole[0].parts["outside"] == free[0].parts["outside"]

    merged(str(stage.model), tmp_path / "merged")
    kept, exported = load_range(str(stage.model)), load_range(str(tmp_path / "merged"))
    assert kept is not None
    assert exported is not None
    assert (exported.limit, exported.mean.tolist()) == (kept.limit, kept.mean.tolist())

    # The folder opens as it did, and the feature is what the head of the plain model reads.
    plain = AutoModelForSequenceClassification.from_pretrained(stage.model)
    tokens = torch.tensor([strange[0].prompt_tokens + strange[0].tokens])
    with torch.no_grad():
        last, value = plain.model(tokens).last_hidden_state[:, -1], float(plain(tokens).logits[0, 0])
    row = Row(tokens[0].tolist(), [False] * tokens.shape[1])
    other = Row([*strange[0].prompt_tokens, 5, 6, 1], [False] * (len(strange[0].prompt_tokens) + 3))
    roles = Roles(scorer=load_scorer(stage.model, tokenizer, "test", seed=None))
    for groups in ([[row]], [[other, row]]):  # alone, or with a neighbour whose prompt it shares
        batch = collate(groups, 0)
        out = engine.outputs(roles, batch, ["reward", "feature"], micro_tokens=512)
        torch.testing.assert_close(out.feature[-1:], last, rtol=1e-4, atol=1e-5)
        assert out.reward[-1].item() == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_a_policy_stage_logs_the_share_outside(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "rows.jsonl", judged("pairs"))
    stage = fitted(tmp_path / "reward", base, data, training_range=True, ensemble=2)
    policy = {
        "kind": "policy", "model": str(base), "data": data, "rewards": {str(stage.model): {"outside": 0.5}},
        "rollout": {"batch_size": 8, "max_new_tokens": 8}, "optim": {"steps": 2, "batch_size": 8},
    }  # fmt: skip
    made = run(parse(cast(Table, {"name": "p", "compute": COMPUTE, "stage": {"it": policy}})), tmp_path / "policy")
    for row in read_rows(made.stage("it").path / "metrics.jsonl"):
        assert 0 <= cast(float, row["reward/outside"]) <= 1
        assert cast(float, row["reward/spread"]) > 0


def test_nothing_is_charged_without_a_training_range(tmp_path: Path, base: Path) -> None:
    data = write(tmp_path / "rows.jsonl", judged("pairs"))
    stage = fitted(tmp_path, base, data, optim={"steps": 1})
    engine = Engine(Compute(device="cpu", precision="float32"))
    reward = open_reward([str(stage.model)], RewardTerm(), engine, micro_tokens=512, where="test")
    assert reward([answered(stage, "hello", "hi")])[0].parts == {}
    with pytest.raises(ModelError, match=r"^test\.outside: .* keeps no training range; set training_range = true"):
        open_reward([str(stage.model)], RewardTerm(outside=1), engine, micro_tokens=512, where="test")


# ------------------------------------------------------------------------------------------------------ held-out pairs


def test_what_a_stage_says_of_its_held_out_pairs(tmp_path: Path, base: Path) -> None:
    rows = [*judged("pairs"), *({**row, "prompt": "Now, " + row["prompt"]} for row in judged("pairs"))]
    data = write(tmp_path / "rows.jsonl", rows)
    stage = fitted(tmp_path, base, data, ensemble=2, learning_curve=[0.25, 0.5], optim={"lr": 2e-3, "batch_size": 8})
    found = result(stage)
    members = [read_rows(stage.path / name) for name in ("scores.jsonl", "scores-member-1.jsonl")]
    assert set(found["sources"]) == {"a", "b"}
    of_a = [sum(cast(float, r["chosen"]) - cast(float, r["rejected"]) for r in both) for both in zip(*members, strict=True)
            if both[0]["source"] == "a"]  # fmt: skip
    assert found["sources"]["a"]["value"] == pytest.approx(np.mean(np.array(of_a) > 0))
    assert found["sources"]["a"]["n"] == len(of_a)
    for rows, told in zip(members, found["members"], strict=True):
        margins = np.array([cast(float, row["chosen"]) - cast(float, row["rejected"]) for row in rows])
        assert told["value"] == pytest.approx(np.mean(margins > 0))
        assert sum(point["n"] for point in told["reliability"]) == len(margins) == told["ece"]["n"]
    assert found["accuracy"]["n"] == sum(point["n"] for point in found["reliability"])

    points = found["learning_curve"]["points"]
    kept = cast(dict[str, Any], stage.record["data"])["train"]["kept"]
    assert 0 < points[0]["labels"] < points[1]["labels"] < points[2]["labels"] == kept
    assert points[2]["value"] == found["members"][0]["value"]
    for point, share in zip(points, ("share-0", "share-1"), strict=False):
        right = [
            cast(float, r["chosen"]) > cast(float, r["rejected"])
            for r in read_rows(stage.path / f"scores-{share}.jsonl")
        ]
        assert (point["value"], point["n"]) == (pytest.approx(np.mean(right)), found["accuracy"]["n"])
    assert found["more_labels"].endswith(".")
    assert not (stage.path / "model-2").exists()  # shares leave no models


def test_a_stage_that_is_judged_by_what_it_learned_says_so(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", judged("rankings"))
    stage = fitted(tmp_path, base, data, eval_data=data)
    assert result(stage)["accuracy"]["n"] == 48 * 5
    assert result(stage)["warning"].startswith(
        "Suspect: accuracy 1.000 ± 0.000 on 240 comparisons is too good to be true"
    )
    assert f"it         {result(stage)['warning']}" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ mistakes

SOFT = {"prompt": "hello", "chosen": "hi", "rejected": "no", "prob": 0.7}
PAIR = {"prompt": "hello", "chosen": "hi", "rejected": "no"}
RANKED = {"prompt": "hello", "responses": ["hi", "no"], "ranks": [1, 2]}
RATED = {"prompt": "hello", "response": "hi", "label": True}


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [(SOFT, {"objective": "plackett_luce"}, "a Pair does not go with rankings; give rankings, or pairs without prob and"),
     (RATED, {"objective": "best_of_k"}, "a Rating does not go with rankings"),
     (SOFT, {"objective": "regression"}, "a Pair does not go with ratings; give rows with prompt, response and label, or"),
     (RATED, {}, "a Rating is no preference"),
     (PAIR, {"params": {"margin": True}}, "params.margin asks for a margin, and there is a pair without one; give every"),
     (RANKED, {"params": {"margin": True}}, "params.margin asks for a margin, and there is a ranking without one")],
)  # fmt: skip
def test_records_that_an_objective_cannot_read(
    row: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path, base: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError) as caught:
        check.inspect(parse(recipe(base, data, eval_data=data, **settings)))
    assert str(caught.value).startswith(f"stage.it.data: {message}")


def test_params_that_a_function_does_not_take(tmp_path: Path, base: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    data = write(tmp_path / "rows.jsonl", judged("pairs"))
    for params, message in (({"most": 1}, "has no such parameter"), ({}, "needs it")):
        with pytest.raises(RecipeError, match=message):
            check.inspect(parse(recipe(base, data, objective=f"{tmp_path}/own.py:hinge", params=params)))
