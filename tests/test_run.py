"""The run folder: nothing half-written, nothing lost, and an interrupted run ends as if it had not been."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_llama

from accord.cli import main
from accord.data.tokenizer import load_tokenizer
from accord.engine import Engine, Learner, Progress
from accord.errors import EngineError, ModelError, RecipeError
from accord.estimate import mean, ratio
from accord.model import load_policy, load_scorer
from accord.outputs import Roles
from accord.recipe import Optim
from accord.recipe_file import parse
from accord.run import Run, StageFolder, read_json, read_rows, write_folder, write_json, write_text
from accord.stages import run as run_recipe
from accord.stages.fit import stop_on_signal


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


# --------------------------------------------------------------------------------------------------------------- writing


def filled(target: Path, name: str, text: str) -> None:
    write_folder(target, lambda draft: (draft / name).write_text(text))


def fail(target: Path) -> None:
    def fill(draft: Path) -> None:
        (draft / "large").write_text("half of it")
        raise ZeroDivisionError

    write_folder(target, fill)


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path):
    target = tmp_path / "model"

    def fill(draft: Path) -> None:
        (draft / "a").write_text("1")
        assert not target.exists()

    write_folder(target, fill)
    assert tree(tmp_path) == {"model/a": "1"}
    with pytest.raises(ZeroDivisionError):
        fail(target)
    assert tree(target) == {"a": "1"}

    def replace(draft: Path) -> None:
        (draft / "c").write_text("2")
        assert tree(target) == {"a": "1"}

    write_folder(target, replace)
    assert tree(tmp_path) == {"model/c": "2"}


def test_what_failed_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "model")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "text", "half of it \ud800")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "model"
    filled(target, "a", "1")
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if path.name == ".model.draft":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(EngineError) as caught:
        filled(target, "a", "2")
    said = f"{target}: No space left on device; free some space, or write to another folder"
    assert (str(caught.value), caught.value.exit_code) == (said, 3)
    assert tree(target) == {"a": "1"}


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "stage.json"
    write_json(path, {"status": "é"})
    assert path.read_text(encoding="utf-8") == '{\n "status": "é"\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"status": object()})
    assert read_json(path) == {"status": "é"}
    assert [file.name for file in tmp_path.iterdir()] == ["stage.json"]
    with pytest.raises(EngineError) as caught:
        write_text(path / "inside", "x")
    assert str(caught.value) == f"{path}/inside: Not a directory; write to another folder"


@pytest.mark.parametrize("damage", [b"", b'{"status": "do', b"\xff\xfe\x00", b"[]"])
def test_a_damaged_record_is_named(tmp_path: Path, damage: bytes):
    folder = StageFolder(tmp_path / "sft")
    assert folder.record == {}
    folder.path.mkdir()
    (folder.path / "stage.json").write_bytes(damage)
    with pytest.raises(EngineError) as caught:
        _ = folder.record
    assert str(caught.value).startswith(f"{folder.path}/stage.json: is damaged (")
    assert str(caught.value).endswith("; remove its folder to have the stage done again")


def test_a_damaged_run_json_costs_nothing_but_itself(tmp_path: Path):
    run = Run(parse({"name": "x", "stage": {"a": {"kind": "pretrain", "data": "a/b"}}}), tmp_path)
    run.open()
    run.stage("a").clear()
    run.stage("a").note(status="done")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(EngineError, match=r"/run.json: is damaged \(.*\); remove the file$"):
        run.open()
    (tmp_path / "run.json").unlink()
    run.check()
    run.open()
    assert run.stage("a").record == {"status": "done"}


@pytest.mark.parametrize("opens", [load_policy, partial(load_scorer, seed=0)])
@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_damaged_weights_are_named(base: Path, tmp_path: Path, opens: Callable[..., object], keep: int):
    shutil.copytree(base, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model: its weights are damaged .*; have its stage done again"):
        opens(tmp_path / "model", load_tokenizer(base, "test"), "test")


def test_a_damaged_log_is_named(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(EngineError, match=r"metrics.jsonl: is damaged"):
        read_rows(tmp_path / "metrics.jsonl")


@pytest.fixture
def learner(engine: Engine) -> Learner:
    return engine.learner(Roles(policy=tiny_llama(layers=1, width=8)), Optim())


@pytest.mark.parametrize("keep", [0, 1, 1000])
def test_a_damaged_state_is_named(tmp_path: Path, engine: Engine, learner: Learner, keep: int):
    engine.save_state(learner, Progress(step=3, memory={"best": 1.0}), tmp_path / "state")
    found = engine.load_state(learner, tmp_path / "state")
    assert (found.step, found.memory) == (3, {"best": 1.0})
    assert engine.load_state(learner, tmp_path / "none") == Progress()
    path = tmp_path / "state" / "state.pt"
    path.write_bytes(b"PK"[:keep] + path.read_bytes()[2:keep])
    with pytest.raises(EngineError) as caught:
        engine.load_state(learner, tmp_path / "state")
    assert str(caught.value).startswith(f"{path}: is damaged (")
    assert str(caught.value).endswith(f"); remove {path.parent} to start the stage again")


def test_a_state_without_a_weight_that_learns_is_refused(tmp_path: Path, engine: Engine, learner: Learner):
    """What stands still is not in a state on purpose; what learns must be."""
    still, *_, learns = (name for name, _ in learner.roles.named_parameters())
    learner.roles.get_parameter(still).requires_grad_(False)
    engine.save_state(learner, Progress(), tmp_path / "state")
    path = tmp_path / "state" / "state.pt"
    state = torch.load(path, weights_only=False)
    assert still not in state["roles"]
    assert engine.load_state(learner, tmp_path / "state") == Progress()
    before = learner.roles.get_parameter(learns).detach().clone()
    for weight in state["roles"].values():
        weight.add_(1)
    del state["roles"][learns]
    torch.save(state, path)
    with pytest.raises(EngineError) as caught:
        engine.load_state(learner, tmp_path / "state")
    assert str(caught.value) == (
        f"{path}: lacks 1 of the weights that are trained, as {learns}; remove {path.parent} to start the stage again"
    )
    assert torch.equal(learner.roles.get_parameter(learns), before)


def test_metrics_are_cut_back_to_a_saved_state(tmp_path: Path):
    folder = StageFolder(tmp_path)
    folder.log(1, {"loss": 2.0, "lr": math.nan})
    folder.log(2, {"loss": math.inf, "accuracy": 1})
    folder.sample([{"step": 2, "response": "é\n"}])
    sizes = folder.sizes()
    before = tree(tmp_path)
    folder.log(3, {"loss": 1.0})
    folder.sample([{"step": 3, "response": "later"}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as when the machine died
    folder.cut_back(sizes)
    assert tree(tmp_path) == before
    assert read_rows(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 2.0, "lr": None},
        {"step": 2, "loss": None, "accuracy": 1},
    ]
    folder.cut_back({"metrics.jsonl": 10**6})  # never grows a file
    folder.cut_back({})  # a stage without a saved state begins again
    assert tree(tmp_path) == {"metrics.jsonl": "", "samples.jsonl": ""}


# ------------------------------------------------------------------------------------------------------------- estimates


def clustered(above: Sequence[float], below: Sequence[float], clusters: Sequence[int]) -> tuple[float, float]:
    """sum(above) / sum(below) and its cluster-robust standard error, straight from the formula."""
    a, b, c = np.array(above), np.array(below), np.array(clusters)
    value = a.sum() / b.sum()
    names = sorted(set(clusters))
    sums = np.array([((a - value * b)[c == name]).sum() for name in names]) / b.sum()
    return value, math.sqrt(len(names) / (len(names) - 1) * (sums**2).sum())


def test_the_mean_has_the_usual_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    found = mean(values.tolist())
    assert found
    assert (found.value, found.n) == (pytest.approx(values.mean()), 50)
    assert found.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert found.to_json() == {"value": found.value, "stderr": found.stderr, "n": 50}
    assert str(found) == f"{values.mean():.3f} ± {values.std(ddof=1) / math.sqrt(50):.3f}"


def test_clusters_and_ratios_follow_the_formula():
    dice = np.random.default_rng(1)
    above, below = dice.normal(size=60).tolist(), dice.integers(1, 9, size=60).tolist()
    clusters = dice.integers(0, 11, size=60).tolist()
    for a, b in ((above, [1.0] * 60), (above, below)):
        found = ratio(a, b, clusters)
        assert found
        assert (found.value, found.stderr) == pytest.approx(clustered(a, b, clusters))
    assert mean(above, clusters) == ratio(above, [1.0] * 60, clusters)


def test_what_was_not_scored_is_left_out():
    found = mean([1.0, math.nan, 0.0, math.nan, 1.0], ["a", "a", "b", "c", "b"])
    assert found
    assert (found.value, found.stderr) == pytest.approx(clustered([1, 0, 1], [1, 1, 1], [0, 1, 1]))
    assert found.n == 3
    assert mean([]) is None
    assert mean([math.nan]) is None
    assert ratio([1.0], [0.0]) is None
    assert math.isnan(getattr(mean([2.0]), "stderr", 0.0))  # nothing is known about the spread of one


# --------------------------------------------------------------------------------------------------------------- resuming

RECIPE = """
name = "stopped"
compute = {{ device = "cpu", threads = 1 }}

