"""Instructions that a program checks: every kind both ways, IFEval's golden verdicts, the suite and the reward."""

# ruff: noqa: RUF001  (texts in other scripts)

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs_data

from accord.data.language import CODES, language
from accord.data.records import Prompt
from accord.errors import DataError
from accord.functions import is_reference, source_of
from accord.recipe import RewardTerm
from accord.sampler import Rollout
from accord.score import Score, combine
from accord.score.instructions import KINDS, checked, follows, loose, strict, variants
from accord.score.instructions.case import capital_words
from accord.score.instructions.sentences import sentences
from accord.suites import Answered, resolve
from accord.suites.ifeval import record

# id, kwargs, texts that follow, texts that do not
CASES: list[tuple[str, dict[str, object], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["cat", "C++"]}, ["Concatenate in c++."], ["cat", "c+ cat"]),
    ("keywords:frequency", {"keyword": "war", "relation": "at least", "frequency": 2}, ["War, warm"], ["war"]),
    ("keywords:frequency", {"keyword": "war", "relation": "less than", "frequency": 2}, ["war"], ["War, warm"]),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, ["rocket rocks"], ["We will ROCK you"]),
    ("keywords:letter_frequency", {"letter": "q", "let_relation": "less than", "let_frequency": 2}, ["Q"], ["Quq"]),
    ("keywords:letter_frequency", {"letter": "#", "let_relation": "at least", "let_frequency": 2}, ["#a #b"], ["#a"]),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein Haus, und es ist nicht alt."],
        ["This is a house."],
    ),
    ("language:response_language", {"language": "hi"}, ["यह मेरा घर है।"], ["हे माझे घर आहे आणि ते मोठे आहे.", "1. This"]),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 4}, ["I don't know"], ["I do know"]),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 4}, ["well-known."], ["I don't know"]),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3}, ["A b. C d!"], ["A? B! C."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a\n***\nb***"],
        ["a***b***c", "a"],
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, ["a", "***a"], ["a\n***\n\n***\n", "***\n***\na"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["One\n\nthen, two", 'One\n\n"Then" two'],
        ["One\n\nThenceforth two", "Then\n\none", "One\n\nthen\n\nthree", "One\n\n\n\nThen"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b] [c]"], ["[a] [b\n]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye\n\nP. S. more", "p.s. x"], ["PS more"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye\nP. P. S more"], ["P.S. more"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n  - b", "x\n- a\n- b"],
        ["* a", "* a\n* b\n- c"],
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, ["* a\n**b**"], ["**b**"]),
    ("detectable_format:constrained_response", {}, ["So: My answer is no. Sorry"], ["my answer is no.", "No."]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* b *c*", "**a**\n*b*"],
        ["**a**", "*a* * *", "*a\nb*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection2"],
        ["Section 1", "SECTION 1 SECTION 2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', '```json\n{"a": 1}\n```', "```\n[]\n```"],
        ["{'a': 1}", 'Here: {"a": 1}'],
    ),
    ("detectable_format:title", {}, ["<<A poem>>\nRoses", "x <<y>> z"], ["<<>>", "<< >>", "<A>", "<<a\nb>>"]),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a******a", "a", "a******b******c", "a************b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "}, [" say HI. Hi!"], ["Sure: Say hi. Hi!"]),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions?"},
        ['So. "any questions?"', "Any questions?\n"],
        ["Any questions? No."],
    ),
    ("startend:quotation", {}, [' "a" \n', '""'], ['"', 'a "b"', "“a”"]),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        ["NASA and the U.S."],
        ["NASA and Us"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "less than", "capital_frequency": 1},
        ["none"],
        ["I am"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS THE END, AND IT IS 5 PAST 8"],
        ["THIS IS THE eND", "DAS IST NICHT MEIN HAUS UND DER HUND"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is what i can do for you"],
        ["this is what I can do", "das ist nicht mein haus und der hund"],
    ),
    ("punctuation:no_comma", {}, ["No; none."], ["One, two"]),
]


