"""What both samplers share: the prompts, and how answers are counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.peers.probe import Probe
from benchmarks.works import Job


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt, and how long its answer will be."""

    tokens: list[int]
    length: int


def prompts(job: Job) -> list[Prompt]:
    """Those of the work."""
    return [Prompt(**json.loads(line)) for line in job.rows.read_text(encoding="utf-8").splitlines()]


def name(job: Job) -> str:
    """The model that answers."""
    low, high = job.of.answer
    return "actor" if low == high else "chain"


def count(probe: Probe, asked: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> None:
    """Note what was said: answers that are the same for every sampler token by token, of others their lengths."""
    varied = name(probe.job) == "chain"
    for prompt, said in zip(asked, answers, strict=True):
        tokens = torch.tensor([*prompt.tokens, *said] if varied else [len(prompt.tokens), *([0] * len(said))])
        first = len(prompt.tokens) if varied else 1
        probe.saw(tokens[None], torch.ones_like(tokens)[None], (torch.arange(len(tokens)) >= first)[None])
    probe.mark()
