"""Likelihoods of a suite's options by a plain transformers loop, one text at a time: what the package's own are held to.

`python tests/likelihoods.py MODEL SUITE FILE [LIMIT]` prints the suite's figures.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from accord.data.tokenizer import end_id, end_of_turn, load_tokenizer
from accord.suites import Likelihoods, Question


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


def main(folder: str, suite: str, file: str, limit: int) -> None:
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(folder, "model")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    module = importlib.import_module(f"accord.suites.{suite}")
    rows = rows_of(Path(file))
    drawn = rows if limit >= len(rows) else random.Random(0).sample(rows, limit)
    records = [module.record(row, file) for row in drawn]
    made = getattr(module, suite)(records, None)
    kept = [q for q in made.questions if max(sum(map(len, texts(tokenizer, q, o))) for o in q.options) <= 512]
    found = [likelihood(model, tokenizer, question) for question in kept]
    print(f"{len(records)} rows, {len(made.questions)} questions, {len(made.questions) - len(kept)} too long")
    for name, estimate in made.grade(found).items():
        print(f"{suite}/{name}  {estimate}  {estimate.n}")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else 10**9)
