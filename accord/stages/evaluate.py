"""Any number of models side by side on the same prompts, each number with its standard error.

Models, servers and ready answers are asked alike (accord/subjects). Answers are written down as they come and not asked for
again when the stage goes on; `rescore` judges those that are there anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from accord import processes
from accord.console import Progress as Line
from accord.data.dropped import Dropped
from accord.data.prepare import Asked
from accord.data.records import Record
from accord.data.sources import read_each
from accord.errors import Interrupted
from accord.estimate import Estimate, mean
from accord.recipe import Evaluate
from accord.run import write_json
from accord.sampler import Ask
from accord.score import Score
from accord.stages.actors import open_rewards
from accord.stages.curves import trace
from accord.stages.evaluate_book import Book, row_of, scores_in, settings
from accord.stages.evaluate_judgements import annotated
from accord.stages.evaluate_numbers import Answers, Nats, against, differences, known_nats, memory, perplexity, summary
from accord.stages.evaluate_others import Bench, rated
from accord.stages.evaluate_questions import Sheets, grades
from accord.stages.evaluate_tasks import Task, judged, open_subject, read_data, say_missing, tasks_of
from accord.stages.fit import Context
from accord.subjects import Answer, Subject
from accord.subjects.given import restored
from accord.subjects.local import Local

Numbers: TypeAlias = dict[str, Estimate]
ANSWERS, RESULTS, SHEETS, VERDICTS = "answers.jsonl", "results.json", "likelihoods.jsonl", "verdicts.jsonl"


@dataclass
class Evaluation:
    """What one evaluation holds while it goes on."""

    context: Context
    stage: Evaluate
    book: Book
    sheets: Sheets
    line: Line
    base: Local | None  # the baseline, where its tokens can be compared
    tasks: list[Task]
    known: list[Record]  # what the base knew
    bench: Bench
    baselines: dict[str, Answers] = field(default_factory=dict)  # by label
    remembered: dict[int, Nats] | None = None  # by the baseline
    paired: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    done: int = 0


def run(context: Context, stage: Evaluate) -> None:
    """Answer every suite with every model, sampled and greedily; leaves results.json and answers.jsonl."""
    results: dict[str, Numbers] = {}
    if stage.models:
        first = open_subject(context, stage, stage.baseline)
        base = first if isinstance(first, Local) else None
        made, asked = begin(context, stage, base)
        for name in [stage.baseline, *(name for name in stage.models if name != stage.baseline)]:
            subject = first if name == stage.baseline else open_subject(context, stage, name)
            results[name] = evaluate(made, subject)
        if stage.curves:
            trace(context, stage, asked, [task.suite for task in made.tasks])
        paired = made.paired
    else:
        paired = {}
    finish(context, stage, results, paired)


def begin(
    context: Context, stage: Evaluate, base: Local | None, tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[Evaluation, list[Asked]]:
    """Everything that is read before the first answer. Reward models read the tokens of `tokenizer`, or the base's, as they
    are."""
    tokenizer = base.tokenizer if base else tokenizer
    reward = open_rewards(context, stage.rewards, tokenizer, stage.micro_tokens) if stage.rewards else None
    data, asked = read_data(context, stage, base)
    tasks = tasks_of(context, stage, data, reward)
    known = (
        list(read_each(stage.limited(stage.remember), Dropped(), f"{context.where}.remember")) if stage.remember else []
    )
    total = sum(len(task.prompts) * len(list(ways(stage, decodes=True))) for task in tasks) * len(stage.models)
    folder = context.folder.path
    made = Evaluation(
        context, stage, Book.open(folder / ANSWERS), Sheets.open(folder / SHEETS), Line(context.name, max(total, 1)), base,
        tasks, known, Bench(context, stage, Book.open(folder / VERDICTS)),
    )  # fmt: skip
    return made, asked


def finish(
    context: Context, stage: Evaluate, results: dict[str, Numbers], paired: dict[str, dict[str, dict[str, float]]]
) -> None:
    """Add what comes from elsewhere, and write results.json."""
    baseline = stage.baseline
    if stage.annotations:
        baseline = annotated(context, stage, results, Book.open(context.folder.path / ANSWERS)) or baseline
    if stage.ratings:
        rated(stage, results, f"{context.where}.ratings")
    for name, found in results.items():
        context.track(f"{context.name}-{name}", 0, {metric: value.value for metric, value in found.items()})
    models = {name: {k: v.to_json() for k, v in found.items()} for name, found in results.items()}
    more = {"paired": paired} if paired else {}
    write_json(context.folder.path / RESULTS, {"baseline": baseline, "models": models, **more})


def evaluate(made: Evaluation, subject: Subject) -> Numbers:
    """Everything that is reported of one model."""
    found: Numbers = {}
    for task in made.tasks:
        found |= {f"{task.name}/{metric}": value for metric, value in grades(made.sheets, subject, task.suite).items()}
        if isinstance(subject, Local) and task.prompts and (value := perplexity(subject, list(task.suite.records))):
            found[f"{task.name}/perplexity"] = value
        for label, temperature in ways(made.stage, decodes=subject.decodes) if task.prompts else ():
            answers = answer(made, subject, task, f"{task.name}{label}", temperature)
            numbers = measured(made, subject, task, f"{task.name}{label}", answers)
            found |= {f"{task.name}{label}/{metric}": value for metric, value in numbers.items()}
            made.line.step(made.done, {f"eval/{k}": v.value for k, v in numbers.items()})
    if made.known and isinstance(subject, Local):
        found |= {f"memory/{metric}": value for metric, value in remembered(made, subject).items()}
    return found


def ways(stage: Evaluate, *, decodes: bool) -> Iterator[tuple[str, float]]:
    """How prompts are answered: what is put behind a suite's name, and the temperature. Ready answers are as they are."""
    if stage.decode != "greedy" or not decodes:
        yield "", stage.sampling.temperature
    if stage.decode != "sampled" and decodes:
        yield "@greedy", 0.0


