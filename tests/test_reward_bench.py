"""Reward models on comparisons: the numbers are those of plain numpy and of RewardBench 2's own formulas."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs_data, scorer
from test_cli import Accord, accord  # noqa: F401  (a fixture)
from transformers import PreTrainedTokenizerFast

from accord.data.dropped import Dropped
from accord.data.turns import BadRow
from accord.recipe import Source
from accord.report import write_report
from accord.run import read_rows
from accord.stages.reward_bench import (
    Choice,
    Scored,
    bench,
    best,
    calibrated,
    correlation,
    ranked,
    read_choice,
    read_choices,
    ties,
)

ROW = {"id": "7", "prompt": "Which?", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Focus"}


def choice(
    values: list[float], at: int, *, right: int = 1, texts: list[str] | None = None, category: str = "", name: str = ""
) -> Scored:
    """A choice whose first answers are right."""
    ranks = [1] * right + [2] * (len(values) - right)
    said = texts or [f"answer {i}" for i in range(len(values))]
    of = Choice([{"role": "user", "content": str(at)}], said, ranks, at, category=category, name=name)
    return Scored(of, values)


def test_rows_in_the_form_of_reward_bench_2_pairs_and_rankings():
    found = read_choice(ROW, "here")
    assert (found.texts, found.ranks, found.category, found.name) == (["a", "b", "c", "d"], [1, 2, 2, 2], "Focus", "7")
    assert found.comparisons == [(0, 1), (0, 2), (0, 3)]
    pair = read_choice({"prompt": "Which?", "chosen": "a", "rejected": "b", "category": "x"}, "here")
    assert (pair.texts, pair.ranks, pair.category) == (["a", "b"], [1, 2], "x")
    mixed = read_choice({"prompt": "Which?", "chosen": "a", "rejected": ["b", "c"]}, "here")
    assert mixed.texts == ["a", "b", "c"]
    ranking = read_choice({"prompt": "Which?", "responses": ["a", "b", "c"], "ranks": [3, 1, 3]}, "here")
    assert ranking.comparisons == [(1, 0), (1, 2)]
    with pytest.raises(BadRow, match="compares nothing"):
        read_choice({"prompt": "Which?"}, "here")


def test_bad_rows_are_told_or_counted(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, ROW | {"rejected": [3]}, ROW)))
    with pytest.raises(BadRow, match=r"rows.jsonl:2.*rejected"):
        list(read_choices(Source(source=str(path)), Dropped(), "data"))
    dropped = Dropped()
    assert len(list(read_choices(Source(source=str(path), on_error="skip"), dropped, "data"))) == 2
    assert dropped.total == 1


def test_best_of_four_wants_the_right_answer_above_all_others():
    scored = [choice([2, 1, 0, 0], 0), choice([1, 2, 0, 0], 1), choice([1, 1, 0, 0], 2), choice([3, 1, 2, 0], 3)]
    found = bench(scored)
    assert found["best_of_4"].value == 0.5  # a tie at the top is no win
    assert found["best_of_4"].n == 4
    assert found["accuracy"].value == pytest.approx((3 + 2 + 2.5 + 3) / 12)
    hits = np.array([1.0, 0.0, 0.0, 1.0])
    assert found["best_of_4"].stderr == pytest.approx(hits.std(ddof=1) / 2)
    assert "ece" not in found
    assert best([]) is None


def test_a_reward_that_is_a_coin_has_a_quarter_of_four():
    dice = np.random.default_rng(0)
    found = bench([choice(dice.normal(size=4).tolist(), i) for i in range(4000)])
    assert found["best_of_4"].value == pytest.approx(0.25, abs=4 * found["best_of_4"].stderr)
    assert found["accuracy"].value == pytest.approx(0.5, abs=4 * found["accuracy"].stderr)


def test_accuracy_by_category_and_the_mean_over_them():
    scored = [choice([1, 0, 0], i, category="Focus") for i in range(3)]
    scored += [choice([0, 1, 2], 9, category="Safety/x"), choice([1, 0, 0], 10, category="Safety/x")]
    found = bench(scored)
    assert found["category/Focus"].value == 1.0
    assert found["best/Safety-x"].value == 0.5
    assert found["categories_mean"].value == 0.75
    assert found["best_of_3"].value == pytest.approx(4 / 5)


def official(rows: list[tuple[str, list[float], int]]) -> float:
    """RewardBench 2's score of the subset Ties, written down from process_single_model (allenai/reward-bench, run_v2.py)."""
    stats: dict[str, dict[str, tuple[bool, float, float]]] = {"ref": {}, "tied": {}}
    for name, values, right in rows:
        kind, question = name.split(":")
        good, bad = values[:right], values[right:]
        gap = min(good) - max(bad)
        stats[kind][question] = (gap > 0, max(good) - min(good), gap)
    both = sorted(set(stats["ref"]) & set(stats["tied"]))
    spread = np.array([stats["tied"][q][1] for q in both])
    tied, ref = (np.array([stats[kind][q][2] for q in both]) for kind in ("tied", "ref"))
    with np.errstate(all="ignore"):
        margin = np.nan_to_num(np.tanh(np.minimum(ref, tied) / spread - 1), nan=0.0).mean()
    accurate = [np.mean([found[0] for found in stats[kind].values()]) for kind in ("tied", "ref")]
    preferred, hard = np.mean(tied > spread), np.mean(np.minimum(ref, tied) > spread)
    return float(0.30 * accurate[0] + 0.30 * accurate[1] + 0.20 * preferred + 0.20 * hard + 0.01 * margin)