[stage.sft]
kind = "sft"
model = "{base}"
data = "rows.jsonl"
eval_data = 0.3
max_tokens = 32
save = 2
eval = 5
optim = {{ lr = 1e-3, steps = 30, batch_size = 4 }}

[stage.reward]
kind = "reward"
model = "@sft"
data = "pairs.jsonl"
ensemble = 2
save = 2
optim = {{ lr = 1e-3, steps = 20, batch_size = 4 }}

[stage.ppo]
kind = "policy"
model = "@sft"
data = "rows.jsonl"
eval_data = 0.3
rewards = {{ "mine.py:count" = 1 }}
params = {{ kl_target = 1.0, critic_warmup = 1 }}
rollout = {{ batch_size = 8, group_size = 2, max_new_tokens = 8 }}
save = 2
optim = {{ lr = 1e-3, steps = 14, batch_size = 4 }}
"""
# When a stage is stopped: so many lines in metrics.jsonl. The reward stage is then in its second member.
STOPS = {"sft": 5, "reward": 24, "ppo": 4}
# Children of a process that has imported everything: each begins in milliseconds, and can be killed for real.
CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    rows = [{"prompt": f"the cat {i}", "completion": f"sat {i * i}"} for i in range(24)]
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "no"} for row in rows]
    for name, table in (("rows", rows), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    (folder / "mine.py").write_text(
        "def count(rollout):\n    return rollout.text.count('e') - len(rollout.tokens) / 8\n"
    )
    (folder / "stopped.toml").write_text(RECIPE.format(base=base))
    CONTEXT.set_forkserver_preload(["accord.cli.commands", "accord.stages.policy", "accord.stages.reward"])
    return folder / "stopped.toml"


def work(recipe: Path, out: Path, overrides: Sequence[str], disk: int) -> None:
    """`accord run` in a process of its own; what it prints goes beside the run folder."""
    with out.with_suffix(".txt").open("a") as printed:
        sys.stdout = sys.stderr = printed
        sys.argv = ["accord", "run", str(recipe), "--out", str(out), *overrides]
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
        main()


def start(recipe: Path, out: Path, *overrides: str, disk: int = resource.RLIM_INFINITY) -> BaseProcess:
    """Begin a run that can write files of at most `disk` bytes."""
    process = CONTEXT.Process(target=work, args=(recipe, out, overrides, disk))
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    process.join(120)
    return process.exitcode


def until(condition: Callable[[], bool], process: BaseProcess) -> None:
    while not condition():
        assert process.is_alive(), f"ended too early, with exit code {process.exitcode}"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run leaves that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert ended(start(recipe, out)) == 0, out.with_suffix(".txt").read_text()
    return results(out)


def logged(folder: Path) -> int:
    """How many lines a stage's fits have logged."""
    logs = [folder / "metrics.jsonl", *folder.glob("state/*/metrics.jsonl")]
    return sum(log.read_bytes().count(b"\n") for log in logs if log.exists())


