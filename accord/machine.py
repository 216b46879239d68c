"""What the machine has, and what is asked of it: device, precision, processes, memory."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

import torch

from accord.errors import EngineError
from accord.recipe import Compute


def process_count(compute: Compute) -> int:
    """How many processes a run starts by itself."""
    return compute.processes if device_of(compute.device) == "cpu" else 1


def keep_memory() -> None:
    """Have the C library keep what is freed for what is asked for next, until `give_back`: a page that comes from the system
    anew costs several passes over it, and updates ask for the same memory again and again."""
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    _of_c_library("mallopt", trim_threshold, -1)
    _of_c_library("mallopt", mmap_threshold, 32 << 20)  # the most that it takes


def give_back() -> None:
    """Hand to the machine the memory of what nobody holds any more: it stays with the process otherwise."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _of_c_library("malloc_trim", 0)


def _of_c_library(name: str, *given: int) -> None:
    """Call a function of the C library, where it has one of that name."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None)[name](*given)


def device_of(name: str) -> str:
    """The device that a recipe names; with "auto" the fastest that is there."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "auto":
        return found
    if name not in {"cpu", found}:
        raise EngineError("compute.device", f"there is no '{name}' here", f'found: {found}; use device = "auto"')
    return name


def precision_of(name: str, device: str) -> str:
    """The precision of products that a recipe names; with "auto" bfloat16 where the device is made for it."""
    if name != "auto":
        return name
    if device == "cpu":
        return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"  # elsewhere it is slower than float32
    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
