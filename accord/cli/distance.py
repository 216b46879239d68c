"""How far answers are from what a model would say itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from accord.cli.commands import model_folder
from accord.data.batch import collate
from accord.data.prepare import answered
from accord.data.quality import parts
from accord.data.records import Record, Text, conversation
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import Engine
from accord.errors import DataError
from accord.estimate import mean
from accord.model import context_of, load_policy
from accord.outputs import Output, Roles
from accord.recipe import Compute


def distance(model: str, records: Sequence[Record]) -> str:
    """Surprise of a model at each kind of answer, in nats per token, beside what it would be at answers of its own.

    At text sampled from the model the expectation of -log p(token) is the entropy of its distribution, whatever the
    prompt. So their difference is 0 for on-policy answers, and grows with the distance.
    """
    engine, path = Engine(Compute()), model_folder(model)
    tokenizer = load_tokenizer(path, "--model")
    policy = engine.place(load_policy(path, tokenizer, "--model"))
    kept = [record for record in records if not isinstance(record, Text) and parts(record)[1]]
    if not kept:
        raise DataError("--model", "there are no answers to measure", "give pairs, rankings, ratings or demonstrations")
    lines: list[str] = []
    names = ("chosen", "rejected") if type(kept[0]).__name__ == "Pair" else ("answer",)
    for place, name in enumerate(names):
        rows = answered(
            tokenizer, [conversation(record) for record in kept], [parts(record)[1][place] for record in kept]
        )
        for row in rows:  # whether it ends here is another question than what it says
            row.train[len(row) - 1 - row.train[::-1].index(True)] = False
        kept_rows = [[row] for row in rows if any(row.train) and len(row) <= context_of(policy.config)]
        batch = collate(kept_rows, pad_id(tokenizer))
        out = engine.outputs(
            Roles(policy=policy), batch, cast(Sequence[Output], ["logp", "entropy"]), micro_tokens=4096
        )
        tokens = batch.train.sum(1)
        surprise, own = -(out.logp.sum(1) / tokens), out.entropy.sum(1) / tokens
        beyond = mean((surprise - own).tolist())
        lines.append(
            f"{name:<9} surprise {float(torch.mean(surprise)):.2f} nats per token, {beyond} beyond its own answers"
        )
    return f"distance from {model} ({len(kept)} records; 0 is on-policy)\n" + "\n".join(lines)
