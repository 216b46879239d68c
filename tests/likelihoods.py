"""What tests of suites share: likelihoods by a plain transformers loop, one text at a time, and by hand; answers in words.

`python tests/likelihoods.py MODEL SUITE FILE [LIMIT]` (a file, or `accord:demo/report`) prints the suite's figures.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import math
import random
import sys
from pathlib import Path

import pytest
import torch
from conftest import DATA
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from accord.data.dropped import Dropped
from accord.data.records import Prompt
from accord.data.sources import read
from accord.data.tokenizer import end_id, end_of_turn, load_tokenizer
from accord.recipe import Source
from accord.sampler import Rollout
from accord.suites import Answered, Likelihoods, Question, Suite


def rows_of(path: Path) -> list[dict[str, object]]:
    """The rows of a file of JSON lines (compressed or not) or of comma-separated values."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            return [dict(row) for row in csv.DictReader(handle)]
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def likelihood(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: Question) -> Likelihoods:
    """The summed log-probability of each option behind its prompt, without the token that ends it."""
    read = [texts(tokenizer, question, option) for option in question.options]
    logps: list[float] = []
    with torch.no_grad():
        for before, after in read:
            logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
            logps.append(logits.log_softmax(-1).gather(1, torch.tensor(after)[:, None]).sum().item())
    return Likelihoods(question, logps, [len(after) for _, after in read])


def texts(tokenizer: PreTrainedTokenizerBase, question: Question, option: str) -> tuple[list[int], list[int]]:
    """The tokens before an option, and its own."""
    if not question.prompt:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end_id(tokenizer)
        return [start], tokenizer(option, add_special_tokens=False)["input_ids"]
    chat = [*question.prompt, {"role": "assistant", "content": option}]
    asked = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
    answer = tokenizer.apply_chat_template(chat, tokenize=False)[len(asked) :]
    tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    ends = tokens.index(end_of_turn(tokenizer)) if end_of_turn(tokenizer) in tokens else len(tokens)
    return tokenizer(asked, add_special_tokens=False)["input_ids"], tokens[:ends]


def data(name: str) -> list[dict[str, object]]:
    if not (DATA / name).is_file():
        pytest.skip(f"../shared/data/{name} is not beside this repository")
    return rows_of(DATA / name)


def told(question: Question, *p: float, tokens: int = 1) -> Likelihoods:
    """A question whose options have these probabilities."""
    return Likelihoods(question, [math.log(x) for x in p], [tokens] * len(p))


def said(text: str, meta: dict[str, object]) -> Rollout:
    return Rollout(prompt=[], text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop", meta=meta)


def answered(suite: Suite, answers: list[str]) -> Answered:
    """A suite's answers and their scores, as an evaluation would have them."""
    rollouts = [
        said(text, record.meta)
        for text, record in zip(answers, suite.records, strict=True)
        if isinstance(record, Prompt)
    ]
    return Answered(rollouts, {name: scorer(rollouts) for name, scorer in suite.scorers.items()}, range(len(rollouts)))


def main(folder: str, suite: str, file: str, limit: int) -> None:
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(folder, "model")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    module = importlib.import_module(f"accord.suites.{suite}")
    if file.startswith("accord:"):
        records = list(read(Source(source=file), Dropped(), "data"))
    else:
        records = [module.record(row, file) for row in rows_of(Path(file))]
    records = records if limit >= len(records) else random.Random(0).sample(records, limit)
    made = getattr(module, suite)(records, None)
    kept = [q for q in made.questions if max(sum(map(len, texts(tokenizer, q, o))) for o in q.options) <= 512]
    found = [likelihood(model, tokenizer, question) for question in kept]
    print(f"{len(records)} rows, {len(made.questions)} questions, {len(made.questions) - len(kept)} too long")
    for name, estimate in made.grade(found).items():
        print(f"{suite}/{name}  {estimate}  {estimate.n}")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else 10**9)
