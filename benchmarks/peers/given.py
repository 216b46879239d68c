"""What peers are given: the rows in the order in which accord takes them, and the tokenizer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import cast

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from accord.data.batch import order
from benchmarks.works import GROUP, SEED, Job


def rows(job: Job) -> Dataset:
    """The data, shuffled as accord shuffles it; peers then take it as it comes."""
    lines = [json.loads(line) for line in job.rows.read_text(encoding="utf-8").splitlines()]
    batch = job.of.batch // (GROUP if job.of.method in {"grpo", "rloo"} else 1)
    steps = itertools.islice(order(len(lines), batch, seed=SEED), len(lines) // batch)
    return Dataset.from_list([lines[i] for step in steps for i in step])


def tokenizer(job: Job, model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder."""
    return AutoTokenizer.from_pretrained(job.model(model))


def encoded(reader: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], *, answering: bool = False) -> list[int]:
    """A conversation as the chat template has it, in tokens; `answering` opens the next answer."""
    whole = reader.apply_chat_template(list(turns), add_generation_prompt=answering)
    return cast("dict[str, list[int]]", whole)["input_ids"]
