"""Decoding for architectures whose attention is not known to be what a layout computes: transformers' own cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from accord.sampler.answers import Answers


def decode_padded(model: PreTrainedModel, answers: Answers, most: int) -> None:
    """Answer all asks in batches of at most so many rows, those with prompts of similar length together."""
    by_length = sorted(range(len(answers.asks)), key=lambda i: len(answers.asks[i].tokens))
    for start in range(0, len(by_length), most):
        _decode(model, answers, torch.tensor(by_length[start : start + most], device=model.device))


def _decode(model: PreTrainedModel, answers: Answers, of: Tensor) -> None:
    """Answer the asks `of`, [R], side by side; rows leave as they end."""
    tokens, attend = left_padded([answers.asks[i].tokens for i in of.tolist()], model.device)
    cache = DynamicCache(config=model.config)
    while True:
        drawn, ended = answers.take(read(model, tokens, attend, cache), of)
        if ended:
            keep = torch.ones_like(of, dtype=torch.bool).index_fill_(0, torch.tensor(ended, device=of.device), False)
            if not bool(keep.any()):
                return
            of, drawn, attend = of[keep], drawn.to(of.device)[keep], attend[keep]
            cache.batch_select_indices(keep.nonzero()[:, 0])
        tokens = drawn.to(of.device)[:, None]
        attend = torch.cat([attend, attend.new_ones(len(attend), 1)], dim=1)


def read(model: PreTrainedModel, tokens: Tensor, attend: Tensor, cache: DynamicCache) -> Tensor:
    """Logits after the last of some more tokens of each row, [B, L], under a mask of all tokens so far, [B, T]: [B, V]."""
    positions = (attend.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    out = model(
        input_ids=tokens, attention_mask=attend, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return out.logits[:, -1]


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as token ids and attention mask, [B, T] int64 each, padded on the left (with token 0, never attended)."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    attend = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return tokens, attend