def results(out: Path) -> dict[str, object]:
    """What the stages have left."""
    return content(out, [path for stage in STOPS for path in (out / stage).rglob("*")])


def content(out: Path, paths: Iterable[Path]) -> dict[str, object]:
    """What in files must not depend on when a run was stopped: bytes of models, logs without clocks and sizes."""
    clocks = ("seconds", "tokens_per_second", "time/")
    found: dict[str, object] = {}
    for path in sorted(path for path in paths if path.is_file()):
        name = str(path.relative_to(out))
        if path.name == "metrics.jsonl":
            found[name] = [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in read_rows(path)]
        elif path.name == "stage.json":
            found[name] = {k: v for k, v in read_json(path).items() if not k.startswith(clocks)}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_ends_as_if_it_had_not_been(
    recipe: Path, whole: dict[str, object], tmp_path: Path, number: signal.Signals
):
    out = tmp_path / "run"
    for name, lines in STOPS.items():
        process = start(recipe, out)
        until(lambda folder=out / name, lines=lines: logged(folder) >= lines, process)
        assert process.pid is not None
        os.kill(process.pid, number)
        assert ended(process) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
        assert read_json(out / name / "stage.json")["status"] == "running"
        assert list((out / name / "state").rglob("state.pt"))
        if number == signal.SIGTERM:
            assert read_json(out / "run.json")["status"] == "interrupted"
            said = out.with_suffix(".txt").read_text().splitlines()[-1]
            assert said.startswith(f"accord: stage.{name}: stopped at step ")
            assert said.endswith(", state saved; run the same command to go on")
    assert ended(start(recipe, out)) == 0, out.with_suffix(".txt").read_text()
    found = results(out)
    assert sorted(found) == sorted(whole)
    assert [name for name in whole if found[name] != whole[name]] == []
    assert len([name for name in whole if name.endswith("model.safetensors")]) == 5  # sft, two rewards, policy, critic
    printed = out.with_suffix(".txt").read_text()
    assert [printed.count(f"{name:<10} goes on") for name in STOPS] == [1, 1, 1]
    assert not list(out.rglob("state"))
    assert not [path for path in out.rglob(".*") if path.name not in {".gitignore", ".lock"}]


