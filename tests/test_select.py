"""Best of n: what is kept, that anyone can recount it, that later stages train on it, and that it goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from accord.data.prepare import Asked
from accord.data.records import Example, Pair, Prompt, Ranking
from accord.errors import AccordError, RecipeError
from accord.objectives.kl import best_of_n
from accord.recipe import Select, Table
from accord.recipe_file import parse
from accord.run import Run, read_rows
from accord.stages import rehearse, select
from accord.stages import run as run_recipe

REWARD = """
def short(rollout):
    return -float(len(rollout.text))
"""
FEW = {"schedule": "constant", "warmup": 0, "steps": 2, "batch_size": 4, "lr": 1e-3}


def table(base: Path, folder: Path) -> Table:
    (folder / "reward.py").write_text(REWARD)
    choose = {
        "kind": "select", "model": str(base), "data": {"source": "accord:demo/prompts", "limit": 40}, "n": 4,
        "rewards": {f"{folder / 'reward.py'}:short": 1.0}, "sampling": {"max_new_tokens": 256},
    }  # fmt: skip
    return cast(Table, {
        "name": "select", "compute": {"device": "cpu", "precision": "float32", "threads": 1},
        "stage": {
            "best": choose,
            "pairs": {**choose, "keep": "pair", "seed": 1},
            "sft": {"kind": "sft", "model": str(base), "data": "@best", "eval_data": 0.2, "optim": FEW},
            "dpo": {"kind": "preference", "model": str(base), "data": "@pairs", "optim": FEW},
        },
    })  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    folder = tmp_path_factory.mktemp("select")
    return run_recipe(parse(table(base, folder)), folder / "run")


def answers(made: Run, stage: str) -> list[list[dict[str, object]]]:
    """The answers to each prompt."""
    rows = read_rows(made.stage(stage).path / "candidates.jsonl")
    return [cast(list[dict[str, object]], rows[i : i + 4]) for i in range(0, len(rows), 4)]


def test_the_best_that_ended_is_kept(made: Run) -> None:
    kept = iter(read_rows(made.stage("best").path / "records.jsonl"))
    count = 0
    for group in answers(made, "best"):
        ended = [row for row in group if row["finish"] == "stop"]
        assert len({json.dumps(row["prompt"]) for row in group}) == 1
        if not ended:
            continue
        record, count = next(kept), count + 1
        best = max(ended, key=lambda row: cast(float, row["reward"]))
        assert record["messages"] == [*cast(list, best["prompt"]), {"role": "assistant", "content": best["response"]}]
    assert next(kept, None) is None
    assert 5 < count < 40


def test_pairs_are_the_best_and_the_worst(made: Run) -> None:
    for record in read_rows(made.stage("pairs").path / "records.jsonl"):
        assert len(cast(str, record["chosen"])) < len(cast(str, record["rejected"]))


def test_the_result_can_be_recounted(made: Run) -> None:
    result = cast(dict[str, dict[str, float]], made.stage("best").record["result"])
    groups = [[cast(float, row["reward"]) for row in group] for group in answers(made, "best")]
    assert result["reward"]["value"] == pytest.approx(sum(map(sum, groups)) / 160)
    assert result["reward_best"]["value"] == pytest.approx(sum(map(max, groups)) / 40)
    assert result["kl"] == best_of_n(4)


def test_later_stages_train_on_what_is_kept(made: Run) -> None:
    for stage, before in (("sft", "best"), ("dpo", "pairs")):
        data = cast(dict[str, dict[str, int]], made.stage(stage).record["data"])
        read = sum(part["read"] for part in data.values())
        assert read == len(read_rows(made.stage(before).path / "records.jsonl"))


def test_another_choice_makes_its_users_train_again(made: Run) -> None:
    before = {name: dict(made.stage(name).record) for name in made.recipe.stage}
    given = made.recipe.model_dump(mode="json", exclude_none=True)
    given["stage"]["pairs"]["n"] = 3
    again = run_recipe(parse(cast(Table, given)), made.path)
    changed = {name for name in before if again.stage(name).record["fingerprint"] != before[name]["fingerprint"]}
    assert changed == {"pairs", "dpo"}
    assert len(read_rows(again.stage("pairs").path / "candidates.jsonl")) == 120


def test_it_goes_on_where_it_was_stopped(made: Run, base: Path, tmp_path: Path) -> None:
    """A reward that fails after the first chunk of 32 prompts: what was answered stays, the rest is added."""
    recipe = table(base, tmp_path)
    flag = tmp_path / "broken"
    flag.touch()
    (tmp_path / "reward.py").write_text(
        f"from pathlib import Path\n\nseen = []\n\ndef short(rollout):\n    seen.append(rollout)\n"
        f"    assert len(seen) <= 128 or not Path({str(flag)!r}).exists()\n    return -float(len(rollout.text))\n"
    )
    with pytest.raises((AccordError, AssertionError)):
        run_recipe(parse(recipe), tmp_path / "run", only=["best"])
    file = tmp_path / "run" / "best" / "candidates.jsonl"
    first = file.read_text()
    assert len(first.splitlines()) == 128
    flag.unlink()
    run_recipe(parse(recipe), tmp_path / "run", only=["best"])
    assert file.read_text().startswith(first)
    assert file.read_text() == (made.stage("best").path / "candidates.jsonl").read_text()


ASKED = Asked([{"role": "user", "content": "?"}], [1], {}, Prompt(prompt=[{"role": "user", "content": "?"}]))


def row(response: str, reward: float | None, finish: str = "stop") -> dict[str, object]:
    return {"response": response, "reward": reward, "finish": finish}


def chosen(rows: list[dict[str, object]], **settings: object) -> Example | Pair | Ranking | None:
    stage = Select.model_validate({"model": "x", "data": "y", "rewards": {"z": 1}, **settings})
    return select.choose(ASKED, rows, stage)


def test_what_can_be_kept() -> None:
    rows = [row("a", 1.0), row("b", 2.0), row("c", 9.0, "length"), row("d", None), row("b", 2.0), row("e", 1.0)]
    best = chosen(rows)
    assert isinstance(best, Example)
    assert best.messages[-1]["content"] == "b"
    pair = chosen(rows, keep="pair")
    assert isinstance(pair, Pair)
    assert (pair.chosen, pair.rejected) == ("b", "e")
    ranking = chosen(rows, keep="ranking")
    assert isinstance(ranking, Ranking)
    assert (ranking.responses, ranking.ranks) == (["b", "a", "e"], [1, 2, 2])
    assert chosen(rows, above=2.0) is None
    assert chosen(rows, above=1.9) is not None
    assert chosen(rows[2:4]) is None
    assert chosen([row("a", 1.0), row("b", 1.0)], keep="pair") is None
    assert chosen([row("a", 1.0), row("b", 1.0)], keep="best") is not None


def test_it_is_rehearsed(base: Path, tmp_path: Path) -> None:
    rehearse(parse(table(base, tmp_path)), tmp_path / "rehearsal")


@pytest.mark.parametrize(
    ("stage", "own", "said"),
    [
        ("sft", {"data": "@dpo"}, "stage.sft.data: '@dpo' is not made before this stage"),
        (
            "dpo",
            {"data": "@sft"},
            "stage.dpo.data: '@sft' is a stage of kind 'sft' and leaves no records; give a select stage",
        ),
        (
            "dpo",
            {"model": "@best"},
            "stage.dpo.model: '@best' is a stage of kind 'select'; give a stage that makes a model",
        ),
        ("best", {"n": 1}, "stage.best.n: input should be greater than or equal to 2 (given: 1)"),
    ],
)
def test_mistakes(base: Path, tmp_path: Path, stage: str, own: Table, said: str) -> None:
    recipe = table(base, tmp_path)
    stages = cast("dict[str, Table]", recipe["stage"])
    stages[stage] |= own
    with pytest.raises(RecipeError) as caught:
        parse(recipe)
    assert str(caught.value).startswith(said)
