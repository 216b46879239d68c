"""Judge stored answers anew, without asking any model: after a scorer has changed, or by another suite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

from accord.data import chat
from accord.data.tokenizer import load_tokenizer
from accord.errors import DataError
from accord.estimate import Estimate
from accord.functions import is_reference
from accord.recipe import Evaluate
from accord.run import read_json, remove, write_text
from accord.score.model import same_tokens
from accord.stages.evaluate import ANSWERS, RESULTS, VERDICTS, Evaluation, Numbers, begin, finish, measured
from accord.stages.evaluate_book import Row, label_of, row_of
from accord.stages.evaluate_numbers import Answers
from accord.stages.evaluate_questions import grades
from accord.stages.evaluate_tasks import Task, judged
from accord.stages.fit import Context
from accord.subjects.given import Given, restored

OF_MODELS = {"kl", "perplexity"}  # numbers that only a model tells, and that its answers keep; so is what a judge said


def rescore(context: Context, stage: Evaluate) -> None:
    """Rewrite answers.jsonl and results.json by the stage's suites; what other suites have left stays as it is."""
    folder = context.folder.path
    if stage.judge:
        remove(folder / VERDICTS)
    readers = readers_of(context, stage)
    made, _ = begin(context, stage, None, readers.get(stage.baseline))
    old = list(made.book.rows.values())
    if not old:
        raise DataError(str(folder / ANSWERS), "holds no answers", "evaluate first, without --rescore")
    names = {task.name for task in made.tasks}
    rows = [row for row in old if row.get("suite") not in names]
    results: dict[str, Numbers] = {}
    for name in sorted(stage.models, key=lambda name: name != stage.baseline):
        own = [row for row in old if row.get("model") == name]
        results[name], more = again(made, name, own, readers.get(name))
        rows += more
    before = read_json(folder / RESULTS)
    kept = cast(dict[str, dict[str, dict[str, float]]], before.get("models") or {})
    for name, found in results.items():
        stay = {
            key: Estimate(value["value"], value["stderr"], int(value["n"]))
            for key, value in kept.get(name, {}).items()
            if _stays(key, names)
        }
        results[name] = stay | found
    pairs = cast(dict[str, dict[str, dict[str, float]]], before.get("paired") or {})
    for name, told in pairs.items():
        made.paired[name] = {k: v for k, v in told.items() if _suite(k) not in names} | made.paired.get(name, {})
    write_text(folder / ANSWERS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    finish(context, stage, results, made.paired)


def readers_of(context: Context, stage: Evaluate) -> dict[str, PreTrainedTokenizerBase]:
    """Where reward models judge: the tokenizers of the models whose tokens are the baseline's, as those were judged by."""
    if all(is_reference(name) for name in stage.rewards) or stage.baseline not in stage.local:
        return {}
    found = {name: load_tokenizer(context.path(model), context.where) for name, model in stage.local.items()}
    return {name: tokenizer for name, tokenizer in found.items() if same_tokens(tokenizer, found[stage.baseline])}


def again(
    made: Evaluation, name: str, rows: Sequence[Row], reader: PreTrainedTokenizerBase | None
) -> tuple[Numbers, list[Row]]:
    """One model's stored answers, judged: the numbers and the rows."""
    numbers: Numbers = {}
    written: list[Row] = []
    for task in made.tasks:
        numbers |= {f"{task.name}/{k}": v for k, v in grades(made.sheets, Given(name, []), task.suite).items()}
        own = [row for row in rows if row.get("suite") == task.name] or rows
        for way in dict.fromkeys("@greedy" * label_of(row).endswith("@greedy") for row in own):
            label = f"{task.name}{way}"
            stored = [row for row in own if label_of(row).endswith("@greedy") == bool(way)]
            answers, more = judge(made, name, task, stored, reader)
            numbers |= {f"{label}/{k}": v for k, v in measured(made, Given(name, []), task, label, answers).items()}
            written += more
    return numbers, written


def judge(
    made: Evaluation, name: str, task: Task, stored: Sequence[Row], reader: PreTrainedTokenizerBase | None
) -> tuple[Answers, list[Row]]:
    """Stored answers to the prompts of a suite, with what its scorers think of them."""
    subject = Given(name, [(ANSWERS, row) for row in stored])
    ready = subject.ready(task.prompts, task.form)
    tokens = chat.prompts(reader, [ask.prompt for ask in ready]) if reader else [[] for _ in ready]
    answers = [
        restored(ask, ask.row if reader else {**ask.row, "ids": None}, tokens=read)
        for ask, read in zip(ready, tokens, strict=True)
    ]
    scores = judged(task, subject, None, answers)
    places = [ask.number for ask in ready]
    rows: list[Row] = []
    for i, (ask, answer) in enumerate(zip(ready, answers, strict=True)):
        sampling = cast(dict[str, object], ask.row.get("sampling") or {})
        row = row_of(name, task.name, ask.number, answer, {k: found[i] for k, found in scores.items()}, sampling)
        rows.append(row | ({"ids": ask.row["ids"]} if "ids" in ask.row else {}))
    return Answers(places, answers, scores, [task.clusters[place] for place in places]), rows


def _stays(key: str, names: set[str]) -> bool:
    metric = key.rpartition("/")[2]
    return _suite(key) not in names or metric in OF_MODELS or metric.startswith("judge_")


def _suite(key: str) -> str:
    """`demo` of `demo@greedy/gold`."""
    return key.partition("/")[0].partition("@")[0]
