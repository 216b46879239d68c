"""Preference stages from data to model: each objective learns on the embedded world, and ratings find their baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from transformers import PreTrainedTokenizerFast

from accord.data import prepare
from accord.data.prepare import Limits, Loaded
from accord.data.records import Pair, Ranking, Rating, Record
from accord.data.tokenizer import load_tokenizer
from accord.errors import DataError, RecipeError
from accord.objectives.preference import OBJECTIVES
from accord.recipe import PREFERENCE_PARAMS, Table
from accord.recipe_file import parse
from accord.run import StageFolder, read_rows
from accord.stages import run
from accord.stages.check import inspect

# ------------------------------------------------------------------------------------------------------------ learning

TURNED = '''
from dataclasses import replace

from accord.demo.comparisons import pairs


def turned():
    """The embedded pairs, with the chosen answer's words in reverse as the rejected one: learned in a few steps."""
    for pair in pairs():
        yield replace(pair, rejected=" ".join(reversed(pair.chosen.split())))
'''


def one_stage(folder: Path, **settings: object) -> StageFolder:
    """A recipe of one preference stage, run through."""
    optim = {"lr": 5e-5, "steps": 5, "batch_size": 8, "schedule": "constant", "warmup": 0, "micro_tokens": 2048}
    stage = {"kind": "preference", "model": "accord:tiny", "optim": optim, "eval": 5, **settings}
    compute = {"device": "cpu", "precision": "float32", "threads": 1}
    table = {"name": "preference", "compute": compute, "stage": {"it": stage}}
    return run(parse(cast(Table, table)), folder).stage("it")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_from_the_embedded_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data.py").write_text(TURNED)
    source = f"{tmp_path / 'data.py'}:turned"
    stage = one_stage(
        tmp_path / "run",
        objective=name,
        data={"source": source, "part": "0:80", "limit": 40},
        eval_data={"source": source, "part": "80:100", "limit": 16},
    )
    start, end = [row for row in read_rows(stage.path / "metrics.jsonl") if "eval/loss" in row]
    assert cast(float, end["eval/loss"]) < cast(float, start["eval/loss"])
    assert cast(float, end["eval/accuracy"]) > 0.85
    assert cast(float, end["eval/margin"]) > cast(float, start["eval/margin"])
    assert bool([*tmp_path.glob("cache/reference-*")]) == (name not in {"simpo", "orpo"})


def test_without_a_reference_none_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    data = {"source": "accord:demo/pairs", "limit": 8}
    stage = one_stage(tmp_path, data=data, params={"reference_free": True}, optim={"steps": 1, "batch_size": 4})
    assert not [*tmp_path.glob("cache/reference-*")]
    (row,) = read_rows(stage.path / "metrics.jsonl")
    expected = 0.1 * (cast(float, row["chosen_logp"]) - cast(float, row["rejected_logp"]))
    assert row["margin"] == pytest.approx(expected, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- ratings


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def rated(prompt: str, response: str, label: bool | float = True) -> Rating:
    return Rating(prompt=asked(prompt), response=response, label=label)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def chatty(base: Path) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the default chat template."""
    return cast(PreTrainedTokenizerFast, load_tokenizer(base, "test"))


def texts(
    tokenizer: PreTrainedTokenizerFast, records: Sequence[Record], limit: int = 512
) -> list[tuple[str, str, float]]:
    """What stands in the two rows of each group, and the label."""
    groups, _ = prepare.unpaired(Loaded(list(records)), tokenizer, Limits(limit), "data")
    for own, other in groups:
        start = own.train.index(True)
        assert start == other.train.index(True)
        assert own.tokens[:start] == other.tokens[:start]
        assert all(own.train[start:])
        assert all(other.train[start:])
        assert own.extra == other.extra
    return [
        (str(tokenizer.decode(own.tokens)), str(tokenizer.decode(other.tokens)), cast(float, own.extra["label"]))
        for own, other in groups
    ]


def test_beside_a_rating_stands_an_answer_to_another_prompt(chatty: PreTrainedTokenizerFast) -> None:
    records = [rated("cat", "mat"), rated("cat", "sat", False), rated("dog", "hello", 0.9), rated("user", "hi", 0.5)]
    end = chatty.eos_token
    assert texts(chatty, records) == [
        (f"User: cat\nAssistant: mat{end}", f"User: cat\nAssistant: hello{end}", 1.0),
        (f"User: cat\nAssistant: sat{end}", f"User: cat\nAssistant: hello{end}", 0.0),
        (f"User: dog\nAssistant: hello{end}", f"User: dog\nAssistant: hi{end}", 1.0),
        (f"User: user\nAssistant: hi{end}", f"User: user\nAssistant: mat{end}", 0.0),
    ]


def test_pairs_and_rankings_become_ratings_whose_sides_stay_together(chatty: PreTrainedTokenizerFast) -> None:
    cat, dog, user = (asked(text) for text in ("cat", "dog", "user"))
    records: list[Record] = [
        Pair(prompt=cat, chosen="mat", rejected="sat"),  # pyright: ignore[reportArgumentType]
        Ranking(prompt=user, responses=["hi", "hello", "0"], ranks=[2, 1, 3]),  # pyright: ignore[reportArgumentType]
        Ranking(prompt=dog, responses=["a", "b"], ranks=[1, 1]),  # pyright: ignore[reportArgumentType]
        Pair(prompt=dog, chosen="a ", rejected="a"),  # pyright: ignore[reportArgumentType]
    ]
    loaded = Loaded(list(records))
    prepare.unpaired(loaded, chatty, Limits(512), "data")
    assert {name: reason.count for name, reason in loaded.dropped.reasons.items()} == {
        "no_preference": 1,
        "identical": 1,
    }
    end = chatty.eos_token
    assert texts(chatty, records) == [
        (f"User: cat\nAssistant: mat{end}", f"User: cat\nAssistant: hello{end}", 1.0),
        (f"User: cat\nAssistant: sat{end}", f"User: cat\nAssistant: 0{end}", 0.0),
        (f"User: user\nAssistant: hello{end}", f"User: user\nAssistant: mat{end}", 1.0),
        (f"User: user\nAssistant: 0{end}", f"User: user\nAssistant: sat{end}", 0.0),
    ]


def test_an_answer_to_another_prompt_is_cut_where_it_is_too_long(chatty: PreTrainedTokenizerFast) -> None:
    long, short = rated("cat sat on the mat and looked", "hi"), rated("dog", "numbers 0 1 2 3 4 5")
    whole = prepare.unpaired(Loaded([long, short]), chatty, Limits(512), "data")[0]
    limit = max(len(whole[0][0]), len(whole[1][0]))
    assert len(whole[0][1]) > limit
    cut = prepare.unpaired(Loaded([long, short]), chatty, Limits(limit), "data")[0]
    assert cut[0][1].tokens == whole[0][1].tokens[:limit]
    assert [row.tokens for row in cut[1]] == [row.tokens for row in whole[1]]


# ------------------------------------------------------------------------------------------------------------ mistakes


def refused(records: Sequence[Record], chatty: PreTrainedTokenizerFast) -> str:
    with pytest.raises(DataError) as caught:
        prepare.unpaired(Loaded(list(records)), chatty, Limits(512), "data")
    return str(caught.value)


def test_ratings_that_kto_cannot_use(chatty: PreTrainedTokenizerFast) -> None:
    one = [rated("cat", "mat"), rated("cat", "sat", False)]
    assert refused(one, chatty).startswith("data: all answers are to one prompt; ")
    for label in (4.0, -1.0, float("nan")):
        said = refused([*one, rated("dog", "a", label)], chatty)
        assert said.startswith(
            f"data: the label {label:g} does not say whether an answer is good; labels are true or false"
        )
    soft = Pair(prompt=asked("dog"), chosen="a", rejected="b", prob=0.8)  # pyright: ignore[reportArgumentType]
    assert refused([soft, *one], chatty).startswith("data: a Pair does not go with ratings; ")


def checked(folder: Path, rows: Sequence[dict[str, object]], objective: str) -> str:
    """What is said of rows before anything runs; nothing where they fit."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = {"kind": "preference", "model": "accord:tiny", "data": str(folder / "rows.jsonl"), "objective": objective}
    try:
        inspect(parse(cast(Table, {"name": "x", "stage": {"it": stage}})))
    except DataError as error:
        return str(error)
    return ""


def test_data_that_does_not_fit_an_objective_is_refused_early(tmp_path: Path) -> None:
    ratings: list[dict[str, object]] = [{"prompt": "cat", "response": "mat", "label": True}]
    pairs: list[dict[str, object]] = [{"prompt": "cat", "chosen": "mat", "rejected": "sat"}]
    (tmp_path / "mine.py").write_text(
        "from accord import Loss, objective\n\n\n@objective(needs=['label'])\ndef mine(out, batch):\n    return Loss({})\n"
    )
    mine = f"{tmp_path / 'mine.py'}:mine"
    for name in OBJECTIVES:
        assert checked(tmp_path, pairs, name) == ""
        said = checked(tmp_path, ratings, name)
        assert name in said if name != "kto" else said == ""
    assert checked(tmp_path, ratings, "ipo") == (
        "stage.it.data: ratings do not go with objective 'ipo'; give pairs or rankings, or set objective = \"kto\""
    )
    assert checked(tmp_path, ratings, mine) == checked(tmp_path, pairs, mine) == ""
    assert "the label 5 does not say" in checked(tmp_path, [{**ratings[0], "label": 5}], "kto")


@pytest.mark.parametrize("name", PREFERENCE_PARAMS)
def test_params_of_another_objective_are_answered_with_its_own(name: str) -> None:
    stage = {"kind": "preference", "model": "m", "data": "d", "objective": name, "params": {"bogus": 1}}
    with pytest.raises(RecipeError) as caught:
        parse(cast(Table, {"name": "x", "stage": {"it": stage}}))
    known = ", ".join(PREFERENCE_PARAMS[name].model_fields)
    assert str(caught.value) == f"stage.it.params.bogus: unknown key 'bogus'; known: {known}"
