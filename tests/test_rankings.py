"""Rankings of several answers: the loss over all their comparisons, their way through a reward stage, how people agree."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_llama
from transformers import AutoModelForSequenceClassification

from accord.data.batch import Row, collate
from accord.data.dropped import Dropped
from accord.data.records import Message, Pair, Ranking, as_example, as_pair, as_ranking, to_row
from accord.data.sources import read
from accord.engine import Engine
from accord.errors import DataError
from accord.objectives.reward import all_pairs
from accord.outputs import Outputs, Roles
from accord.recipe import Optim, Source
from accord.recipe_file import parse
from accord.run import read_json, read_rows
from accord.stages import run as run_recipe
from accord.stages.reward_quality import agreement

PROMPT: list[Message] = [{"role": "user", "content": "What dims the lights?"}]


def ranking(texts: str, ranks: list[int]) -> Ranking:
    return Ranking(prompt=PROMPT, responses=list(texts), ranks=ranks)


def rows(ranks: list[int], lengths: list[int], seed: int) -> list[Row]:
    dice = np.random.default_rng(seed)
    share = 1 / sum(a < b for a in ranks for b in ranks)
    return [
        Row(dice.integers(2, 300, n).tolist(), [False] * n, {"rank": rank, "share": share})
        for rank, n in zip(ranks, lengths, strict=True)
    ]


RANKS = [[2, 1, 3, 4], [1, 2], [1, 1, 2], [3, 2, 1, 1, 2]]  # groups of any size, ties among them


def test_all_pairs_is_the_mean_over_each_ranking() -> None:
    groups = [rows(ranks, [3] * len(ranks), seed) for seed, ranks in enumerate(RANKS)]
    batch = collate(groups, pad=0)
    score = torch.randn(len(batch), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reward = score[:, 0].numpy()
    loss, right, at = 0.0, 0.0, 0
    for ranks in RANKS:
        pairs = [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]
        margins = [reward[at + i] - reward[at + j] for i, j in pairs]
        loss += sum(math.log1p(math.exp(-margin)) for margin in margins) / len(pairs)
        right += sum(margin > 0 for margin in margins) / len(pairs)
        at += len(ranks)
    found = all_pairs(Outputs({"reward": score}), batch)
    value, unit, weight = found.terms["bradley_terry"]
    assert (unit, weight) == ("group", 1.0)
    assert float(value) == pytest.approx(loss, rel=1e-6)
    assert float(found.metrics["accuracy"][0]) == pytest.approx(right)


def test_no_split_changes_the_gradient(engine: Engine) -> None:
    """Rankings of different sizes and lengths, one to a micro-batch or all in one."""
    groups = [rows(ranks, [4 + 3 * i + seed for i in range(len(ranks))], seed) for seed, ranks in enumerate(RANKS)]
    batch = collate(groups, pad=0)
    moved: list[dict[str, torch.Tensor]] = []
    for budget in (1, 60, 10_000):
        config = tiny_llama().config
        config.num_labels = 1
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        learner = engine.learner(Roles(scorer=model), Optim(name="sgd", lr=2.0**10, clip=0, micro_tokens=budget))
        engine.update(learner, batch, all_pairs, {})
        moved.append({name: weight.detach() - before[name] for name, weight in model.named_parameters()})
    for other in moved[1:]:
        for name, change in moved[0].items():
            torch.testing.assert_close(other[name], change, rtol=1e-4, atol=2e-5 * float(change.abs().max() + 1e-6))


def test_a_pair_is_a_ranking_of_two_and_a_ranking_has_a_best_and_a_worst() -> None:
    pair = Pair(prompt=PROMPT, chosen="a", rejected="b")
    assert as_ranking(pair, "") == ranking("ab", [1, 2])
    assert as_pair(ranking("xyz", [2, 3, 1]), "") == Pair(prompt=PROMPT, chosen="z", rejected="y")
    assert as_example(ranking("xyz", [2, 3, 1]), "").messages == [*PROMPT, {"role": "assistant", "content": "z"}]
    with pytest.raises(DataError, match="give rankings, or pairs without prob and weight"):
        as_ranking(Pair(prompt=PROMPT, chosen="a", rejected="b", prob=0.7), "data")


def test_agreement_counts_the_comparisons_that_were_made_twice() -> None:
    twice = [ranking("abc", [1, 2, 3]), ranking("abc", [1, 3, 2])]
    found = agreement([*twice, ranking("ade", [1, 2, 3])])  # the last is no second opinion
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3)
    assert agreement([ranking("abc", [1, 2, 3])]) is None
    assert agreement([ranking("aab", [1, 1, 2])]) is None  # the same comparison twice, by one person


def test_rankings_go_through_reward_and_preference_stages(tmp_path: Path, base: Path) -> None:
    data, held = tmp_path / "rankings.jsonl", tmp_path / "held.jsonl"
    made = [
        Ranking(prompt=[{"role": "user", "content": f"Question {i}?"}], responses=["One.", "Two!", "Three?"], ranks=[1, 3, 2])
        for i in range(12)
    ]  # fmt: skip
    tied = Ranking(prompt=PROMPT, responses=["a", "b"], ranks=[1, 1])
    data.write_text("".join(json.dumps(to_row(record)) + "\n" for record in [*made, tied]))
    held.write_text("".join(json.dumps(to_row(record)) + "\n" for record in made[:3] * 2))
    assert list(read(Source(source=str(data)), Dropped(), "test")) == [*made, tied]  # as written, so read
    optim = {"steps": 2, "batch_size": 4, "lr": 1e-3}
    recipe = parse({
        "name": "ranked",
        "stage": {
            "reward": {"kind": "reward", "model": str(base), "data": str(data), "eval_data": str(held), "optim": optim},
            "dpo": {"kind": "preference", "model": str(base), "data": {"source": str(data), "limit": 12}, "optim": optim},
        },
    })  # fmt: skip
    run = run_recipe(recipe, tmp_path / "run")
    record = read_json(run.path / "reward/stage.json")
    assert record["data"]["train"]["dropped"]["no_preference"]["count"] == 1  # pyright: ignore
    assert record["result"]["agreement"]["value"] == 1.0  # pyright: ignore
    assert record["result"]["ceiling"] == 1.0  # pyright: ignore
    scores = read_rows(run.path / "reward/scores.jsonl")
    assert len(scores) == 6 * len(list(combinations(range(3), 2)))
    right = [float(row["chosen"] > row["rejected"]) for row in scores]  # pyright: ignore
    assert record["result"]["accuracy"]["value"] == pytest.approx(np.mean(right))  # pyright: ignore
    assert read_json(run.path / "dpo/stage.json")["status"] == "done"
