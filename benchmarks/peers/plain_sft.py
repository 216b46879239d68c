"""A plain loop: padded batches through the model of transformers, its own loss, AdamW."""

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.peers.given import encoded, rows, tokenizer
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.works import LR, Job


def batches(job: Job) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, what is real of them, and labels (-100 where nothing is learnt), [B, T] each, for every step."""
    reader = tokenizer(job, "policy")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    lines = rows(job).to_list()
    for i in range(0, len(lines), job.of.batch):
        whole, asked = [], []
        for row in lines[i : i + job.of.batch]:
            whole.append(encoded(reader, row["prompt"] + row["completion"]))
            asked.append(len(encoded(reader, row["prompt"], answering=True)))
        padded = reader.pad({"input_ids": whole}, return_tensors="pt")
        tokens, attend = padded["input_ids"], padded["attention_mask"]
        prompt = torch.arange(tokens.shape[1]) < torch.tensor(asked)[:, None]
        found.append((tokens, attend, tokens.masked_fill(prompt | (attend == 0), -100)))
    return found


def run(job: Job) -> Result:
    """The loop."""
    probe = Probe(job)
    model = cast(torch.nn.Module, AutoModelForCausalLM.from_pretrained(job.model("policy"), dtype=torch.float32))
    model = model.to(job.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR["sft"], weight_decay=0.0)
    half = job.precision == "bfloat16"
    losses: list[float] = []
    for step in batches(job)[: job.total]:
        tokens, attend, labels = (part.to(job.device) for part in step)
        probe.saw(tokens, attend, labels != -100)
        with torch.autocast(job.device, torch.bfloat16) if half else nullcontext():
            loss = model(input_ids=tokens, attention_mask=attend, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        probe.mark()
    return probe.report(losses=losses, metrics=["loss"])


if __name__ == "__main__":
    answer(run(told()))