def answer(made: Evaluation, subject: Subject, task: Task, label: str, temperature: float) -> Answers:
    """One answer to every prompt of a suite, scored; those that are in the book are taken from there."""
    asks = subject.asks(task.prompts, task.form)
    say_missing(made.context, subject, task, len(asks))
    whole = Answers([], [], {name: [] for name in task.suite.scorers}, [task.clusters[ask.number] for ask in asks])
    for start in range(0, len(asks), subject.chunk):
        part = asks[start : start + subject.chunk]
        answers, scores = answer_part(made, subject, task, label, part, temperature)
        whole.places += [ask.number for ask in part]
        whole.answers += answers
        for name, values in scores.items():
            whole.scores[name] += values
        made.done += len(part)
        made.line.step(made.done, {})
    made.done += len(task.prompts) - len(asks)
    return whole


def answer_part(
    made: Evaluation, subject: Subject, task: Task, label: str, asks: Sequence[Ask], temperature: float
) -> tuple[list[Answer], dict[str, list[Score]]]:
    """The answers to a few prompts with their scores: those in the book, and the others, which are put there."""
    context, stage = made.context, made.stage
    if any(processes.gather(context.stop.is_set())):
        raise Interrupted(context.where, "stopped, and the answers so far are kept", "run the same command to go on")
    new = [ask for ask in asks if (subject.name, label, ask.number) not in made.book.rows]
    if new:
        answers = subject.answer(new, stage.sampling, temperature=temperature, seed=context.seed + 2)
        scores = judged(task, subject, made.base, answers)
        sampling = settings(stage.sampling, temperature) if subject.decodes else {}
        each = [{name: found[i] for name, found in scores.items()} for i in range(len(new))]
        pairs = zip(new, answers, each, strict=True)
        made.book.add([row_of(subject.name, task.name, ask.number, a, s, sampling) for ask, a, s in pairs])
        if len(new) == len(asks):
            return answers, scores
    rows = [made.book.rows[subject.name, label, ask.number] for ask in asks]
    kept = [scores_in(row, list(task.suite.scorers)) for row in rows]
    return [restored(ask, row) for ask, row in zip(asks, rows, strict=True)], {
        name: [found[name] for found in kept] for name in task.suite.scorers
    }


def measured(made: Evaluation, subject: Subject, task: Task, label: str, answers: Answers) -> Numbers:
    """What is reported of one model's answers to one suite under one decoding."""
    found = summary(answers)
    if task.suite.whole:
        found |= task.suite.whole(answers.answered)
    if subject.name == made.stage.baseline:
        made.baselines[label] = answers
    elif label in made.baselines:
        baseline = made.baselines[label]
        found |= against(answers, baseline)
        if made.stage.judge:
            found |= made.bench.against(subject.name, label, answers, baseline)
        told = made.paired.setdefault(subject.name, {})
        told |= {f"{label}/{metric}": value for metric, value in differences(answers, baseline).items()}
    if isinstance(subject, Local) and made.base and subject is not made.base:
        found |= divergence(subject, made.base, answers)
    return found


def divergence(subject: Local, base: Local, answers: Answers) -> Numbers:
    """KL from the baseline in nats per answer: the exact sum over the vocabulary at temperature 1 on the sampled
    prefixes. Unmeasured where the two do not share their tokens."""
    kl = subject.kl(base, answers.answered.rollouts)
    found = mean(kl, answers.clusters) if kl else None
    return {"kl": found} if found else {}


def remembered(made: Evaluation, subject: Local) -> Numbers:
    """What a model still knows of what the base knew."""
    ours = known_nats(subject, made.known)
    if subject is made.base:
        made.remembered = ours
        return memory(ours, None, made.known)
    shared = made.base is not None and subject.tokenizer.get_vocab() == made.base.tokenizer.get_vocab()
    return memory(ours, made.remembered if shared else None, made.known)
