"""What a stage will read, by the stage's own code, before any stage has run.

A stage that has been read leaves in its folder what those after it look for: the tokenizer and the configuration of its model,
and the records of a select stage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from accord.data import prepare
from accord.data.prepare import Asked
from accord.data.records import to_row
from accord.data.rows import Group, Rows
from accord.data.tokenizer import load_tokenizer
from accord.model import context_of, load_config
from accord.plan.calibration import resident
from accord.recipe import AnyStage, Evaluate, Policy, Preference, Pretrain, Reward, Select, Sft
from accord.run import RECORDS, write_text
from accord.stages import policy, preference, reward, sft, with_files
from accord.stages.evaluate_numbers import answer_rows, reference_answer
from accord.stages.fit import Context, read_prompts
from accord.stages.pretrain import fresh_model, train_tokenizer
from accord.stages.select import choose
from accord.subjects.reading import read_suite


@dataclass(frozen=True)
class Reading:
    """What one stage reads: rows to learn from (of an evaluation: to find the perplexity of), held out and mixed in; prompts to
    answer, and those held out."""

    rows: Sequence[Group] = ()
    held: Sequence[Group] = ()
    mix: Sequence[Group] = ()
    asked: Sequence[Asked] = ()
    held_asked: Sequence[Asked] = ()
    size: float = 0.0  # bytes of memory, with those of files that are mapped into it
    seconds: float = 0.0  # that reading takes


def read(context: Context) -> Reading:
    """Read as a run does, and leave what later stages read."""
    began, before = time.perf_counter(), resident()
    found = _read(context, with_files(context.run, context.run.recipe.stage[context.name]))
    seconds = time.perf_counter() - began
    context.engine.release()
    arrays = [rows for rows in (found.rows, found.held, found.mix) if isinstance(rows, Rows)]
    mapped = sum(rows.tokens.nbytes + rows.train.nbytes for rows in arrays)
    return replace(found, size=max(resident() - before, mapped), seconds=seconds)


def _read(context: Context, stage: AnyStage) -> Reading:
    if isinstance(stage, Evaluate) and not stage.start:
        return Reading()  # nothing is opened here
    path = start_of(context, stage)
    if isinstance(stage, Pretrain) and not stage.model:
        train, _ = prepare.load(stage.data, stage.eval_data, context.where)
        with torch.device("meta"):
            config = fresh_model(stage.shape).config
        leave(Path(path), train_tokenizer(train.records, stage.shape.vocab), config)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    match stage:
        case Pretrain():
            train, held = prepare.load(stage.data, stage.eval_data, context.where)
            length = min(stage.shape.context, context_of(load_config(path, context.where)))
            rows, aside = (
                prepare.texts(of, tokenizer, length, f"{context.where}.data") if of else () for of in (train, held)
            )
            found = Reading(rows, aside)
        case Sft():
            found = Reading(*sft.read(context, stage, tokenizer, path))
        case Reward():
            data = reward.read(context, stage, tokenizer, path)
            found = Reading(data.groups, data.held)
        case Preference():
            rows, held_rows = preference.read(context, stage, tokenizer, path, preference.needs(stage, context.where))
            found = Reading(rows, held_rows or ())
        case Policy():
            asked, aside = policy.read(context, stage, tokenizer, path)
            found = Reading(mix=policy.mixed(context, stage, path, tokenizer) or (), asked=asked, held_asked=aside)
        case Select():
            found = Reading(asked=read_prompts(context, stage, tokenizer, path)[0])
        case Evaluate():
            asked = _asked(context, stage, tokenizer, path)
            found = Reading(_told(asked, tokenizer), asked=asked)
    leave(context.folder.model, tokenizer, load_config(path, context.where))
    if isinstance(stage, Select):
        records = [choose(asked, _answers(asked, tokenizer, stage), stage) for asked in found.asked]
        rows = "".join(json.dumps(to_row(record)) + "\n" for record in records if record)
        write_text(context.folder.path / RECORDS, rows)
    return found


def _asked(context: Context, stage: Evaluate, tokenizer: PreTrainedTokenizerBase, path: str) -> list[Asked]:
    """The prompts of all suites of an evaluation, those of `data` once for each suite that asks them."""
    shared = read_prompts(context, stage, tokenizer, path)[0] if stage.data else []
    found = shared * sum(source is None for _, source in stage.asked)
    for name, source in stage.asked:
        if source:
            records = read_suite(stage, name, source, f"{context.where}.suites.{name}")
            found += prepare.prompts(prepare.Loaded(records), tokenizer, room=2**30, where=context.where)
    return found


def _told(asked: Sequence[Asked], tokenizer: PreTrainedTokenizerBase) -> list[Group]:
    """The answers that records bring, on which perplexity is measured."""
    records = [one.record for one in asked if reference_answer(one.record)]
    return [[row] for row in answer_rows(tokenizer, records)]


def start_of(context: Context, stage: AnyStage) -> str:
    """The folder or hub id of the model that a stage starts from, of an evaluation of the baseline."""
    model = stage.start if isinstance(stage, Evaluate) else stage.model
    return context.path(model) if model else str(context.folder.path / "start")


def leave(folder: Path, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """A model folder with everything but the weights."""
    tokenizer.save_pretrained(folder)
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    config.save_pretrained(folder)


def _answers(asked: Asked, tokenizer: PreTrainedTokenizerBase, stage: Select) -> list[dict[str, object]]:
    """Rows of candidates.jsonl that any select stage keeps, of answers half as long as they may be."""
    tokens = list(islice(cycle(asked.tokens), max(1, stage.sampling.max_new_tokens // 2)))
    said = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return [
        {"response": f"{i} {said}", "reward": (stage.above or 0.0) + 1.0 + i, "finish": "stop"} for i in range(stage.n)
    ]