def test_ties_are_scored_as_the_authors_do():
    dice = np.random.default_rng(3)
    rows: list[tuple[str, list[float], int]] = []
    for question in range(30):
        right = int(dice.integers(2, 6))
        values = dice.normal(size=right + 3)
        values[:right] = 1.5 + 0.3 * values[:right]
        rows.append((f"tied:{question}", values.tolist(), right))
        rows.append((f"ref:{question}", [1.2, *dice.normal(size=3).tolist()], 1))
    rows[0] = ("tied:0", [1.0, 1.0, 0.0, 0.0], 2)  # no spread at all
    scored = [choice(v, i, right=right, category="Ties", name=name) for i, (name, v, right) in enumerate(rows)]
    found = ties(scored)["ties"]
    assert found is not None
    assert found.value == pytest.approx(official(rows))
    left = [official([row for row in rows if row[0].split(":")[1] != str(q)]) for q in range(30)]
    assert found.stderr == pytest.approx(np.sqrt(29 / 30 * ((np.array(left) - np.mean(left)) ** 2).sum()))
    assert "accuracy" not in bench(scored)  # which right answer is the higher one says nothing


def test_length_correlation_is_spearmans_and_its_error_covers():
    dice = np.random.default_rng(1)
    x = dice.normal(size=200)
    y = (x + dice.normal(size=200)).round(1)
    found = correlation(x, y, list(range(200)))
    ranks = [np.array([(v < w).sum() + ((v == w).sum() - 1) / 2 for w in v]) for v in (x, y)]
    assert np.allclose(ranked(y), ranks[1])
    assert found is not None
    assert found.value == pytest.approx(np.corrcoef(ranks[0], ranks[1])[0, 1])
    many = []
    for _ in range(200):
        of = dice.normal(size=200)
        again = correlation(of, of + dice.normal(size=200), list(range(200)))
        assert again
        many.append(again.value)
    assert found.stderr == pytest.approx(np.std(many), rel=0.2)
    assert correlation(np.ones(5), np.arange(5.0), list(range(5))) is None


def test_a_reward_that_counts_words_is_seen_through():
    texts = [["long " * (5 + i % 7), "short"] for i in range(20)] + [
        ["short", "long " * (5 + i % 7)] for i in range(20)
    ]
    scored = [choice([float(len(t.split())) for t in both], i, texts=both) for i, both in enumerate(texts)]
    found = bench(scored)
    assert found["length_correlation"].value == pytest.approx(1.0)
    assert found["accuracy_chosen_longer"].value == 1.0
    assert found["accuracy_chosen_shorter"].value == 0.0
    assert found["accuracy"].value == 0.5


