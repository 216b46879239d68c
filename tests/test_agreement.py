"""Agreement against published figures, people's ratings against numbers counted by hand."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA

from accord.errors import DataError
from accord.estimate import Estimate
from accord.feedback.agreement import bootstrap, cohen_kappa, fleiss_kappa, krippendorff_alpha, raw_agreement
from accord.feedback.ratings import agreement, columns, games

NAN = math.nan


def data(name: str) -> Path:
    """A file of the shared data; the test is skipped where it is absent."""
    if not (path := DATA / name).exists():
        pytest.skip(f"../shared/data/{name} is absent")
    return path


def lines(name: str) -> list[dict[str, object]]:
    """The rows of a shared file."""
    path = data(name)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as text:
        return [json.loads(line) for line in text]


@pytest.mark.parametrize(
    ("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorffs_own_example(level: str, expected: float) -> None:
    # Krippendorff 2011, section C: four observers, twelve units, labels missing.
    ratings = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
    assert krippendorff_alpha(ratings, level) == pytest.approx(expected, abs=5e-4)  # type: ignore[arg-type]
    assert krippendorff_alpha(np.array(ratings), level) == krippendorff_alpha(ratings, level)  # type: ignore[arg-type]


def test_krippendorffs_example_from_its_file() -> None:
    with data("agreement/krippendorff_2011.csv").open() as text:
        rows = list(csv.DictReader(text))
    items, people = sorted({int(r["item"]) for r in rows}), sorted({r["annotator"] for r in rows})
    table = np.full((len(people), len(items)), NAN)
    for row in rows:
        table[people.index(row["annotator"]), items.index(int(row["item"]))] = float(row["label"])
    found = [krippendorff_alpha(table, level) for level in ("nominal", "ordinal", "interval", "ratio")]
    assert found == pytest.approx([0.7434, 0.8154, 0.8491, 0.7974], abs=5e-5)


def test_pandalm() -> None:
    rows = lines("pandalm/testset-v1.jsonl")
    people = [[row[f"annotator{k}"] for row in rows] for k in (1, 2, 3)]
    kappas = [cohen_kappa(people[i], people[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert kappas == pytest.approx([0.8520, 0.8789, 0.8617], abs=5e-5)
    majority = [Counter(labels).most_common(1)[0][0] for labels in zip(*people, strict=True)]
    assert Counter(majority) == {0: 105, 1: 422, 2: 472}
    pandalm = [int(str(row["pandalm_result"])) for row in lines("pandalm/pandalm-7b-testset-v1.jsonl")]
    assert raw_agreement([pandalm, majority]) == pytest.approx(0.66767, abs=5e-6)
    gpt = [str(row["gpt_result"]) for row in lines("pandalm/gpt-3.5-turbo-testset-v1.jsonl")]
    assert raw_agreement([gpt, [str(m) for m in majority]]) == pytest.approx(0.69269, abs=5e-6)  # "Tie" is no "0" there


@pytest.mark.parametrize(("model", "kappa", "agreed"), [("llama2orig", 0.93, 0.964), ("mistralinstruct", 0.92, 0.976)])
def test_xstest(model: str, kappa: float, agreed: float) -> None:
    rows = lines(f"xstest/completions_{model}.jsonl.gz")
    both = [[str(row[name]) for row in rows] for name in ("annotation_1", "annotation_2")]
    kinds = sorted({*both[0], *both[1]})
    counts = [[(a == kind) + (b == kind) for kind in kinds] for a, b in zip(*both, strict=True)]
    assert round(fleiss_kappa(counts), 2) == kappa
    assert round(raw_agreement(both), 3) == agreed


def test_fleiss_own_example() -> None:
    # Fleiss 1971 in the form of Wikipedia's worked example: 14 raters, 10 subjects, 5 categories; kappa 0.210.
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


def test_cohen_by_hand() -> None:
    a = ["yes"] * 25 + ["no"] * 25  # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o 0.7, p_e 0.5, kappa 0.4
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa([*a, NAN, "no"], [*b, "yes", None]) == pytest.approx(0.4)  # missing labels do not count


def test_what_cannot_be_said_is_nan_or_refused() -> None:
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(krippendorff_alpha([[1, 1, NAN], [1, 1, 2]]))
    assert math.isnan(krippendorff_alpha([[1, NAN], [NAN, 1]]))
    with pytest.raises(DataError, match="same number of labels"):
        fleiss_kappa([[2, 0], [1, 2]])
    with pytest.raises(DataError, match="labels of level ordinal are numbers"):
        krippendorff_alpha([["a", "b"], ["a", "c"]], "ordinal")
    with pytest.raises(DataError, match="3 labels and 2"):
        cohen_kappa([1, 2, 3], [1, 2])


def test_the_bootstrap_interval_holds_the_spread_of_fresh_samples() -> None:
    def sample(rng: np.random.Generator) -> np.ndarray:
        truth = rng.integers(3, size=200)
        return np.where(rng.random((2, 200)) < 0.8, truth, rng.integers(3, size=(2, 200)))

    fresh = [cohen_kappa(*sample(np.random.default_rng(seed))) for seed in range(1, 300)]
    rated = sample(np.random.default_rng(0))
    found = bootstrap(lambda at: cohen_kappa(rated[0, at], rated[1, at]), 200, draws=500)
    low, high = np.quantile(fresh, [0.025, 0.975])
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)


ROWS: list[dict[str, object]] = [
    {"model": "m", "prompt": "p1", "annotator": "x", "helpfulness": "4", "honesty": 5},
    {"model": "m", "prompt": "p1", "annotator": "y", "helpfulness": 2, "honesty": ""},
    {"model": "m", "prompt": "p2", "annotator": "x", "helpfulness": 3, "comment": "fine"},
    {"model": "n", "prompt": "p1", "annotator": "x", "helpfulness": 1},
    {"prompt": "p1", "a": "m", "b": "n", "winner": "a", "annotator": "x"},
    {"prompt": "p1", "a": "n", "b": "m", "winner": "a", "annotator": "y"},
    {"prompt": "p2", "a": "n", "b": "m", "winner": "tie", "annotator": "x"},
    {"prompt": "p2", "a": "n", "b": "m", "winner": None, "annotator": "y"},
]


def test_ratings_become_columns() -> None:
    found = columns(ROWS)
    # Clusters p1 (4, 2) and p2 (3) around the mean 3: the sums of residuals are 0 and 0.
    assert found["m"]["helpfulness"] == Estimate(3.0, 0.0, 3)
    assert found["m"]["honesty"].value == 5
    assert "honesty" not in found["n"]
    assert found["m"]["preferred"].value == pytest.approx((1 + 0 + 0.5) / 3)  # the second vote is for its `a`, model n
    assert found["n"]["preferred"].n == 3
    assert [(game.a, game.value) for game in games(ROWS)] == [("m", 1.0), ("n", 1.0), ("n", 0.5)]


def test_agreement_of_ratings_and_votes() -> None:
    found = agreement(ROWS, draws=10)
    assert set(found) == {"helpfulness", "preferred"}  # nobody shares an answer's honesty
    assert found["preferred"]["raw"].value == 0  # x and y contradict each other on p1
    unnamed = [{"model": "m", "prompt": str(i), "helpfulness": i % 3} for i in range(9) for _ in range(2)]
    assert agreement(unnamed, draws=10)["helpfulness"]["alpha"].value == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p"}, "neither model and prompt nor a winner"),
        ({"model": "a", "prompt": "p", "helpfulness": "good"}, "'good' is no number"),
        ({"prompt": "p", "a": "m", "b": "n", "winner": "k"}, "neither 'm' nor 'n'"),
        ({"prompt": "p", "a": "m", "b": "m", "winner": "a"}, "two models"),
        ({"model": "a", "prompt": "p"}, "nothing is rated"),
    ],
)
def test_rows_that_are_no_ratings(row: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        columns([row])
