"""Answers in the making: what is drawn, where they end, and what they are in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from accord.data.chat import answer_text
from accord.recipe import Decoding
from accord.sampler import Ask, Rollout
from accord.sampler.draw import draw, penalised, uniform


class Answers:
    """One answer for each ask. Tokens stay on the device until all are drawn."""

    def __init__(
        self,
        asks: Sequence[Ask],
        tokenizer: PreTrainedTokenizerBase,
        stops: set[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        decoding: Decoding,
        device: torch.device,
    ) -> None:
        self.asks, self.tokenizer, self.stops = asks, tokenizer, stops
        self.limit, self.temperature, self.seed, self.decoding = max_new_tokens, temperature, seed, decoding
        self.home = torch.device("cpu") if device.type == "mps" else device  # drawing needs float64
        self.numbers = torch.tensor([ask.number for ask in asks], device=self.home)
        self.ends = torch.tensor(sorted(stops), dtype=torch.int64, device=self.home)
        self.counts = torch.zeros(len(asks), dtype=torch.int64, device=self.home)  # of tokens drawn
        self.tokens = torch.zeros(len(asks), max_new_tokens, dtype=torch.int64, device=self.home)
        self.logp = torch.zeros(len(asks), max_new_tokens, device=self.home)
        self.stopped: set[int] = set()  # those that have said a stop string
        self.prompts = self._prompts() if decoding.repetition_penalty != 1 else None

    def _prompts(self) -> Tensor:
        """Prompts padded with their first token, [asks, T], and answers that begin as nothing but that."""
        longest = max(len(ask.tokens) for ask in self.asks)
        rows = [[*ask.tokens, *ask.tokens[:1] * (longest - len(ask.tokens))] for ask in self.asks]
        prompts = torch.tensor(rows, device=self.home)
        self.tokens += prompts[:, :1]
        return prompts

    def take(self, logits: Tensor, of: Tensor) -> tuple[Tensor, list[int]]:
        """Draw a token, [R], for the asks `of`, [R], from their logits, [R, V]; gives also the rows that end with it."""
        logits, of = logits.float().to(self.home), of.to(self.home)
        count = self.counts[of]
        if self.prompts is not None:
            seen = torch.cat([self.prompts[of], self.tokens[of]], dim=1)
            logits = penalised(logits, seen, self.decoding.repetition_penalty)
        token, logp = draw(logits, self.temperature, uniform(self.seed, self.numbers[of], count), self.decoding)
        self.tokens[of, count], self.logp[of, count], self.counts[of] = token, logp, count + 1
        ended = torch.isin(token, self.ends) | (count + 1 == self.limit)
        rows = ended.nonzero()[:, 0].tolist()
        return token, sorted({*rows, *self._said_stop(of)}) if self.decoding.stop else rows

    def _said_stop(self, of: Tensor) -> list[int]:
        """The rows, of these asks, whose last token completes a stop string."""
        wide = 4 * max(map(len, self.decoding.stop)) + 8  # tokens: a character takes at most four, and some say nothing
        asks, counts = of.tolist(), self.counts[of].tolist()
        tails = [self.tokens[i, max(0, n - wide) : n].tolist() for i, n in zip(asks, counts, strict=True)]
        said = self.tokenizer.batch_decode(tails, skip_special_tokens=True)
        rows = [row for row, text in enumerate(said) if any(stop in text for stop in self.decoding.stop)]
        self.stopped |= {asks[row] for row in rows}
        return rows

    def rollouts(self, version: int) -> list[Rollout]:
        """All answers, in the order of their asks."""
        counts, tokens, logp = self.counts.tolist(), self.tokens.tolist(), self.logp.tolist()
        return [
            self._rollout(i, ask, tokens[i][: counts[i]], logp[i][: counts[i]], version)
            for i, ask in enumerate(self.asks)
        ]

    def _rollout(self, index: int, ask: Ask, tokens: list[int], logp: list[float], version: int) -> Rollout:
        ended = tokens[-1] in self.stops
        finish: Literal["stop", "length"] = "stop" if ended or index in self.stopped else "length"
        return Rollout(
            prompt=ask.prompt,
            text=answer_text(self.tokenizer, tokens[:-1] if ended else tokens, until=self.decoding.stop),
            prompt_tokens=ask.tokens,
            tokens=tokens,
            logp=logp,
            finish=finish,
            group=ask.group,
            meta=ask.meta,
            version=version,
        )
