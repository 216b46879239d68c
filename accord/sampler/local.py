"""Batched decoding over the model's own forward pass with a key-value cache.

Rows leave the batch when they end. The noise is a function of (seed, number of the answer, position), so what a row
says does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from accord.data.chat import answer_text
from accord.sampler import Ask, Rollout


@dataclass
class LocalSampler:
    """Samples from a model in this process. `stops` are the tokens that end an answer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: set[int]
    max_rows: int = 256

    @torch.no_grad()
    def generate(
        self, asks: Sequence[Ask], *, max_new_tokens: int, temperature: float, seed: int, version: int = 0
    ) -> list[Rollout]:
        """One answer for each ask, in order; temperature 0 is greedy. Batches hold prompts of similar length."""
        by_length = sorted(range(len(asks)), key=lambda i: len(asks[i].tokens))
        found: dict[int, Rollout] = {}
        for start in range(0, len(asks), self.max_rows):
            chosen = by_length[start : start + self.max_rows]
            part = [asks[i] for i in chosen]
            drawn = self._decode(part, max_new_tokens, temperature, seed)
            for i, ask, (tokens, logp) in zip(chosen, part, drawn, strict=True):
                found[i] = self._rollout(ask, tokens, logp, version)
        return [found[i] for i in range(len(asks))]

    def _rollout(self, ask: Ask, tokens: list[int], logp: list[float], version: int) -> Rollout:
        ended = bool(tokens) and tokens[-1] in self.stops
        return Rollout(
            prompt=ask.prompt,
            text=answer_text(self.tokenizer, tokens[:-1] if ended else tokens),
            prompt_tokens=ask.tokens,
            tokens=tokens,
            logp=logp,
            finish="stop" if ended else "length",
            group=ask.group,
            meta=ask.meta,
            version=version,
        )

    def _decode(
        self, asks: Sequence[Ask], max_new_tokens: int, temperature: float, seed: int
    ) -> list[tuple[list[int], list[float]]]:
        """Tokens and log-probs of each answer."""
        device = self.model.device
        home = torch.device("cpu") if device.type == "mps" else device  # drawing needs float64
        tokens, attend = _left_padded([ask.tokens for ask in asks], device)
        positions = (attend.cumsum(1) - 1).clamp(min=0)
        numbers = torch.tensor([ask.number for ask in asks], device=home)
        stops = torch.tensor(sorted(self.stops), device=home)
        rows = torch.arange(len(asks), device=home)  # of `answers`, for the rows still in the batch
        answers: list[tuple[list[int], list[float]]] = [([], []) for _ in asks]
        cache = DynamicCache(config=self.model.config)
        for i in range(max_new_tokens):
            logits = self.model(
                input_ids=tokens,
                attention_mask=attend,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            drawn, logp = draw(logits.float().to(home), temperature, uniform(seed, numbers, i))
            for row, token, value in zip(rows.tolist(), drawn.tolist(), logp.tolist(), strict=True):
                answers[row][0].append(token)
                answers[row][1].append(value)
            going = ~torch.isin(drawn, stops)
            if i == max_new_tokens - 1 or not bool(going.any()):
                break
            if not bool(going.all()):
                keep = going.nonzero()[:, 0]
                drawn, rows, numbers = drawn[keep], rows[keep], numbers[keep]
                cache.batch_select_indices(keep.to(device))
                attend = attend[keep.to(device)]
            tokens = drawn[:, None].to(device)
            positions = attend.sum(1, keepdim=True)
            attend = torch.cat([attend, attend.new_ones(len(attend), 1)], dim=1)
        return answers


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as token ids and attention mask, [B, T] int64 each, padded on the left (with token 0, never attended)."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    attend = torch.zeros(len(prompts), width, dtype=torch.int64)
    for i, prompt in enumerate(prompts):
        tokens[i, width - len(prompt) :] = torch.tensor(prompt)
        attend[i, width - len(prompt) :] = 1
    return tokens.to(device), attend.to(device)


def draw(logits: Tensor, temperature: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A token of each row, [B], and its log-prob under logits / temperature, [B].

    logits: [B, V] float32. noise: [B] in [0, 1). The token is where the cumulative distribution passes the noise, so one
    number decides it. Temperature 0 takes the most likely token; its log-prob is that at temperature 1.
    """
    logp = torch.log_softmax(logits if temperature == 0 else logits / temperature, dim=-1)
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        cumulative = logp.double().exp().cumsum(-1)
        aim = noise[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, aim, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    return token, logp.gather(1, token[:, None])[:, 0]


def uniform(seed: int, numbers: Tensor, position: int) -> Tensor:
    """A number in [0, 1) for each answer number, [B] float64: a counter-based generator (splitmix64's finaliser)."""
    state = (
        numbers * -7046029254386353131
        + seed * 6364136223846793005 % 2**62
        + (position + 1) * 1442695040888963407 % 2**62
    )
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        state = (state ^ _shift(state, shift)) * factor
    state = state ^ _shift(state, 31)
    return _shift(state, 11).double() * 2.0**-53


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical (not arithmetic) shift of int64 to the right."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
