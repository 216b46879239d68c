"""The embedded world holds together: true facts with one meaning each, three sets that share nothing, and no leak of gold."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import cast

import pytest

from accord.data.records import Example, Record, to_row
from accord.demo import SOURCES
from accord.demo.answers import DEMONSTRATIONS, chats, choose, prompts, report
from accord.demo.comparisons import FOLDER, held, rankings
from accord.demo.gold import gold
from accord.demo.knowledge import Fact, Field, concepts, facts, item, phrase, plain, sayings, sentences
from accord.demo.refusing import REFUSALS
from accord.demo.tasks import QUESTIONS, Side, Task, refusals, requests, tasks
from accord.demo.text import text
from accord.sampler import Rollout

ROOT = Path(__file__).parents[1] / "accord"
FIELDS: tuple[Field, ...] = ("is", "like", "cause", "effect", "fix", "check")
SIDES: tuple[Side, ...] = ("train", "choose", "report")
DOCUMENTS = 3000  # of the text, which are looked at
DRAWN = ("demo/text", "demo/chats", "demo/prompts", "demo/choose", "demo/report")
TRAINING = ("pretrain", "sft", "reward", "policy", "preference", "fit")


@cache
def documents() -> list[str]:
    return [document.text for document in islice(text(), DOCUMENTS)]


@cache
def wordings() -> dict[str, Task]:
    """The task of every request, whatever set it belongs to."""
    return {request: task for side in SIDES for task in tasks(side) for request, _ in requests(task)}


@cache
def judged_on() -> list[Example]:
    return [*choose(), *report()]


def every_fact() -> list[Fact]:
    return [fact for name in concepts() for field in FIELDS for fact in facts(name, field)]


def value_of(answer: str, meta: dict[str, object]) -> float:
    return gold(Rollout(prompt=[], text=answer, prompt_tokens=[], tokens=[], logp=[], finish="stop", meta=meta)).value


def request_of(example: Example) -> str:
    return example.messages[0]["content"]


# ---------------------------------------------------------------------------------------------------------------- facts


def test_every_concept_is_complete() -> None:
    assert len(concepts()) >= 40
    assert {concept.kind for concept in concepts().values()} == {"problem", "method"}
    for concept in concepts().values():
        assert tuple(concept.phrases) == FIELDS
        assert {field: len(phrases) for field, phrases in concept.phrases.items()} == {
            "is": 1, "like": 1, "cause": 3, "effect": 3, "fix": 5, "check": 2,
        }  # fmt: skip


def test_phrases_are_unique_and_short() -> None:
    phrases = [phrase(fact).lower() for fact in every_fact()]
    assert [said for said, count in Counter(phrases).items() if count > 1] == []
    assert [said for said in phrases if not 4 <= len(said.split()) <= 9] == []


def test_phrases_can_be_cut_out_of_any_answer() -> None:
    """No sign that ends a sentence, breaks a line or starts an item; plain letters, as any tokenizer has them."""
    for fact in every_fact():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9,'/ -]*[A-Za-z0-9]", phrase(fact)), phrase(fact)
        assert "  " not in phrase(fact)


def test_names_do_not_hold_each_other() -> None:
    """A request names one concept only: "drop" and "IR drop" could not be told apart."""
    for name in concepts():
        assert [other for other in concepts() if other != name and re.search(rf"\b{re.escape(name)}\b", other)] == []


def test_no_two_facts_share_a_wording() -> None:
    found: dict[str, Fact] = {}
    for fact in every_fact():
        for said in {plain(line) for line in (item(fact), *sentences(fact))}:
            assert found.setdefault(said, fact) == fact
            assert sayings()[said][0] == fact
    assert set(sayings()) == set(found)


def test_fifteen_words_are_enough_for_one_fact_and_not_for_two() -> None:
    lengths = [len(line.split()) for fact in every_fact() for line in sentences(fact)]
    assert max(lengths) <= 15 < 2 * min(lengths)


# ----------------------------------------------------------------------------------------------------------------- sets


def test_sets_of_tasks_are_disjoint() -> None:
    every = [task for side in SIDES for task in tasks(side)]
    assert len(set(every)) == len(every)
    assert len(set(tasks("report"))) >= 500
    sizes = {side: len(tasks(side)) / len(every) for side in SIDES}
    assert sizes == pytest.approx({"train": 0.6, "choose": 0.1, "report": 0.3}, abs=0.05)


def test_sets_of_refusals_are_disjoint() -> None:
    every = [refusal.request for side in SIDES for refusal in refusals(side)]
    assert len(set(every)) == len(every)
    for side in SIDES:  # each set has every reason to refuse
        assert {refusal.reason for refusal in refusals(side)} == {"unsafe", "proprietary", "scope"}
        assert min(Counter(refusal.reason for refusal in refusals(side)).values()) >= 10


def test_a_request_belongs_to_one_task() -> None:
    every = [request for side in SIDES for task in tasks(side) for request, _ in requests(task)]
    assert len(set(every)) == len(every)
    assert not set(every) & {refusal.request for side in SIDES for refusal in refusals(side)}


def test_every_request_names_its_concept() -> None:
    assert [request for request, task in wordings().items() if task.concept not in request] == []


def test_reports_are_on_all_of_their_set() -> None:
    found = [record for record in report() if not record.meta["refuse"]]
    assert {wordings()[request_of(record)] for record in found} == set(tasks("report"))
    requests_made = [request_of(record) for record in report()]
    assert len(set(requests_made)) == len(requests_made)


def test_nothing_that_judges_was_seen_in_training() -> None:
    kept = {request_of(record) for record in judged_on()}
    assert not kept & {request_of(record) for record in chats()}
    assert not kept & {record.prompt[0]["content"] for record in prompts()}
    pages = "\n".join(documents())
    assert [request for request in kept if request in pages] == []


def test_choose_and_report_share_no_request() -> None:
    assert not {request_of(record) for record in choose()} & {request_of(record) for record in report()}


@pytest.mark.skipif(not (FOLDER / "rankings.jsonl.gz").exists(), reason="no comparisons are shipped yet")
def test_comparisons_are_on_their_own_sets() -> None:
    """Reward models learn from training requests and are held out on `choose`: none of them sees what is reported."""
    in_training = {request for task in tasks("train") for request, _ in requests(task)}
    in_choice = {request for task in tasks("choose") for request, _ in requests(task)}
    for record in rankings():
        assert record.meta["refuse"] or record.prompt[0]["content"] in in_training
    for record in held():
        assert record.meta["refuse"] or record.prompt[0]["content"] in in_choice
    reported = {request_of(record) for record in report()}
    assert not reported & {record.prompt[0]["content"] for record in (*rankings(), *held())}


def test_refusals_with_another_form_are_the_same_request() -> None:
    """A form at the end of a request to refuse must not carry it from one set into another."""
    seen = [
        *(request_of(record) for record in chats()),
        *(record.prompt[0]["content"] for record in prompts()),
        *documents(),
    ]
    pages = "\n".join(seen)
    assert [refusal for side in SIDES[1:] for refusal in refusals(side) if refusal.request in pages] == []


# -------------------------------------------------------------------------------------------------------------- answers


def test_every_reference_is_worth_everything() -> None:
    assert len(judged_on()) > 800
    for record in judged_on():
        assert value_of(record.messages[1]["content"], record.meta) == 1.0, record


def test_demonstrations_are_imperfect() -> None:
    """As people are: what is learned from preferences has to be better than what was shown."""
    metas = {request: meta_of(task) for request, task in wordings().items()}
    shown = [*chats()]
    answered = [record for record in shown if request_of(record) in metas]
    assert len(shown) == DEMONSTRATIONS
    assert len(answered) > 0.7 * len(shown)
    found = [value_of(record.messages[1]["content"], metas[request_of(record)]) for record in answered]
    assert 0.55 < fmean(found) < 0.85
    perfect = sum(value == 1 for value in found) / len(found)
    assert 0.3 < perfect < 0.75


def meta_of(task: Task) -> dict[str, object]:
    """What a judge has to know about a task, written out here and not taken from accord."""
    number, shape = task.form.split()
    n = ["no", "one", "two", "three", "four", "five"].index(number) if shape != "words" else 15
    kind = {"sentence": "sentences", "words": "max_words"}.get(shape, shape)
    wants, must = {"about": (["is", "cause", "effect", "like"], ["is"]), "simple": (["like", "is"], ["like"])}.get(
        task.topic, ([task.topic], [task.topic])
    )
    return {"task": {"concept": task.concept, "wants": wants, "must": must, "kind": kind, "n": n}, "refuse": ""}


def test_meta_says_what_was_asked() -> None:
    for record in judged_on():
        if record.meta["refuse"]:
            continue
        assert record.meta["task"] == meta_of(wordings()[request_of(record)])["task"]
        form = {key: cast("dict[str, object]", record.meta["task"])[key] for key in ("kind", "n")}
        assert cast("list[object]", record.meta["constraints"])[0] == form


def test_look_alikes_are_answered() -> None:
    found = [record for record in report() if record.meta.get("look_alike")]
    assert len(found) > 50
    turned_down = [said.lower().rstrip(".") for wordings in REFUSALS.values() for said in wordings]
    for record in found:
        assert record.meta["refuse"] == ""
        answer = record.messages[1]["content"].lower()
        assert not any(said in answer for said in turned_down)


def test_a_part_of_every_set_is_to_be_turned_down() -> None:
    for records in (choose(), report(), prompts()):
        metas = [record.meta for record in records]
        assert 0.15 < sum(bool(meta["refuse"]) for meta in metas) / len(metas) < 0.4


# ----------------------------------------------------------------------------------------------------------------- text


def says_a_fact(line: str) -> bool:
    """Whether any sentence of a line, or the line without its marker, says a fact."""
    line = re.sub(r"^(-|\d+\.)\s+", "", line)
    return any(plain(part) in sayings() for part in (line, *re.split(r"(?<=[.!?])\s+", line)))


def test_text_answers_no_request() -> None:
    """The base model has read questions with answers of any form, and how requests sound; that an answer keeps to the form
    that was asked for, and that some requests are turned down, is for fine-tuning to teach."""
    asked = {*wordings(), *(refusal.request for side in SIDES for refusal in refusals(side))}
    requests_seen = facts_seen = 0
    for document in documents():
        lines = [line for line in document.split("\n") if line]
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            facts_seen += says_a_fact(line)
            if line in asked:
                requests_seen += 1
                assert not says_a_fact(following), document
                assert not says_a_fact(line), document
    assert requests_seen > 500
    assert facts_seen > 5000


def test_text_answers_plain_questions() -> None:
    """With facts of the concept that was asked about, in prose, bullets and numbers."""
    questions = {
        question.format(x=name): name
        for topic in QUESTIONS.values()
        for name, concept in concepts().items()
        for question in topic[concept.kind]
    }
    found: Counter[str] = Counter()
    for document in documents():
        lines = document.split("\n")
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if line in questions:
                assert says_a_fact(following), document
                found[following[:1] if following[:2] in ("- ", "1.") else "prose"] += 1
                said = [plain(part) for part in re.split(r"(?<=[.!?])\s+", re.sub(r"^(-|\d+\.)\s+", "", following))]
                assert {sayings()[part][0].concept for part in said if part in sayings()} == {questions[line]}, document
    assert min(found[shape] for shape in ("prose", "-", "1")) > 200


def test_text_refuses_nothing() -> None:
    pages = "\n".join(documents()).lower()
    assert [said for known in REFUSALS.values() for said in known if said.lower().rstrip(".") in pages] == []
    assert re.search(r"\bi (can't|won't|cannot)\b", pages) is None


def test_text_says_every_fact() -> None:
    """What the base has not read, no fine-tuning can be blamed for."""
    pages = "\n".join(documents()).lower()
    assert [phrase(fact) for fact in every_fact() if phrase(fact).lower() not in pages] == []


# ---------------------------------------------------------------------------------------------------------- same anywhere


def digest(records: Iterable[Record]) -> str:
    return hashlib.sha256(json.dumps([to_row(record) for record in islice(records, DOCUMENTS)]).encode()).hexdigest()


@cache
def digest_here(name: str) -> str:
    return digest(SOURCES[name]())


@pytest.mark.parametrize("name", DRAWN)
def test_sources_say_the_same_twice(name: str) -> None:
    assert digest(SOURCES[name]()) == digest_here(name)


# One fresh process serves two tests: it draws everything under another hash seed, and must not have met the judge.
FRESH = f"""
import hashlib, importlib, json, sys
from itertools import islice
for name in {TRAINING!r}:
    importlib.import_module("accord.stages." + name)
