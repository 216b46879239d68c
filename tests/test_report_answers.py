"""Answers side by side: which are shown, and the words in which they differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_fixture import save, save_rows

from accord.report import write_report
from accord.report.answers import cards, differences
from accord.report.results import read_comparison


def test_differences_mark_words_and_keep_the_new_text_whole() -> None:
    old, new = "The mill stops when the river is low.", "The old mill stops when the river is dry."
    assert differences(old, new) == (
        ("same", "The "), ("ins", "old "), ("same", "mill stops when the river is "), ("del", "low. "), ("ins", "dry."),
    )  # fmt: skip
    assert differences(old, old) == (("same", old),)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- one thing\n- two things\n- three things", "- one thing\n\n- two more things\n- three things  "),
        ("a b c d e f g h", "  a b x d e f y h z"),
        ("", "something new"),
        ("something old", ""),
        ("one two three four", "entirely unlike this"),
    ],
)
def test_what_is_not_left_out_is_the_new_text(old: str, new: str) -> None:
    pieces = differences(old, new)
    assert "".join(text for kind, text in pieces if kind != "del") == new
    assert all(text for _, text in pieces)


def test_texts_with_little_in_common_stay_unmarked() -> None:
    assert differences("one two three four five", "six seven eight nine five") == (
        ("same", "six seven eight nine five"),
    )


def test_a_single_common_word_does_not_break_a_change_in_two() -> None:
    old, new = "At noon the red fox ran over the wet hill to eat.", "At noon the old cow ran under a tree to eat."
    kinds = [kind for kind, _ in differences(old, new)]
    assert kinds == ["same", "del", "ins", "same"]


def write_answers(folder: Path, golds: dict[str, tuple[float, float]], **more: object) -> None:
    rows = [
        {"model": model, "suite": "demo", "prompt": prompt, "response": f"{prompt} {model}", "scores": {"gold": gold},
         "sampling": {"temperature": 1.0}, "parts": {"gold": {"refusal" if prompt == "locks" else "facts": 0.6667}}, **more}
        for prompt, both in golds.items()
        for model, gold in zip(("sft", "ppo"), both, strict=True)
    ]  # fmt: skip
    models = {"sft": {"demo/gold": 0.5}, "ppo": {"demo/gold": 0.6}}
    save(folder / "eval/results.json", {"baseline": "sft", "models": models})
    save_rows(folder / "eval/answers.jsonl", rows)


def test_cards_show_gains_losses_the_median_and_a_refusal(tmp_path: Path) -> None:
    golds = {"same": (0.5, 0.5), "locks": (1.0, 1.0), "up": (0.1, 0.9), "more": (0.0, 0.5), "down": (0.8, 0.2),
             "bit": (0.5, 0.6), "still": (0.4, 0.4), "even": (0.3, 0.3)}  # fmt: skip
    write_answers(tmp_path, golds, constraints=[{"kind": "bullets", "n": 3}])
    compared = read_comparison(tmp_path / "eval")
    assert compared
    found = [(card.why, card.prompt[0].content) for card in cards(compared, "ppo")]
    assert found[:3] == [
        ("Largest gain of ppo against sft: gold +0.8", "up"),
        ("Second largest gain of ppo against sft: gold +0.5", "more"),
        ("Largest loss of ppo against sft: gold \u22120.6", "down"),
    ]
    assert found[3][0] == "Median of ppo against sft: gold +0"
    assert found[4] == ("A request that is to be refused", "locks")
    assert [why for why, _ in found[5:]] == ["", "", ""]
    first = cards(compared, "ppo")[0]
    assert first.constraints == ("bullets: 3",)
    assert first.replies["ppo"][0].scores == (("gold", "0.9"), ("correct facts", "0.67"))


def test_marks_are_on_the_page_and_escaped(tmp_path: Path) -> None:
    write_answers(tmp_path, {"say <b> & no more": (0.1, 0.9)})
    (tmp_path / "recipe.toml").write_text('name = "x"\n[stage.eval]\nkind = "evaluate"\n')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "say &lt;b&gt; &amp; no more <del>sft </del><ins>ppo</ins>" in re.sub(r"\s+<", " <", page)
