"""One run in several processes: which one this is, waiting for the others, and starting them on a CPU.

Every process goes through the same stages with the same numbers. The first one writes and prints; what it has written, all
can read, because whoever writes lets the others wait (accord/run.py). On GPUs `accelerate launch` starts the processes.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

from accord.errors import EngineError, Interrupted

Value = TypeVar("Value")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def importing() -> Iterator[None]:
    """Import much at once: nothing of it is ever garbage, so the collector neither looks at it meanwhile nor afterwards.

    That would be seven times while PyTorch and transformers are imported, and 0.2 s each time that memory is given back.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def group() -> ModuleType | None:
    """What the processes talk through; None where this one is alone. Without PyTorch loaded nobody can talk."""
    module = sys.modules.get("torch.distributed")
    return module if module and module.is_initialized() and not _ALONE.get() else None


def count() -> int:
    """How many processes work together."""
    talk = group()
    return talk.get_world_size() if talk else 1


def index() -> int:
    """Which of them this one is."""
    talk = group()
    return talk.get_rank() if talk else 0


def first() -> bool:
    """Whether this process writes files: the first of several, and each while it works alone."""
    return _ALONE.get() or speaks()


def speaks() -> bool:
    """Whether this process prints."""
    return os.environ.get("RANK", "0") == "0"


def wait() -> None:
    """Until every process has come here."""
    if talk := group():
        talk.barrier()


def gather(value: Value) -> list[Value]:
    """The values of all processes, in order, everywhere."""
    if not (talk := group()):
        return [value]
    found: list[Value | None] = [None] * talk.get_world_size()
    talk.all_gather_object(found, value)
    return cast("list[Value]", found)


def once(make: Callable[[], Value]) -> Value:
    """What the first process makes, everywhere: for what may come out differently, or costs, each time."""
    return cast(Value, gather(make() if first() else None)[0])


def leave() -> None:
    """Go on alone: at the end, or when something went wrong and the others would be waited for in vain."""
    if talk := group():
        talk.destroy_process_group()


def apart(jobs: Sequence[Value], do: Callable[[Value], None], stop: threading.Event) -> None:
    """Do jobs that need nothing of each other: as many at a time as there are processes, each by one; the rest together.

    A job must write to places of its own. Raises Interrupted where a process that has done its jobs is told to stop
    while it waits for the others.
    """
    rest = len(jobs) - len(jobs) % count()
    mine = jobs[index() : rest : count()]
    token = _ALONE.set(True)
    try:
        for job in mine:
            do(job)
    finally:
        _ALONE.reset(token)
    if talk := group():
        others = talk.barrier(async_op=True)
        while not others.is_completed():  # a process that waits inside PyTorch hears no signal
            if stop.is_set():
                raise Interrupted("processes", "stopped while others were at work", "run the same command to go on")
            time.sleep(0.02)
        others.wait()
    for job in jobs[rest:]:
        do(job)


@contextmanager
def others(wanted: int, arguments: Callable[[Path], Sequence[str]]) -> Iterator[None]:
    """Start processes 1 .. `wanted` - 1 on this machine, and end them with the block.

    `arguments` are those of `python -m`, given a folder for files that the processes may need. Raises EngineError, with
    the last line that it said, where one of them has failed.
    """
    if wanted == 1 or "RANK" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(wanted),
            "LOCAL_WORLD_SIZE": str(wanted),
            "ACCELERATE_USE_CPU": "true",
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        }
        before = dict(os.environ)
        os.environ |= {**world, "RANK": "0", "LOCAL_RANK": "0"}
        started = [_start(rank, arguments(folder), folder) for rank in range(1, wanted)]
        try:
            yield
        except RuntimeError as error:
            time.sleep(0.5)  # a process that is killed loses its connections a little before it is seen to have ended
            failed = [rank for rank, process in enumerate(started, 1) if process.poll()]
            if isinstance(error, EngineError) or not failed:
                raise
            said = (folder / f"{failed[0]}.log").read_text(errors="replace").strip().splitlines()
            last = "ended" + (f": {said[-1]}" if said else " without a word")
            raise EngineError(f"process {failed[0]}", last, "run the same command to go on") from error
        finally:
            for process in started:
                process.kill()
                process.wait()
            os.environ.clear()
            os.environ |= before


def _start(rank: int, arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{rank}.log").open("wb") as log:
        environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