def test_a_killed_policy_stage_with_adapters_ends_as_if_it_had_not_been(recipe: Path, tmp_path: Path):
    overrides = ["stage.ppo.lora.r=4", "stage.sft.optim.steps=2", "stage.reward.optim.steps=1"]
    assert ended(start(recipe, tmp_path / "whole", *overrides)) == 0
    out = tmp_path / "run"
    process = start(recipe, out, *overrides)
    until(lambda: logged(out / "ppo") >= STOPS["ppo"], process)
    process.kill()
    ended(process)
    state = torch.load(out / "ppo" / "state" / "state.pt", weights_only=False)
    assert all("lora_" in name or name == "scorer.score.weight" for name in state["roles"])  # the base is not in it
    assert ended(start(recipe, out, *overrides)) == 0
    found, expected = (
        {k: v for k, v in results(path).items() if "adapter_config" not in k}  # it names its base's folder
        for path in (out, tmp_path / "whole")
    )
    assert found == expected


@pytest.mark.parametrize(("save", "file"), [(2, "state"), (1000, "model")])
def test_a_disk_that_takes_no_more(recipe: Path, tmp_path: Path, save: int, file: str):
    """Neither a traceback nor half a file; once there is room, the run goes on."""
    out = tmp_path / "run"
    process = start(recipe, out, f"stage.sft.save={save}", "--only=sft", disk=30_000)
    said = (ended(process), out.with_suffix(".txt").read_text().splitlines()[-1])
    assert said[0] == 3, said
    assert said[1].startswith(f"accord: {out}/sft/{file}: ")
    assert said[1].endswith("write to another folder")
    assert sorted(path.name for path in (out / "sft").iterdir()) == ["metrics.jsonl", "stage.json"]
    assert ended(start(recipe, out, f"stage.sft.save={save}", "--only=sft")) == 0
    assert (out / "sft" / "model" / "model.safetensors").is_file()


