"""Functions by reference: found, imported once, and every mistake answered in one message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from accord.errors import RecipeError
from accord.functions import is_reference, load_function, source_of

WHERE = "stage.ppo.rewards"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that a test makes importable are forgotten after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def said(reference: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_function(reference, WHERE)
    return str(caught.value)


def test_a_reference_is_told_from_files_and_names():
    assert is_reference("my_rewards.py:brevity")
    assert is_reference("/somewhere/data.py:")
    assert not any(map(is_reference, ["org/name", "rows.jsonl", "accord:demo/chats", "@sft", "script.py"]))


def test_the_function_is_found_and_the_file_runs_once(tmp_path: Path):
    file = write(tmp_path / "rewards.py", "runs = []\nruns.append(1)\ndef count():\n    return len(runs)\n")
    first = load_function(f"{file}:count", WHERE)
    assert first() == 1
    assert load_function(f"{file}:count", WHERE) is first


def test_files_of_one_name_stay_apart(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "mine.py", f"def which():\n    return {name!r}\n")
    assert [load_function(f"{tmp_path / name / 'mine.py'}:which", WHERE)() for name in ("a", "b")] == ["a", "b"]


def test_neighbours_of_the_file_are_importable(tmp_path: Path):
    write(tmp_path / "beside_the_function.py", "value = 3\n")
    file = write(tmp_path / "mine.py", "import beside_the_function\ndef f():\n    return beside_the_function.value\n")
    assert load_function(f"{file}:f", WHERE)() == 3


def test_relative_paths_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "mine.py", "class Judge:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    assert type(load_function("mine.py:Judge", WHERE)()).__name__ == "Judge"


def test_the_source_is_the_text_of_the_file(tmp_path: Path):
    file = write(tmp_path / "mine.py", "def f(): ...\n")
    assert source_of(f"{file}:f") == "def f(): ...\n"
    with pytest.raises(RecipeError) as caught:
        source_of(f"{tmp_path / 'elsewhere.py'}:f")
    assert str(caught.value) == (
        f"{tmp_path / 'elsewhere.py'}:f: no such file: {tmp_path / 'elsewhere.py'}; "
        "a reference is 'file.py:fn', relative to the recipe"
    )


def test_no_such_file_names_the_nearest(tmp_path: Path):
    write(tmp_path / "rewards.py", "")
    assert said(f"{tmp_path / 'reward.py'}:f") == (
        f"stage.ppo.rewards: no such file: {tmp_path / 'reward.py'}; did you mean 'rewards.py'?; "
        "a reference is 'file.py:fn', relative to the recipe"
    )


def test_no_such_function_names_the_nearest(tmp_path: Path):
    text = "from pathlib import Path\ndef brevity(rollout):\n    return 0.0\ndef polite(rollout):\n    return 1.0\n"
    file = write(tmp_path / "mine.py", text)
    assert said(f"{file}:brevty") == (
        f"stage.ppo.rewards: no function 'brevty' in {file}; did you mean 'brevity'?; known: brevity, polite"
    )
    assert said(f"{file}:") == f"stage.ppo.rewards: no function of {file} is named; known: brevity, polite"


def test_no_functions_at_all(tmp_path: Path):
    file = write(tmp_path / "mine.py", "import json\n")
    assert said(f"{file}:f") == f"stage.ppo.rewards: no function 'f' in {file}; known: (none)"


def test_what_is_named_must_be_callable(tmp_path: Path):
    file = write(tmp_path / "mine.py", "weight = 3\n")
    assert said(f"{file}:weight") == (
        f"stage.ppo.rewards: 'weight' in {file} is int, not a function; a reference is 'file.py:fn'; "
        "name a function of the file"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        ("import json\n\ndef f(:\n", "SyntaxError: invalid syntax (line 3)"),
        ("import no_such_package_of_ours\n", "ModuleNotFoundError: No module named 'no_such_package_of_ours' (line 1)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (line 2)"),
        ("import json\njson.loads('{')\n", "json.decoder.JSONDecodeError: Expecting property name enclosed in double "
                                           "quotes: line 1 column 2 (char 1) (line 2)"),
    ],
)  # fmt: skip
def test_a_file_that_fails_names_the_exception_and_its_line(tmp_path: Path, text: str, error: str):
    file = write(tmp_path / "mine.py", text)
    assert said(f"{file}:f") == f"stage.ppo.rewards: {file} does not import: {error}; mend the file"
    # The broken half-module is not kept: once mended, the file imports.
    write(file, "def f():\n    return 'mended, and of another length than before'\n")
    assert load_function(f"{file}:f", WHERE)() == "mended, and of another length than before"
