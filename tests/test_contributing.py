"""CONTRIBUTING.md does what it says: its files are written, its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest
from test_cli import Accord, accord  # noqa: F401  (a fixture)

from accord.run import read_json, read_rows

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)}
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?:#|\{#) ([\w./-]+)")


def follow(section: str, here: Path, run: Accord) -> list[str]:
    """Write the files and run the commands of a section, in order; returns what the commands printed."""
    said: list[str] = []
    for _, kind, body in BLOCK.findall(section):
        text = dedent(body)
        if kind == "sh":
            for line in text.splitlines():
                done = run(*shlex.split(line)[1:])
                assert done.code == 0, done.err
                said.append(done.out)
        else:
            found = NAMED.match(text)
            assert found
            (here / found[1]).write_text(text if kind != "jinja" else text.partition("\n")[2].rstrip("\n"))
    return said


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contributing")


@pytest.fixture
def here(home: Path, accord: Accord, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.chdir(home)
    follow(SECTIONS["# Contributing"], home, accord)
    return home


def test_every_section_has_five_steps_at_most() -> None:
    pieces = ["An objective", "A scorer", "A data source", "A chat template", "A suite"]
    assert list(SECTIONS)[1:] == pieces
    for piece in pieces:
        steps = [int(number) for number in re.findall(r"^(\d)\. ", SECTIONS[piece], re.MULTILINE)]
        assert steps == list(range(1, len(steps) + 1))
        assert 3 <= len(steps) <= 5


def test_an_objective(here: Path, accord: Accord) -> None:  # noqa: F811
    follow(SECTIONS["An objective"], here, accord)
    losses = [row["loss"] for row in read_rows(here / "runs/small/dpo/metrics.jsonl") if "loss" in row]
    assert losses[0] == pytest.approx(1, abs=1e-3)  # 1 - sigmoid(0) + sigmoid(0)


def test_a_scorer(here: Path, accord: Accord) -> None:  # noqa: F811
    follow(SECTIONS["A scorer"], here, accord)
    models = read_json(here / "runs/small/evaluate/results.json")["models"]
    assert isinstance(models, dict)
    assert "prompts/reward" in str(models)


def test_a_data_source(here: Path, accord: Accord) -> None:  # noqa: F811
    look, _ = follow(SECTIONS["A data source"], here, accord)
    assert look.startswith("3 records: 3 Example\n\nnothing wrong was found")


def test_a_chat_template(here: Path, accord: Accord) -> None:  # noqa: F811
    _, look = follow(SECTIONS["A chat template"], here, accord)
    assert "| [user] " in look
    assert "[assistant] ⟦" in look
    assert "<|end|>⟧" in look


def test_a_suite(here: Path, accord: Accord) -> None:  # noqa: F811
    follow(SECTIONS["A suite"], here, accord)
    assert "sentences@greedy/ends" in str(read_json(here / "runs/small/evaluate/results.json")["models"])