def test_a_second_run_is_kept_out_of_a_folder_while_the_first_is_alive(recipe: Path, tmp_path: Path):
    out = tmp_path / "run"
    first = start(recipe, out)
    until(lambda: logged(out / "sft") > 0, first)
    before = out.with_suffix(".txt").read_text()
    assert ended(start(recipe, out)) == 3
    said = out.with_suffix(".txt").read_text().replace(before, "")
    assert (
        f"accord: {out}: another run is at work in this folder; wait for it, stop it, or write elsewhere with" in said
    )
    first.kill()
    ended(first)
    assert ended(start(recipe, out, "--only=sft")) == 0


@pytest.mark.parametrize("caught", ["", "except BaseException: pass"])
def test_a_signal_while_modules_are_imported_is_an_interruption(tmp_path: Path, caught: str):
    """Also where the module catches everything, and where Python itself remembers it (an interrupted `exec` of a string)."""
    body = "exec('import os, signal; os.kill(os.getpid(), signal.SIGTERM)')"
    (tmp_path / "mine.py").write_text(f"try: {body}\n{caught or 'finally: pass'}\n")
    program = (
        "import signal; from accord.cli import interrupt; signal.signal(15, interrupt); import mine; print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "accord: interrupted\n")


def test_a_signal_before_the_first_stage_is_an_interruption(recipe: Path, tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-m", "accord", "run", str(recipe), "--out", str(tmp_path / "run")])
    time.sleep(1.5)  # it imports
    process.terminate()
    assert process.wait(60) == 130


@pytest.mark.parametrize("mine", ["recipe.toml", "a/notes.txt", "a"])
def test_what_no_run_has_left_is_not_taken_for_a_run_s(tmp_path: Path, mine: str):
    """A folder of the user's with the name of a stage, a recipe that --out would write over."""
    run = Run(parse({"name": "x", "stage": {"a": {"kind": "pretrain", "data": "a/b"}}}), tmp_path)
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text("mine")
    with pytest.raises(RecipeError) as caught:
        run_recipe(run.recipe, run.path)
    fix = "name another folder with --out, or move it away"
    assert str(caught.value) == f"--out: {tmp_path / mine.partition('/')[0]} is there already and not of a run; {fix}"
    assert tree(tmp_path) == {mine: "mine"}


def test_what_a_run_has_left_is_gone_on_with(tmp_path: Path):
    run = Run(parse({"name": "x", "stage": {"a": {"kind": "pretrain", "data": "a/b"}}}), tmp_path / "run")
    run.check()
    run.open()
    run.stage("a").clear()  # and stopped before it said so
    run.check()
    run.stage("a").note(status="running")
    run.stage("a").log(1, {"loss": 1.0})
    run.check()


def test_a_second_interrupt_does_not_wait_for_the_step():
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_records_how_it_ended(tmp_path: Path):
    run = Run(parse({"name": "x", "seed": 3, "stage": {"a": {"kind": "pretrain", "data": "a/b"}}}), tmp_path / "run")
    run.open()
    record = read_json(tmp_path / "run" / "run.json")
    assert (record["name"], record["seed"], record["status"]) == ("x", 3, "running")
    run.note("done", device="cpu")
    record = read_json(tmp_path / "run" / "run.json")
    assert (record["status"], record["device"]) == ("done", "cpu")
    assert {"versions", "hardware", "started", "seconds"} <= record.keys()
