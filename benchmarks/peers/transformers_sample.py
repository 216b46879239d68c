"""`generate` of transformers, with weights in the precision that is compared (faster there than autocast)."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.sampling import Prompt, count, name, prompts
from benchmarks.works import SEED, Job


class Generates(Protocol):
    """What is asked of a model."""

    def generate(self, *, input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig) -> Tensor: ...


@torch.no_grad()
def run(job: Job) -> Result:
    """Answer all prompts in one batch, padded on the left, again and again."""
    probe, path, asked = Probe(job), job.model(name(job)), prompts(job)
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, job.precision)).eval()
    model = cast(Generates, cast(torch.nn.Module, model).to(job.device))
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=job.of.answer[1], do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=end,
        pad_token_id=pad,
    )  # fmt: skip
    tokens, attend = (part.to(job.device) for part in left_padded(asked, pad))
    for _ in range(job.total):
        found = model.generate(input_ids=tokens, attention_mask=attend, generation_config=settings)
        answers = found[:, tokens.shape[1] :].tolist()
        count(probe, asked, [row[: row.index(end) + 1] if end in row else row for row in answers])
    return probe.report()


def left_padded(asked: list[Prompt], pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and what is real of them, [B, T] each."""
    width = max(len(ask.tokens) for ask in asked)
    tokens = torch.tensor([[pad] * (width - len(ask.tokens)) + ask.tokens for ask in asked])
    real = torch.tensor([[0] * (width - len(ask.tokens)) + [1] * len(ask.tokens) for ask in asked])
    return tokens, real


if __name__ == "__main__":
    answer(run(told()))