def test_members_that_agree():
    members = [
        [[2.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]],
    ]
    scored = [Scored(choice([0, 0], i).choice, np.mean(m, axis=0).tolist(), m) for i, m in enumerate(members)]
    found = bench(scored)
    assert found["agreement"].value == pytest.approx(1 / 3)  # of three pairs of members one agrees, each time
    assert "accuracy_unanimous" not in found
    assert [found[f"accuracy_member_{k}"].value for k in range(3)] == pytest.approx([2 / 3, 1.0, 0.0])


def test_calibration_is_that_of_the_mean_raw_reward():
    margins = [0.2, 0.2, 2.0, 2.0, 2.0]
    signs = [1, -1, 1, 1, -1]
    scored = [
        Scored(choice([9, 9], i).choice, [9, 9], [[m * s, 0.0], [m * s, 0.0]])
        for i, (m, s) in enumerate(zip(margins, signs, strict=True))
    ]
    ece = calibrated(scored)["ece"]
    sure = 1 / (1 + np.exp(-np.array([0.2, 2.0])))
    assert isinstance(ece, dict)
    assert ece["value"] == pytest.approx(2 / 5 * abs(0.5 - sure[0]) + 3 / 5 * abs(2 / 3 - sure[1]))


@needs_data
@pytest.mark.parametrize(("split", "published"), [("helpful-base", 1399 / 2337), ("harmless-base", 1025 / 2301)])
def test_longer_wins_as_often_as_published(split: str, published: float):
    """Of pairs of unlike length, by the data's README; 13 and 9 rows there are no pairs of answers to one prompt."""
    source = Source(source=str(DATA / f"hh_rlhf/{split}.test.jsonl.gz"), on_error="skip")
    found = [Scored(one, [float(len(t)) for t in one.texts]) for one in read_choices(source, Dropped(), "data")]
    unlike = [one for one in found if len(set(one.values)) == 2]
    accuracy = bench(unlike)["accuracy"]
    assert accuracy.value == pytest.approx(published, abs=0.004)
    assert accuracy.stderr == pytest.approx((published * (1 - published) / accuracy.n) ** 0.5, rel=0.05)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random reward model of two members, as a stage leaves it."""
    stage = tmp_path_factory.mktemp("reward") / "judge"
    for name, seed in (("model", 1), ("model-1", 2)):
        made = scorer(seed)
        made.config.architectures = ["LlamaForSequenceClassification"]
        made.save_pretrained(stage / name)
        tokenizer.save_pretrained(stage / name)
    return stage


def test_a_report_of_a_reward_model(model: Path, tmp_path: Path, accord: Accord):  # noqa: F811
    rows = [{"id": str(i), "prompt": f"the cat {i}", "chosen": ["sat"], "rejected": ["no", "the dog", f"mat {i}"],
             "subset": "Focus" if i % 2 else "Math"} for i in range(12)]  # fmt: skip
    rows.append(rows[0] | {"chosen": ["the cat sat on the mat " * 40]})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = accord("score", model, tmp_path / "rows.jsonl", "--report", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "best_of_4" in said.out
    assert "left out, too_long: 1" in said.err
    out = tmp_path / "out"
    measured = json.loads((out / "results.json").read_text())["models"]["judge"]
    answers = read_rows(out / "answers.jsonl")
    assert len(answers) == 12
    rewards = np.array([row["rewards"] for row in answers], dtype=float)
    wins = rewards[:, 0] > rewards[:, 1:].max(1)
    assert measured["reward/best_of_4"]["value"] == pytest.approx(wins.mean())
    assert measured["reward/accuracy"]["n"] == 36
    assert {"reward/category/Math", "reward/best/Focus", "reward/agreement", "reward/ece"} <= set(measured)
    members = np.array([row["members"] for row in answers], dtype=float)  # [rows, members, texts]
    assert np.allclose(members.mean(1), rewards)  # no normalisation in these folders
    page = write_report(out).read_text()
    assert "Right as often as sure" in page
    assert "best of 4" in page
    assert accord("score", model, tmp_path / "rows.jsonl", "--report", "--out", out).code == 2
    assert accord("score", model, tmp_path / "rows.jsonl", "--out", tmp_path / "x").code == 2
    assert all(a["prompt"] != b["prompt"] for a, b in pairwise(answers))
