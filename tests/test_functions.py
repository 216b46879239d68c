"""Functions by reference: found, imported once, and every mistake answered in one message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from accord.data.batch import Batch, Row, collate
from accord.errors import DataError, EngineError, RecipeError
from accord.functions import is_reference, load_function, running, source_of
from accord.health import enough_memory
from accord.objectives import Objective, check_params, resolve
from accord.outputs import Outputs
from accord.sampler import Rollout
from accord.score import Score, from_function
from accord.suites import resolve as resolve_suite

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


def test_what_is_no_python_file_is_no_reference(tmp_path: Path):
    file = write(tmp_path / "mine.py:old", "def f(): ...\n")
    assert said(f"{file}:f") == f"stage.ppo.rewards: {file} is not a Python file; a reference is 'file.py:fn'"


# --------------------------------------------------------------------------------------------------------- when they run

MINE = """
from accord import Loss, Score, objective
from accord.suites import Suite

def word(rollout):
    return "good"

def divides(rollout):
    return 1 / 0

def ends(rollout):
    raise SystemExit(5)

def pair(rollout, other):
    return 1.0

def one(rollouts):
    return [1.0]

def number(rollouts):
    return 1.0

def short(rollouts):
    return 1.0 if len(rollouts) > 1 else [Score(2.0)]

def no_suite(records, reward):
    return 3

def lost(records, reward):
    return records[0]

def judged(records, reward):
    return Suite("mine", records, {"reward": reward, "word": lambda rollouts: "ab", "half": lambda rollouts: [0.5]})

def no_loss(out, batch):
    return out.logp.sum()

def unknown_unit(out, batch):
    return Loss({"x": (out.logp.sum(), "rows", 1.0)})

def no_weight(out, batch):
    return Loss({"x": (out.logp.sum(), "row")})

def no_sum(out, batch):
    return Loss({"x": (out.logp.sum(), "row", 1.0)}, {"y": out.logp.sum()})

@objective(needs=["ref_logp"])
def no_column(out, batch):
    return Loss({"x": ((out.logp - batch["ref_logp"]).sum(), "row", 1.0)})

def no_output(out, batch):
    return Loss({"x": (out.score.sum(), "row", 1.0)})

def large(out, batch):
    raise MemoryError

def scaled(out, batch, *, power, base=2):
    return Loss({"x": (out.logp.sum(), "row", 1.0)})
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write(tmp_path / "mine.py", MINE)


def rollout(group: int = 0) -> Rollout:
    return Rollout(prompt=[], text="x", prompt_tokens=[], tokens=[], logp=[], finish="stop", group=group)


FORM = "a scorer of several returns a list with a float or a Score for each"
MEND = "mend the function"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("word", "returned str; a scorer returns a float or a Score"),
        ("divides", f"raised ZeroDivisionError: division by zero (line 9); {MEND}"),
        ("ends", f"raised SystemExit: 5 (line 12); {MEND}"),
        ("pair", f"raised TypeError: pair() missing 1 required positional argument: 'other'; {MEND}"),
        ("one", f"returned 1 values for 2 rollouts; {FORM}"),
        ("number", f"returned float for 2 rollouts; {FORM}"),
    ],
)
def test_what_a_scorer_does_wrong_is_told_with_its_line(mine: Path, name: str, message: str):
    scorer = from_function(f"{mine}:{name}", WHERE)
    with pytest.raises(DataError) as caught:
        scorer([rollout(), rollout()])
    assert str(caught.value) == f"{mine}:{name}: {message}"


def test_a_scorer_of_groups_is_asked_group_by_group(mine: Path):
    assert from_function(f"{mine}:short", WHERE)([rollout(0), rollout(1)]) == [Score(2.0), Score(2.0)]


def test_what_a_suite_does_wrong_is_told(mine: Path):
    where = "stage.ev.suites"
    with pytest.raises(RecipeError) as caught:
        resolve_suite("prmpts", where)
    said = str(caught.value)
    assert said.startswith(f"{where}: unknown suite 'prmpts'; known: prompts, demo, ")
    assert said.endswith(', or "file.py:fn"')
    with pytest.raises(RecipeError) as caught:
        resolve_suite(f"{mine}:no_suite", where)([], None)
    assert str(caught.value) == f"{where}: {mine}:no_suite returned int; return an accord.suites.Suite"
    with pytest.raises(DataError) as caught:
        resolve_suite(f"{mine}:lost", where)([], None)
    assert str(caught.value) == f"{mine}:lost: raised IndexError: list index out of range (line 30); {MEND}"


def test_what_the_scorers_of_a_suite_do_wrong_is_told(mine: Path):
    def reward(rollouts: object) -> list[Score]:
        return [Score(3.0)]

    suite = resolve_suite(f"{mine}:judged", "stage.ev.suites")([], reward)
    assert suite.scorers["reward"] is reward
    assert suite.scorers["half"]([rollout()]) == [Score(0.5)]
    with pytest.raises(DataError) as caught:
        suite.scorers["word"]([rollout()])
    assert str(caught.value) == f"{mine}:judged: returned 2 values for 1 rollouts; {FORM}"


BATCH = collate([[Row([5, 9], [False, True])]], 0)
SUM = "a term is (sum, unit, weight), a metric (sum, unit); units: token, row, pair, group, value"


def asked(objective: Objective, batch: Batch = BATCH) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (DataError, ModelError and RecipeError)
        objective(Outputs({"logp": torch.zeros(1, 2)}), batch)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_loss", "{at}: returned Tensor; an objective returns an accord.Loss"),
        ("unknown_unit", f"{{at}}: 'x' is no sum with its unit; {SUM}"),
        ("no_weight", f"{{at}}: 'x' is no sum with its unit; {SUM}"),
        ("no_sum", f"{{at}}: 'y' is no sum with its unit; {SUM}"),
        ("no_column", f"{{at}}: raised KeyError: 'ref_logp' (line 49); {MEND}"),
        ("no_output", "objective: reads 'score', which was not computed; declare outputs=[..., 'score']"),
    ],
)
def test_what_an_objective_does_wrong_is_told(mine: Path, name: str, message: str):
    at = f"{mine}:{name}"
    assert asked(resolve(at, {}, "stage.dpo.objective")) == message.format(at=at)


def test_params_of_an_objective_are_those_of_its_function(mine: Path):
    where, scaled = "stage.dpo.params", resolve(f"{mine}:scaled", {}, "stage.dpo.objective")
    check_params(scaled, {"power": 3}, where)
    with pytest.raises(RecipeError) as caught:
        check_params(scaled, {"powr": 3}, where)
    assert str(caught.value) == f"{where}.powr: objective 'scaled' has no such parameter; known: power, base"
    with pytest.raises(RecipeError) as caught:
        check_params(scaled, {"base": 3}, where)
    assert str(caught.value) == f"{where}.power: objective 'scaled' needs it; add it to the recipe"


def test_a_lack_of_memory_is_no_fault_of_the_function(mine: Path):
    greedy = resolve(f"{mine}:large", {}, "stage.dpo.objective")
    with pytest.raises(EngineError) as caught, enough_memory("optim.micro_tokens", 1):
        greedy(Outputs({}), BATCH)
    assert str(caught.value).startswith("memory: there is not enough for optim.micro_tokens = 1; try ")
    with pytest.raises(RuntimeError, match=r"^out of memory$"), running(f"{mine}:large"):
        raise RuntimeError("out of memory")
