"""Batched decoding over the model's own forward pass: continuous batching with preallocated keys and values.

Rows leave when they end and waiting ones take their places. The noise is a function of (seed, number of the answer,
position), so what a row says does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.attention import KNOWN
from accord.recipe import Decoding
from accord.sampler import PLAIN, Ask, Rollout
from accord.sampler.answers import Answers
from accord.sampler.cache import Prompts, Rows, Slots, windows
from accord.sampler.lean import Forward, ready
from accord.sampler.padded import decode_padded

PREFILL = 1024  # tokens of prompts in one forward pass


@dataclass
class LocalSampler:
    """Samples from a model in this process. `stops` are the tokens that end an answer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: set[int]
    max_rows: int = 256

    @torch.inference_mode()
    def generate(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        version: int = 0,
        decoding: Decoding = PLAIN,
    ) -> list[Rollout]:
        """One answer for each ask, in order; temperature 0 is greedy."""
        if not asks:
            return []
        answers = Answers(
            asks, self.tokenizer, self.stops, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            decoding=decoding, device=self.model.device,
        )  # fmt: skip
        rows = min(self.max_rows, len(asks))
        if self.model.config.model_type in KNOWN:
            with ready(self.model) as (forward, dtype):
                Decoder(forward, answers, Slots(rows, dtype), self.model).run()
        else:
            decode_padded(self.model, answers, rows)
        return answers.rollouts(version)


class Decoder:
    """Rows that are answered side by side: the asks in the slots, and those that wait for one."""

    def __init__(self, forward: Forward, answers: Answers, slots: Slots, model: PreTrainedModel) -> None:
        self.forward, self.answers, self.slots = forward, answers, slots
        self.windows = windows(model.config)
        self.waiting = bunches(answers.asks, slots.count)
        self.held: list[int] = []  # the ask in each slot in use
        self.steps = 0
        self.behind: list[int] = []  # tokens in each of them before step 0
        self.of = torch.zeros(slots.count, dtype=torch.int64, device=model.device)  # `held`, on the device
        self.token = torch.zeros_like(self.of)  # the last of each row
        self.position = torch.zeros_like(self.of)  # its place in the row

    def run(self) -> None:
        """Answer all asks."""
        while self.waiting or self.held:
            self.fill()
            if self.held:
                self.go_on()

    def fill(self) -> None:
        """Begin as many as there are free slots for, unless that is a few only."""
        free = self.slots.count - len(self.held)
        while self.waiting and free >= len(self.waiting[-1]) and (not self.held or free >= self.slots.count // 16):
            self._begin(self._next(free))
            free = self.slots.count - len(self.held)

    def _next(self, free: int) -> list[list[int]]:
        """The bunches that begin next: they have free slots, and their prompts fit into one forward pass."""
        chosen: list[list[int]] = []
        tokens = 0
        while self.waiting and len(self.waiting[-1]) <= free:
            tokens += len(self.answers.asks[self.waiting[-1][0]].tokens)
            if chosen and tokens > PREFILL:
                break
            chosen.append(self.waiting.pop())
            free -= len(chosen[-1])
        return chosen

    def _begin(self, chosen: Sequence[Sequence[int]]) -> None:
        """Read the prompts of bunches, and draw the first token of each answer."""
        begun = len(self.held)
        prompts = [self.answers.asks[bunch[0]].tokens for bunch in chosen]
        new = [i for bunch in chosen for i in bunch]
        which = torch.tensor([k for k, bunch in enumerate(chosen) for _ in bunch], device=self.of.device)
        rows = torch.arange(begun, begun + len(new), device=self.of.device)
        layout = Prompts(self.slots, prompts, rows, which, self.windows)
        logits = self.forward(layout.tokens, layout.positions, layout, layout.last)
        self.held += new
        lengths = [len(self.answers.asks[i].tokens) for i in new]
        self.behind += [length - self.steps for length in lengths]
        self.of[rows] = torch.tensor(new, device=self.of.device)
        self.position[rows] = torch.tensor(lengths, device=self.of.device)
        self._take(logits.index_select(0, which), begun)

    def go_on(self) -> None:
        """One more token for each row."""
        count = min(computed(len(self.held)), self.slots.count)
        self.slots.grow(self.steps + max(self.behind) + 1, len(self.held))
        position = self.position[:count]
        logits = self.forward(self.token[:count], position, Rows(self.slots, position, self.windows))
        self.position[: len(self.held)] += 1
        self.steps += 1
        self._take(logits[: len(self.held)], 0)

    def _take(self, logits: Tensor, first: int) -> None:
        """Draw a token for each row from `first` on; those that end with it leave."""
        drawn, ended = self.answers.take(logits, self.of[first : len(self.held)])
        self.token[first : len(self.held)] = drawn
        if ended:
            self._leave([first + row for row in ended])

    def _leave(self, ended: list[int]) -> None:
        """Let the last rows take the places of those that end before them."""
        left = len(self.held) - len(ended)
        gone = set(ended)
        target = [row for row in ended if row < left]
        source = [row for row in range(left, len(self.held)) if row not in gone]
        for to, row in zip(target, source, strict=True):
            self.held[to], self.behind[to] = self.held[row], self.behind[row]
        del self.held[left:], self.behind[left:]
        if target:
            to, row = torch.tensor(target, device=self.of.device), torch.tensor(source, device=self.of.device)
            self.slots.move(row, to)
            for x in (self.of, self.token, self.position):
                x[to] = x[row]


def computed(rows: int) -> int:
    """How many rows a step computes: a few more than are there, as every new shape costs time to prepare."""
    return rows if rows <= 4 else -(-rows // 4) * 4


def bunches(asks: Sequence[Ask], most: int) -> list[list[int]]:
    """Asks with the same prompt together, which is read once, at most so many; the longest prompt first."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, ask in enumerate(asks):
        by_prompt.setdefault(tuple(ask.tokens), []).append(i)
    made = [same[i : i + most] for same in by_prompt.values() for i in range(0, len(same), most)]
    return sorted(made, key=lambda bunch: -len(asks[bunch[0]].tokens))