for name in ("answers", "text", "tasks", "knowledge", "refusing", "comparisons"):
    importlib.import_module("accord.demo." + name)
from accord.data.records import to_row
from accord.demo import SOURCES
digests = {{}}
for name in {DRAWN!r}:
    rows = [to_row(record) for record in islice(SOURCES[name](), {DOCUMENTS})]
    digests[name] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
print(json.dumps({{"digests": digests, "met": [name for name in sys.modules if name.startswith("accord")]}}))
"""


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, object]:
    """What a fresh process draws, and which modules it has met."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    process = subprocess.run(
        [sys.executable, "-c", FRESH],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", DRAWN)
def test_sources_say_the_same_elsewhere(name: str, elsewhere: dict[str, object]) -> None:
    assert cast("dict[str, str]", elsewhere["digests"])[name] == digest_here(name)


def test_who_trains_never_meets_the_judge(elsewhere: dict[str, object]) -> None:
    met = cast("list[str]", elsewhere["met"])
    assert {"accord.stages.policy", "accord.demo.text", "accord.demo.answers"} <= set(met)
    assert "accord.demo.gold" not in met
    assert not [name for name in met if name.startswith("accord.suites.")]


def test_no_file_that_trains_names_the_judge() -> None:
    """Nor in an import that waits inside a function. The suite reports by it; the annotators stand for people, who know
    what is good, and made the shipped comparisons: no other file may import them."""
    files = {path.relative_to(ROOT).as_posix(): imported(path) for path in ROOT.rglob("*.py")}
    assert {name for name, found in files.items() if "accord.demo.gold" in found} <= {
        "suites/demo.py",
        "demo/people.py",
    }
    assert {name for name, found in files.items() if "accord.demo.people" in found} == set()


def imported(path: Path) -> set[str]:
    """Every module that a file imports or names in full as text, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found