@pytest.mark.parametrize(
    ("kind", "kwargs", "good", "bad"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_kinds(kind: str, kwargs: dict[str, object], good: list[str], bad: list[str]) -> None:
    held = checked(kind, kwargs, "here")
    assert [text for text in good if not follows(kind, held, text)] == []
    assert [text for text in [*bad, "", " \n"] if follows(kind, held, text)] == []
    assert all(loose(text, [kind], [held]) == [True] for text in good)  # what holds strictly holds loosely


def test_every_kind_has_a_case() -> None:
    assert len(KINDS) == 25
    assert {case[0] for case in CASES} == set(KINDS)


def test_loose_is_what_holds_without_a_line_or_asterisks() -> None:
    assert set(variants("a*\nb\nc*")) == {"a*\nb\nc*", "a\nb\nc", "b\nc*", "b\nc", "a*\nb", "a\nb", "b"}
    ids, kwargs = ["startend:quotation", "punctuation:no_comma"], [{}, {}]
    assert strict('Sure, here:\n"Hi."', ids, kwargs) == [False, False]
    assert loose('Sure, here:\n"Hi."', ids, kwargs) == [True, True]
    assert loose('**"Hi."**\nBye, then', ids, kwargs) == [True, True]
    assert loose('Sure,\n"Hi, you."', ids, kwargs) == [True, False]
    assert loose("", ids, kwargs) == [False, False]


# -------------------------------------------------------------------------------------------- sentences, words, languages


@pytest.mark.parametrize(
    ("text", "count"),
    [  # counts that NLTK 3.10 gives with its English Punkt model
        ("Mr. Smith met Dr. Jones. They talked.", 2),
        ("It was 5 p.m. in the U.S. and cold.", 1),
        ("It was 5 p.m. The sun set.", 2),
        ("J. S. Bach wrote it. Right?", 2),
        ("Well... maybe. Really?! Yes!!", 4),
        ('He said "Go." Then he left. (I stayed.)', 3),
        ("1. First thing\n2. Second thing", 3),
        ("No. 1. of the list: see 3. there", 2),
        ("Use e.g. apples, pears etc. It works", 3),
        ("one line\nanother line without an end", 1),
        ("Is it so?**Yes.**", 2),
        ('It is done! "', 1),
        ("3. Review it", 1),
        ("x is 2y. The sum is 20 - x. The end", 3),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count, sentences(text)


@pytest.mark.parametrize(
    ("text", "count"),  # of the upper-case tokens of NLTK 3.10's word_tokenize
    [
        ("I AM", 2),
        ("DON'T", 2),
        ("WELL-KNOWN TO ALL.", 3),
        ("the U.S.A. and A1, B-2", 3),
        ("**BOLD**!\n[NAME]", 2),
        ("IT'S 'REAL'", 3),
        ("CANNOT GIMME", 4),
        ("A:B X:1 1,000", 3),
        ("IPhone", 0),
        ("I'm sure I'LL DO", 4),
        ("THE DOGS' TOYS", 3),
        ("HTTP://X.ORG/A", 2),
    ],
)
def test_capital_words(text: str, count: int) -> None:
    assert capital_words(text) == count


# Beginnings of article 1 of the Universal Declaration of Human Rights (https://www.ohchr.org/en/human-rights/universal-declaration).
DECLARATION = {
    "bg": "Всички хора се раждат свободни и равни по достойнство и права. Те са надарени с разум и съвест.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja omatunto.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de consciência.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "sw": "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri, hivyo yapasa watendeane.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء.",
    "fa": "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "ja": "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
}  # fmt: skip


@pytest.mark.parametrize("code", DECLARATION)
def test_languages_are_told_apart(code: str) -> None:
    assert language(DECLARATION[code], first=None) == CODES[code]
    asked = list(DECLARATION)
    follow = [other for other in asked if follows("language:response_language", {"language": other}, DECLARATION[code])]
    assert follow == [code]


# ------------------------------------------------------------------------------------------------ golden verdicts

MODELS = [
    "CohereForAI__aya-23-8B", "Qwen__Qwen2.5-0.5B-Instruct-GPTQ-Int4", "claude-3-haiku-20240307",
    "Qwen__Qwen2.5-7B-Instruct-GPTQ-Int4", "deepseek-ai__deepseek-llm-7b-chat", "gpt-4o-mini-2024-07-18",
    "mistralai__Mistral-7B-Instruct-v0.3",
]  # fmt: skip


def rows(path: Path) -> list[dict[str, object]]:
    """The rows of a JSON lines file, packed or not."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in whole.splitlines()]


@needs_data
@pytest.mark.parametrize("model", MODELS)
def test_golden_verdicts(model: str) -> None:
    """At least 99 % of the 834 verdicts of the published checker, per model, strict and loose."""
    prompts = {row["key"]: record(row, "ifeval") for row in rows(DATA / "ifeval/input_data.jsonl")}
    same: list[tuple[bool, bool]] = []
    for row in rows(DATA / f"ifeval/responses/{model}.jsonl.gz"):
        prompt = prompts[row["key"]]
        assert isinstance(prompt, Prompt)
        ids, kwargs = prompt.meta["instruction_id_list"], prompt.meta["kwargs"]
        assert ids == row["instruction_id_list"]
        found = [check(str(row["response"] or ""), ids, kwargs) for check in (strict, loose)]
        same += zip(np.equal(found[0], row["strict"]), np.equal(found[1], row["loose"]), strict=True)
    assert len(same) == 834
    assert np.mean(same, axis=0).min() >= 0.99


# ---------------------------------------------------------------------------------------------- the suite, the reward


def rollout(text: str, ids: list[str], kwargs: list[dict[str, object]], group: int = 0) -> Rollout:
    """An answer to a prompt with instructions."""
    meta: dict[str, object] = {"instruction_id_list": ids, "kwargs": kwargs} if ids else {}
    asked = [{"role": "user", "content": "?"}]
    return Rollout(prompt=asked, text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop", group=group, meta=meta)


def test_suite_counts_prompts_and_instructions() -> None:
    rng = random.Random(0)
    kinds = ["startend:quotation", "punctuation:no_comma", "change_case:english_lowercase"]
    texts = ['"hi"', "a, b", "Hello", 'Sure\n"hi"']
    answers = [
        rollout(rng.choice(texts), ids := rng.sample(kinds, rng.randint(1, 3)), [{}] * len(ids), i) for i in range(40)
    ]
    suite = resolve("ifeval", "suites")([], None)
    scores = {name: scorer(answers) for name, scorer in suite.scorers.items()}
    assert set(scores) == {"prompt_strict", "prompt_loose"}
    assert suite.whole is not None
    whole = suite.whole(Answered(answers, scores, list(range(40))))

    def right(text: str, kind: str) -> bool:
        return {"s": text == '"hi"', "p": "," not in text, "c": text == text.lower() and text != ""}[kind[0]]

    asked = [answer.meta["instruction_id_list"] for answer in answers]
    verdicts = [[right(answer.text, kind) for kind in ids] for answer, ids in zip(answers, asked, strict=True)]
    assert [score.details["strict"] for score in scores["prompt_strict"]] == verdicts
    assert [score.value for score in scores["prompt_strict"]] == [float(all(row)) for row in verdicts]
    assert all("loose" in score.details for score in scores["prompt_loose"])
    followed, count = np.array([sum(row) for row in verdicts]), np.array([len(row) for row in verdicts])
    share = followed.sum() / count.sum()
    stderr = math.sqrt(
        (((followed - share * count) / count.sum()) ** 2).sum() * 40 / 39
    )  # a ratio's, prompts as clusters
    estimate = whole["instruction_strict"]
    assert (estimate.value, estimate.stderr, estimate.n) == (pytest.approx(share), pytest.approx(stderr), 40)
    assert whole["instruction_loose"].value > share
    commas = [
        row[ids.index(kinds[1])]
        for row, ids in zip(verdicts, (a.meta["instruction_id_list"] for a in answers), strict=True)
        if kinds[1] in ids
    ]
    assert whole["strict/punctuation"].value == pytest.approx(np.mean(commas))


def test_rows_may_hold_nulls_and_mistakes_name_their_row() -> None:
    row: dict[str, object] = {
        "key": 7,
        "prompt": "Hi",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
    }
    nulls = {"num_words": None, "relation": None}
    made = record(row | {"kwargs": [nulls, nulls | {"keywords": ["a"]}]}, "f.jsonl:1")
    assert isinstance(made, Prompt)
    assert made.meta == {
        "key": 7,
        "instruction_id_list": row["instruction_id_list"],
        "kwargs": [{}, {"keywords": ["a"]}],
    }
    wrong: list[tuple[dict[str, object], str]] = [
        ({"kwargs": [{}]}, "one length"),
        ({"kwargs": [{}, {}]}, "keywords"),
        ({"kwargs": [{}, {"keywords": "a"}]}, "a list of texts"),
        ({"kwargs": [{}, {"keywords": ["a", 1]}]}, "a list of texts"),
        ({"kwargs": [{}, "a"]}, "no table"),
        ({"kwargs": [{"letter": "a"}, {"keywords": ["a"]}]}, "no arguments"),
        ({"kwargs": [{}, {}], "instruction_id_list": ["x", "y"]}, "known: keywords:existence"),
        ({"instruction_id_list": []}, "instruction_id_list"),
        ({"prompt": None}, "prompt"),
    ]
    for change, said in wrong:
        with pytest.raises(DataError, match=rf"^f\.jsonl:1: .*{said}"):
            record(row | change, "f.jsonl:1")
    with pytest.raises(DataError, match=r'relation \("at least" or "less than"\)'):
        checked("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "about"}, "here")
    with pytest.raises(DataError, match="one of ar, bg"):
        checked("language:response_language", {"language": "xx"}, "here")


def test_reward_by_name() -> None:
    assert is_reference("accord:instructions")
    assert not is_reference("accord:tiny")
    assert "def number_sentences" in source_of("accord:instructions")  # all of it counts in a stage's fingerprint

    def no_model(name: str, term: RewardTerm) -> list[Score]:
        raise AssertionError(name)

    reward = combine({"accord:instructions": RewardTerm(weight=2.0)}, no_model, "rewards")
    ids: list[str] = ["startend:quotation", "punctuation:no_comma"]
    half, none = reward([rollout('"a, b"', ids, [{}, {}]), rollout("a", [], [])])
    assert (half.value, half.parts) == (1.0, {"instructions": 0.5})
    assert half.why == "not followed: punctuation:no_comma"
    assert math.isnan(none.value)
