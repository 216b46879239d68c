"""Rows of public data sets, as they are: how many become records of which kind, and which are left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from accord.data.dropped import Dropped
from accord.data.records import Example, Pair, Rating, Record, conversation
from accord.data.sources import read
from accord.errors import DataError
from accord.recipe import Source

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def real(name: str, **options: object) -> tuple[list[Record], dict[str, int]]:
    """The records of a shared data set and the count of rows left out, by reason."""
    if not (SHARED / name).is_file():
        pytest.skip(f"../shared/data/{name} is not beside this repository")
    dropped = Dropped()
    source = Source.model_validate({"source": str(SHARED / name), "on_error": "skip", **options})
    found = list(read(source, dropped, "data"))
    return found, {reason: count.count for reason, count in dropped.reasons.items()}


@pytest.mark.parametrize(
    ("name", "rows", "no_common_prompt", "identical", "first_bad"),
    [("helpful-base", 2354, 9, 2, 121), ("harmless-base", 2312, 5, 0, 87)],
)
def test_hh_rlhf(name: str, rows: int, no_common_prompt: int, identical: int, first_bad: int):
    file = f"hh_rlhf/{name}.test.jsonl.gz"
    found, left_out = real(file)
    assert left_out == {"empty_answer": 4, "no_common_prompt": no_common_prompt}
    pairs = [record for record in found if isinstance(record, Pair)]
    assert len(pairs) == len(found) == rows - 4 - no_common_prompt
    assert sum(pair.chosen == pair.rejected for pair in pairs) == identical
    for pair in pairs:  # roles alternate, as chat templates want them, although 11 real transcripts do not
        assert [turn["role"] for turn in pair.prompt] == ["user", "assistant"] * (len(pair.prompt) // 2) + ["user"]
        assert all(text == text.strip() != "" for text in (pair.chosen, pair.rejected))
    with pytest.raises(DataError) as caught:
        list(read(Source(source=str(SHARED / file)), Dropped(), "data"))
    assert str(caught.value).startswith(f"{SHARED / file}:{first_bad}: ")


def test_hh_rlhf_first_row():
    found, _ = real("hh_rlhf/helpful-base.test.jsonl.gz", limit=1)
    assert isinstance(found[0], Pair)
    question = "Do you know why turkeys became the official food of thanksgiving?"
    assert found[0].prompt == [{"role": "user", "content": question}]
    assert found[0].chosen.startswith("To be honest, I don\u2019t know anything about that.")
    assert found[0].rejected.startswith("I know that the American Indians were the first")


@pytest.mark.parametrize(
    ("name", "kind", "rows"),
    [
        ("alpaca_en_demo", Example, 999),
        ("identity", Example, 91),
        ("glaive_toolcall_en_demo", Example, 300),
        ("dpo_en_demo", Pair, 300),
        ("kto_en_demo", Rating, 300),
    ],
)
def test_llamafactory_demo(name: str, kind: type[Record], rows: int):
    found, left_out = real(f"llamafactory_demo/{name}.jsonl.gz")
    assert left_out == {}
    assert Counter(map(type, found)) == {kind: rows}


def test_llamafactory_demo_details():
    examples, _ = real("llamafactory_demo/alpaca_en_demo.jsonl.gz")
    assert sum("\n\n" in conversation(record)[0]["content"] for record in examples) >= 412  # rows with an input
    tools, _ = real("llamafactory_demo/glaive_toolcall_en_demo.jsonl.gz")
    roles = Counter(turn["role"] for record in tools if isinstance(record, Example) for turn in record.messages)
    assert roles == {"user": 746, "assistant": 746 + 211, "tool": 211}
    pairs, _ = real("llamafactory_demo/dpo_en_demo.jsonl.gz")
    starts = Counter(conversation(record)[0]["role"] for record in pairs)
    assert starts == {"user": 220, "system": 80}
    ratings, _ = real("llamafactory_demo/kto_en_demo.jsonl.gz")
    assert Counter(record.label for record in ratings if isinstance(record, Rating)) == {True: 150, False: 150}


@pytest.mark.parametrize(("name", "rows"), [("seed_tasks", 175), ("user_oriented_instructions", 252)])
def test_self_instruct_through_map(name: str, rows: int):
    inside = {"input": "instances.0.input", "output": "instances.0.output"}
    found, left_out = real(f"self_instruct/{name}.jsonl", map=inside)
    assert (len(found), left_out) == (rows, {})
    assert all(isinstance(record, Example) for record in found)


def test_self_instruct_as_it_is():
    found, left_out = real("self_instruct/t0_subset_12_per_template.jsonl.gz")
    assert (Counter(map(type, found)), left_out) == ({Example: 3372}, {})


def test_pandalm_through_map():
    found, left_out = real("pandalm/testset-v1.jsonl", map={"chosen": "response1", "rejected": "response2"})
    assert left_out == {"empty_answer": 54, "bad_row": 6}  # 6 answers became true or false on the way to JSON
    assert Counter(map(type, found)) == {Pair: 939}
