"""Best-of-n: sample several answers to every prompt, keep by reward, leave records that later stages train on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

from accord.console import Progress as Line
from accord.data.prepare import Asked
from accord.data.records import Example, Pair, Ranking, bucket, to_row
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.errors import DataError, Interrupted
from accord.estimate import mean
from accord.model import load_policy
from accord.objectives.kl import best_of_n
from accord.recipe import Select
from accord.run import RECORDS, append, read_rows, write_text
from accord.sampler import Rollout, asks_of
from accord.sampler.local import LocalSampler
from accord.stages.actors import open_rewards
from accord.stages.fit import Context, read_prompts


class NothingKept(DataError):
    """No prompt has an answer to keep."""


CHUNK = 32  # prompts answered between two looks at the clock and at signals


def run(context: Context, stage: Select) -> None:
    """Answer and judge; leaves candidates.jsonl (every answer with its reward) and records.jsonl (what is kept)."""
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    asked, _ = read_prompts(context, stage, tokenizer, path)
    answer(context, stage, path, tokenizer, asked)
    rows = read_rows(context.folder.path / "candidates.jsonl")
    chosen = [kept for i, a in enumerate(asked) if (kept := choose(a, rows[i * stage.n : (i + 1) * stage.n], stage))]
    if not chosen:
        said = f"none of the {len(asked)} prompts has an answer to keep"
        raise NothingKept(
            context.where, said, "lower `above`, raise `n` or the temperature, or look at candidates.jsonl"
        )
    text = "".join(json.dumps(to_row(record), ensure_ascii=False) + "\n" for record in chosen)
    write_text(context.folder.path / RECORDS, text)
    context.folder.note(result=summary(asked, rows, stage.n, len(chosen)))


def answer(
    context: Context, stage: Select, path: str, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Asked]
) -> None:
    """Sample and judge in chunks, after those that an interrupted run has left."""
    file = context.folder.path / "candidates.jsonl"
    done = len(read_rows(file)) // stage.n
    model = context.engine.place(load_policy(path, tokenizer, f"{context.where}.model"))
    sampler = LocalSampler(model, tokenizer, stop_ids(tokenizer, path))
    reward = open_rewards(context, stage.rewards, tokenizer, stage.micro_tokens)
    line = Line(context.name, len(asked))
    while done < len(asked):
        chunk = asked[done : done + CHUNK]
        asks = asks_of(chunk, each=stage.n, start=done * stage.n)
        rollouts = context.engine.generate(
            sampler, asks, max_new_tokens=stage.sampling.max_new_tokens, temperature=stage.sampling.temperature,
            seed=context.seed, decoding=stage.sampling,
        )  # fmt: skip
        values = [score.value for score in reward(rollouts)]
        append(file, [row_of(rollout, value) for rollout, value in zip(rollouts, values, strict=True)])
        done += len(chunk)
        found = mean(values)
        line.step(done, {"reward": found.value} if found else {})
        if context.stop.is_set():
            raise Interrupted(context.where, f"stopped after {done} of {len(asked)} prompts, answers kept",
                              "run the same command to go on")  # fmt: skip


def row_of(rollout: Rollout, value: float) -> dict[str, object]:
    """An answer as a row of candidates.jsonl; a reward that is not a number is null."""
    return {"prompt": rollout.prompt, "response": rollout.text, "finish": rollout.finish,
            "reward": value if math.isfinite(value) else None}  # fmt: skip


def choose(asked: Asked, rows: Sequence[Mapping[str, object]], stage: Select) -> Example | Pair | Ranking | None:
    """What is kept of the answers to one prompt: those that ended and have a reward, best first; None where nothing is."""
    judged = [(cast(float, row["reward"]), cast(str, row["response"])) for row in rows
              if row["reward"] is not None and row["finish"] == "stop"]  # fmt: skip
    distinct = sorted({text: value for value, text in judged}.items(), key=lambda one: -one[1])
    if not distinct or (stage.above is not None and distinct[0][1] <= stage.above):
        return None
    texts, values = [text for text, _ in distinct], [value for _, value in distinct]
    if stage.keep == "best":
        return Example(messages=[*asked.prompt, {"role": "assistant", "content": texts[0]}], train="last")
    if values[0] == values[-1]:
        return None
    if stage.keep == "pair":
        return Pair(prompt=asked.prompt, chosen=texts[0], rejected=texts[-1])
    return Ranking(prompt=asked.prompt, responses=texts, ranks=[1 + sum(v > value for v in values) for value in values])


def summary(asked: Sequence[Asked], rows: Sequence[Mapping[str, object]], n: int, kept: int) -> dict[str, object]:
    """How much the choice earns, with standard errors clustered by the first user turn; `kl` is an upper bound in nats."""
    clusters = [bucket(a.record, 2**60) for a in asked]
    values = [[cast(float, row["reward"]) for row in rows[i * n : (i + 1) * n] if row["reward"] is not None]
              for i in range(len(asked))]  # fmt: skip
    average = mean([sum(v) / len(v) if v else math.nan for v in values], clusters)
    best = mean([max(v) if v else math.nan for v in values], clusters)
    found: dict[str, object] = {k: v.to_json() for k, v in {"reward": average, "reward_best": best}.items() if v}
    return found | {"kept": kept, "prompts": len(asked), "n": n, "kl": best_of_n(n)}
