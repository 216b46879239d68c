"""What is wrong with data is found, shown and left out; and nothing else is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DATA, needs_data

from accord import demo
from accord.cli.data import check_data
from accord.cli.distance import distance
from accord.data.dropped import Dropped
from accord.data.language import language
from accord.data.prepare import answered
from accord.data.quality import clean, inspect, truncated
from accord.data.records import Example, Message, Pair, Ranking, Rating, Record, Text
from accord.data.sources import read
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.errors import AccordError, CheckFailed
from accord.model import load_policy
from accord.recipe import Source
from accord.sampler import Ask
from accord.sampler.local import LocalSampler

DICE = random.Random(5)
VOCABULARY = ["".join(DICE.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(4000)]


def words(count: int) -> str:
    return " ".join(DICE.choices(VOCABULARY, k=count))


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def fresh() -> Pair:
    return Pair(prompt=ask(words(12)), chosen=words(30) + ".", rejected=words(25) + ".")


def opened(records: list[Record]) -> Callable[[Dropped], Iterator[Record]]:
    return lambda _: iter(records)


def counts(records: list[Record], *against: list[Record]) -> dict[str, int]:
    return {name: finding.count for name, finding in inspect(opened(records), against=against).findings.items()}


def test_sound_data_is_left_alone():
    records: list[Record] = [fresh() for _ in range(3000)]
    found = inspect(opened(records))
    assert found.findings == {}
    assert list(clean(found, opened(records))) == records
    assert found.words == {"prompt": 12, "chosen": 30, "rejected": 25}
    assert found.longer_chosen == 1


def changed(text: str, share: float) -> str:
    """The text with a run of its words replaced."""
    parts = text.split()
    for i in range(int(len(parts) * share)):
        parts[i] = "other"
    return " ".join(parts)


def test_planted_faults_are_all_found():
    """Every kind, at places that only the planter knows, in 2,000 sound records."""
    records: list[Record] = [fresh() for _ in range(2000)]
    first: list[Pair] = [record for record in records[:60] if isinstance(record, Pair)]
    planted: dict[str, list[Record]] = {
        "duplicate": [*first[:10]],
        "near_duplicate": [
            Pair(prompt=p.prompt, chosen=changed(p.chosen, 0.1), rejected=p.rejected) for p in first[10:20]
        ],
        "identical": [Pair(prompt=ask(words(9)), chosen=text, rejected=f" {text} ") for text in (words(8), words(9))],
        "truncated": [Pair(prompt=ask(words(9)), chosen=words(40), rejected=words(5) + ".") for _ in range(7)],
        "leak": [
            Pair(prompt=ask(words(9)), chosen=f"{words(4)} {text}.", rejected="No.") for text in (words(20), words(20))
        ],
    }
    swapped = [Pair(prompt=p.prompt, chosen=p.rejected, rejected=p.chosen) for p in first[20:30]]
    held: list[Record] = [Example(messages=[*ask(words(5)), {"role": "assistant", "content": p.chosen.split(" ", 4)[4]}])
                          for p in planted["leak"] if isinstance(p, Pair)]  # fmt: skip
    mixed = [*records, *(record for of_kind in planted.values() for record in of_kind), *swapped]
    order = list(range(len(mixed)))
    tail = order[60:]
    random.Random(0).shuffle(tail)  # the originals stay in front
    found = inspect(opened([mixed[i] for i in order[:60] + tail]), against=[held])
    assert {name: finding.count for name, finding in found.findings.items()} == {
        **{name: len(of_kind) for name, of_kind in planted.items()},
        "contradiction": 20,  # both sides of each
    }
    assert all(0 < len(finding.examples) <= 3 for finding in found.findings.values())
    left = list(clean(found, opened([mixed[i] for i in order[:60] + tail])))
    assert len(left) == len(mixed) - 10 - 10 - 2 - 2 - 20


def test_a_prompt_that_is_held_out_is_a_leak():
    records: list[Record] = [Pair(prompt=ask("Why? "), chosen="Because.", rejected="No."), fresh()]
    assert counts(records, [Example(messages=[*ask("why?"), {"role": "assistant", "content": "So."}])]) == {"leak": 1}


def test_short_texts_share_no_run_of_words_by_being_short():
    held: list[Record] = [Text(text="one two"), Text(text="")]
    assert counts([Text(text="one two three"), Text(text="four")], held) == {}


A, B = ask("q"), ask("r")
RANKED = Ranking(prompt=A, responses=["a", "b", "c"], ranks=[1, 2, 2])


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        (Pair(prompt=A, chosen="a", rejected="b", prob=0.2), Pair(prompt=A, chosen="a", rejected="b"), 2),
        (Pair(prompt=A, chosen="a", rejected="b", prob=0.5), Pair(prompt=A, chosen="b", rejected="a"), 0),
        (RANKED, Pair(prompt=A, chosen="b", rejected="a"), 2),
        (RANKED, Pair(prompt=A, chosen="c", rejected="b"), 0),
        (Rating(prompt=A, response="a", label=True), Rating(prompt=A, response="a", label=False), 2),
        (Rating(prompt=A, response="a", label=True), Rating(prompt=B, response="a", label=False), 0),
        (Pair(prompt=A, chosen="a", rejected="b"), Pair(prompt=B, chosen="b", rejected="a"), 0),
    ],
)
def test_contradictions_of_every_kind_of_judgement(one: Record, other: Record, count: int):
    assert counts([one, other]).get("contradiction", 0) == count


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [
        (" ".join(["word"] * 30), True),
        (" ".join(["word"] * 30) + ",", True),
        (" ".join(["word"] * 30) + ".", False),
        ("A short answer without a stop", False),
        (" ".join(["word"] * 30) + ":\n- one\n- two", False),
        (" ".join(["word"] * 30) + "\n1. a list whose items have no full stop at their end", False),
        (" ".join(["word"] * 30) + "\n```", False),
    ],
)
def test_what_stops_in_the_middle(text: str, is_cut: bool):
    assert truncated(text) == is_cut


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I would like to know what the weather is like.", "English"),
        ("Ich möchte wissen, wie das Wetter ist und ob es regnet.", "German"),
        ("Je voudrais savoir quel temps il fait dans le sud.", "French"),
        ("Quiero saber qué tiempo hace en el sur y por qué.", "Spanish"),
        ("Vorrei sapere come è il tempo nel sud e perché non piove.", "Italian"),
        ("今日の天気はどうですか", "Japanese"),
        ("今天天气怎么样", "Chinese"),
        ("какая сегодня погода", "Cyrillic"),
        ("42 + 7", "unclear"),
    ],
)
def test_languages(text: str, name: str):
    assert language(text) == name


# ------------------------------------------------------------------------------------------------------ the command


def rows(path: Path, records: list[Record]) -> str:
    pairs = [record for record in records if isinstance(record, Pair)]
    table = [{"prompt": p.prompt[0]["content"], "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*table, {"prompt": "q", "chosen": "", "rejected": "b"}]))
    return str(path)


def test_the_command_reports_and_cleans(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = fresh()
    data = rows(tmp_path / "pairs.jsonl", [first, fresh(), first])
    with pytest.raises(
        CheckFailed, match=r"2 of 4 records are not fit to learn from; write a copy without them: --clean"
    ):
        check_data(data, [], None, None)
    said = capsys.readouterr().out
    assert "3 records: 3 Pair" in said
    assert "duplicate                1  the same record again" in said
    assert "empty answer             1" in said
    check_data(data, [], tmp_path / "clean.jsonl", None)
    kept = list(read(Source(source=str(tmp_path / "clean.jsonl")), Dropped(), "test"))
    assert next(record.chosen for record in kept if isinstance(record, Pair)) == first.chosen
    assert len(kept) == 2
    check_data(str(tmp_path / "clean.jsonl"), [], None, None)  # is clean
    with pytest.raises(AccordError, match="is there already"):
        check_data(data, [], tmp_path / "clean.jsonl", None)


def test_answers_of_the_model_itself_are_at_no_distance():
    path = demo.model("accord:tiny")
    tokenizer = load_tokenizer(path, "test")
    sampler = LocalSampler(load_policy(path, tokenizer, "test"), tokenizer, stop_ids(tokenizer, str(path)))
    prompts = [ask(f"What is {name}?") for name in ("clock skew", "latch-up", "burn-in", "leakage current")] * 10
    tokens = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"] for prompt in prompts]
    asks = [
        Ask(prompt=prompt, tokens=ids, number=i) for i, (prompt, ids) in enumerate(zip(prompts, tokens, strict=True))
    ]
    rollouts = sampler.generate(asks, max_new_tokens=40, temperature=1.0, seed=0)
    again = answered(tokenizer, prompts, [rollout.text for rollout in rollouts])
    own: list[Record] = [  # but those that begin with a space, which this model was never taught to leave out
        Example(messages=[*r.prompt, {"role": "assistant", "content": r.text}], train="last")
        for r, row in zip(rollouts, again, strict=True)
        if row.tokens[len(r.prompt_tokens) :][: len(r.tokens)] == r.tokens
    ]
    assert len(own) > 10
    strange: list[Record] = [
        Example(messages=[*prompt, {"role": "assistant", "content": "The dog ate my homework again."}], train="last")
        for prompt in prompts[:8]
    ]

    def beyond(records: list[Record]) -> float:
        return float(distance(str(path), records).split(" per token, ")[1].split(" ")[0])

    assert abs(beyond(own)) < 0.5
    assert beyond(strange) > 3


@needs_data
def test_real_pairs():
    """README of hh_rlhf: two identical pairs in helpful-base, the longer answer chosen in 59.9 % of unequal ones."""
    path = DATA / "hh_rlhf" / "helpful-base.test.jsonl.gz"
    found = inspect(lambda dropped: read(Source(source=str(path), on_error="skip"), dropped, "test"))
    assert found.findings["identical"].count == 2
    assert found.findings.keys() <= {"identical", "near_duplicate", "truncated"}
    assert found.longer_chosen == pytest.approx(0.599, abs=0.001)
    assert found.languages["English"] > 0.97 * found.records


@needs_data
def test_faults_planted_in_real_pairs_are_all_found():
    path = DATA / "hh_rlhf" / "helpful-base.test.jsonl.gz"

    def rows(dropped: Dropped) -> Iterator[Record]:
        return read(Source(source=str(path), on_error="skip"), dropped, "test")

    clean_ones = clean(inspect(rows), rows)
    pairs = [pair for pair in clean_ones if isinstance(pair, Pair) and len(pair.chosen.split()) > 30]
    held, mine = pairs[:50], pairs[50:]
    swapped = [Pair(prompt=p.prompt, chosen=p.rejected, rejected=p.chosen) for p in mine[10:20]]
    nearly = [Pair(prompt=p.prompt, chosen=p.chosen + " Good luck!", rejected=p.rejected) for p in mine[20:30]]
    leaked = [Pair(prompt=ask(words(9)), chosen=f"Well. {p.chosen}", rejected="No.") for p in held[:10]]
    mixed: list[Record] = [*mine, *mine[:10], *swapped, *nearly, *leaked]
    found = inspect(opened(mixed), against=[held])
    at = len(mine)
    expected = {
        "duplicate": set(range(at, at + 10)),
        "contradiction": {*range(10, 20), *range(at + 10, at + 20)},
        "near_duplicate": set(range(at + 20, at + 30)),
        "leak": set(range(at + 30, at + 40)),
    }
    assert found.left_out >= set().union(*expected.values())
    for name, which in expected.items():
        assert found.findings[name].count >= len(which)
    others = found.left_out - set().union(*expected.values())
    assert len(others) <= 0.01 * len(mine)  # dialogues of the set itself that share long passages
