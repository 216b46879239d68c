"""Several processes on one run: the same tokens and weights as one, one set of files, and no waiting for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from test_pipeline import table

from accord import processes
from accord.errors import EngineError, Interrupted
from accord.recipe import Table
from accord.recipe_file import dump, parse
from accord.run import Run, read_json, read_rows
from accord.stages import run as run_recipe

CLOCKS = ("seconds", "tokens_per_second", "time/")
LLAMAS = ("sft/model", "reward/model", "reward/model-1", "chooser/model", "dpo/model", "ppo/model", "ppo/critic")


def in_processes(base: Path, count: int) -> Table:
    """The tiny recipe with every kind of stage. Plain gradient steps: AdamW blows rounding up where gradients vanish."""
    made = table(base)
    cast("dict[str, object]", made["compute"])["processes"] = count
    for stage in cast("dict[str, dict[str, object]]", made["stage"]).values():
        if "optim" in stage:
            stage["optim"] = {**cast("dict[str, object]", stage["optim"]), "name": "sgd", "lr": 0.1}
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Run, Run]:
    """The same recipe with one process and with two."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("processes")
    one = run_recipe(parse(in_processes(base, 1)), folder / "one")
    AcceleratorState._reset_state(reset_partial_state=True)
    processes.ahead(1)  # as the command line does; the runs below start theirs when they need them
    two = run_recipe(parse(in_processes(base, 2)), folder / "two")
    return one, two


@pytest.mark.parametrize("folder", LLAMAS)
def test_two_processes_make_the_same_weights(runs: tuple[Run, Run], folder: str) -> None:
    one, two = (load_file(run.path / folder / "model.safetensors") for run in runs)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert float((two[name] - weight).norm()) <= 1e-5 * float(weight.norm()), name


def test_two_processes_say_the_same(runs: tuple[Run, Run]) -> None:
    for name in ("sft/samples.jsonl", "ppo/samples.jsonl", "evaluate/answers.jsonl"):
        one, two = (read_rows(run.path / name) for run in runs)
        assert len(one) > 2
        assert [row["response"] for row in two] == [row["response"] for row in one], name


def test_two_processes_log_the_same_numbers_once(runs: tuple[Run, Run]) -> None:
    for stage in ("sft", "reward", "dpo", "ppo"):
        one, two = (read_rows(run.path / stage / "metrics.jsonl") for run in runs)
        assert len(one) == len(two) > 3
        for a, b in zip(one, two, strict=True):
            assert a.keys() == b.keys()
            # Accuracies of a model that has learned nothing hang on the last digit of differences near 0.
            found = {k: v for k, v in b.items() if not k.startswith(CLOCKS) and "accuracy" not in k}
            assert found == pytest.approx({name: a[name] for name in found}, rel=1e-3, abs=1e-4)


def test_two_processes_come_to_the_same_result(runs: tuple[Run, Run]) -> None:
    one, two = (
        cast("dict[str, dict[str, object]]", read_json(run.path / "evaluate/results.json")["models"]) for run in runs
    )
    for model, metrics in one.items():
        for name, value in metrics.items():
            assert two[model][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert {p.relative_to(runs[0].path) for p in runs[0].path.rglob("*")} == {
        p.relative_to(runs[1].path) for p in runs[1].path.rglob("*")
    }


def test_accelerate_launch_makes_the_same_weights(runs: tuple[Run, Run], base: Path, tmp_path: Path) -> None:
    made = in_processes(base, 1)
    (tmp_path / "tiny.toml").write_text(dump(parse(made)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
               "-m", "accord", "run", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]  # fmt: skip
    interface = "lo0" if sys.platform == "darwin" else "lo"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "GLOO_SOCKET_IFNAME": interface}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for folder in LLAMAS:
        one, two = (load_file(path / folder / "model.safetensors") for path in (runs[0].path, tmp_path / "run"))
        for name, weight in one.items():
            assert float((two[name] - weight).norm()) <= 1e-5 * float(weight.norm()), name
    assert done.stdout.count("report: ") == 1  # one of them speaks


def test_this_process_is_alone_again(runs: tuple[Run, Run]) -> None:
    assert read_json(runs[1].path / "run.json")["status"] == "done"
    assert "RANK" not in os.environ
    assert processes.group() is None
    assert processes.gather(3) == [3]


# ------------------------------------------------------------------------------------------------- what goes wrong


def begin(base: Path, folder: Path, kind: str) -> subprocess.Popen[bytes]:
    """A long run in two processes, once it is in the middle of its only stage."""
    made = in_processes(base, 2)
    stages = cast("dict[str, dict[str, object]]", made["stage"])
    long = {"save": 1, "optim": {"lr": 1e-4, "steps": 100_000, "batch_size": 8}}
    beside = {"folds": 0, "ensemble": 2} if kind == "reward" else {}
    made["stage"] = {kind: {**stages[kind], "model": str(base), **long, **beside}}
    (folder / "long.toml").write_text(dump(parse(made)))
    command = [sys.executable, "-m", "accord", "run", str(folder / "long.toml"), "--out", str(folder / "run")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    logs = [Path("state/member-0"), Path("state/member-1")] if kind == "reward" else [Path()]
    metrics = [folder / "run" / kind / log / "metrics.jsonl" for log in logs]
    for _ in range(600):
        if all(log.exists() and log.read_bytes().count(b"\n") > 3 for log in metrics):
            return process
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    raise TimeoutError


def helpers(process: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of the children of a run."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "accord.stages"], capture_output=True, check=False)
    return [int(line) for line in found.stdout.split()]


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(300):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("kind", ["sft", "reward"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_a_run(base: Path, tmp_path: Path, number: signal.Signals, code: int, kind: str) -> None:
    process = begin(base, tmp_path, kind)
    (other,) = helpers(process)
    process.send_signal(number)
    assert process.wait(60) == code
    assert gone(other)
    if number == signal.SIGTERM:
        assert len(list((tmp_path / "run" / kind / "state").rglob("state.pt"))) == (2 if kind == "reward" else 1)
        assert "state saved; run the same command to go on" in (tmp_path / "log").read_text()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_a_run_does_not_wait_for_a_process_that_died(base: Path, tmp_path: Path) -> None:
    process = begin(base, tmp_path, "sft")
    (other,) = helpers(process)
    os.kill(other, signal.SIGKILL)
    assert process.wait(60) == EngineError.exit_code
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert said.startswith("accord: process 1: ended"), said


def lose(name: str) -> None:
    """What PyTorch does once a child of this process has ended."""
    while subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", name], capture_output=True, check=False).stdout:
        time.sleep(0.02)
    raise RuntimeError("the connection was closed")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "process 1: ended without a word; run the same command to go on"),
        ("print(1)\nraise SystemExit('no room')", "process 1: ended: no room; run the same command to go on"),
        ("", "the connection was closed"),  # nobody has failed but this process
    ],
)
def test_a_process_that_fails_is_named_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    (tmp_path / "helper_of_ours.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError) as caught, processes.others(2, lambda _: ["helper_of_ours"]):
        lose("helper_of_ours")
    assert (str(caught.value), isinstance(caught.value, EngineError)) == (said, bool(code))


class Others:
    """Processes that never come to where this one waits."""

    def get_world_size(self) -> int:
        return 2

    def get_rank(self) -> int:
        return 0

    def barrier(self, async_op: bool) -> Others:
        return self

    def is_completed(self) -> bool:
        return False


def test_a_process_that_waits_for_others_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "group", lambda: None if processes._ALONE.get() else Others())
    stop, done = threading.Event(), list[tuple[int, int]]()

    def work(job: int) -> None:
        done.append((job, processes.count()))
        stop.set()

    with pytest.raises(Interrupted, match="run the same command"):
        processes.apart([0, 1, 2, 3, 4], work, stop)
    assert done == [(0, 1), (2, 1)]  # its own, alone; the last one would have been for both
    assert not processes._ALONE.get()


def test_micro_batches_are_shared_out_evenly() -> None:
    from accord.data.batch import Row, collate

    dice = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 60, (33,), generator=dice).tolist()
    batch = collate([[Row([1] * n, [True] * n)] for n in lengths], 0)
    for parts in (1, 2, 3):
        micros = batch.micro(600, parts)
        assert sorted(row for rows in micros for row in rows.tolist()) == list(range(33))
        sizes = [int(batch.attend[rows].sum()) for rows in micros]
        assert all(len(rows) * int(batch.last()[rows].max() + 1) <= 600 for rows in micros)
        assert len(micros) % parts == 0
        assert max(sizes) - min(sizes) <= 2 * max(lengths)
    assert len(batch.micro(10_000)) == 1
    assert len(batch.micro(10_000, 4)) == 4
    assert [len(rows) for rows in batch.micro(1)] == [1] * 33


def test_who_was_started_ahead_in_vain_ends_with_the_run() -> None:
    starts = "from accord import processes; processes.ahead(1); print(processes._AHEAD[0].pid)"
    done = subprocess.run([sys.executable, "-c", starts], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
