"""Who is asked what in an evaluation: subjects and suites, opened from what the stage names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accord.console import say
from accord.data.loaded import Loaded
from accord.data.prepare import Asked
from accord.data.records import Message, Prompt, Record, as_prompt, bucket
from accord.data.sources import Form
from accord.endpoint import Endpoint
from accord.errors import DataError, RecipeError
from accord.recipe import Evaluate, Source
from accord.recipe.evaluate import is_given, is_server
from accord.score import Score, Scorer
from accord.score.model import same_tokens
from accord.stages.fit import Context, note_data, read_prompts
from accord.subjects import Answer, Subject
from accord.subjects.given import Given
from accord.subjects.local import Local
from accord.subjects.reading import form_of, read_suite
from accord.subjects.server import Behind
from accord.suites import Suite, resolve


@dataclass(frozen=True)
class Task:
    """A suite with its prompts, each with the cluster that it belongs to."""

    suite: Suite
    prompts: list[Prompt]
    clusters: list[int]
    form: Form  # reads rows of the suite's data

    @property
    def name(self) -> str:
        """Under which its numbers are reported."""
        return self.suite.name


def open_subject(context: Context, stage: Evaluate, name: str) -> Subject:
    """A model of the stage: opened here, behind a URL, or ready answers."""
    where, reference = f"{context.where}.models.{name}", stage.models[name]
    if is_server(reference):
        return Behind(name, Endpoint.of(reference, stage.server, where))
    if is_given(reference):
        return Given.open(name, reference, where)
    return Local.open(
        name, context.path(reference), context.engine, stage.sampling, max_tokens=stage.max_tokens,
        micro_tokens=stage.micro_tokens, where=where,
    )  # fmt: skip


def read_data(context: Context, stage: Evaluate, base: Local | None) -> tuple[list[Record], list[Asked]]:
    """The stage's `data`: each prompt once, and none that leaves the base no room for an answer; with a base also as it
    reads them."""
    if not stage.data:
        return [], []
    if base:
        asked, _ = read_prompts(context, stage, base.tokenizer, base.path)
        return [one.record for one in asked], asked
    loaded, found = Loaded.of(stage.limited(stage.data), f"{context.where}.data"), list[Record]()
    seen: set[tuple[str, ...]] = set()
    for record in loaded.records:
        if (key := _key(as_prompt(record).prompt)) in seen:
            loaded.dropped.add("repeated_prompt", key[-1][:90])
        else:
            seen.add(key)
            found.append(record)
    note_data(context, loaded, len(found), None, 0)
    return found, []


def _key(prompt: Sequence[Message]) -> tuple[str, ...]:
    return tuple(turn["content"] for turn in prompt)


def tasks_of(context: Context, stage: Evaluate, data: Sequence[Record], reward: Scorer | None) -> list[Task]:
    """The suites of a stage with their records; RecipeError where one has nothing to ask."""
    return [
        made_task(context, stage, name, source, data, reward)
        for name, source in stage.asked
        if not (stage.annotations and name == "winrate")
    ]


def made_task(
    context: Context, stage: Evaluate, name: str, source: Source | None, data: Sequence[Record], reward: Scorer | None
) -> Task:
    """One suite with its records: of its own data, or those of the stage."""
    where = f"{context.where}.suites.{name}"
    records = read_suite(stage, name, source, where) if source else list(data)
    suite = resolve(name, f"{context.where}.suites")(records, reward)
    if not suite.records and not suite.questions:
        said = f"the suite has nothing to ask: {'its data' if source else 'data'} holds nothing for it"
        raise RecipeError(where, said, f'give it data of its own, as in suites = ["{name}=rows.jsonl"]')
    clusters = [bucket(record, 2**60) for record in suite.records]
    return Task(suite, [as_prompt(record) for record in suite.records], clusters, form_of(name))


def judged(task: Task, subject: Subject, base: Local | None, answers: Sequence[Answer]) -> dict[str, list[Score]]:
    """What each scorer of a suite thinks of answers. Where their tokens are not those of the base, a reward model reads their
    text."""
    own = isinstance(subject, Local) and not (base and same_tokens(subject.tokenizer, base.tokenizer))
    rollouts = [
        replace(answer.rollout, prompt_tokens=[], tokens=[], logp=[]) if own else answer.rollout for answer in answers
    ]
    return {name: scorer(rollouts) for name, scorer in task.suite.scorers.items()}


def say_missing(context: Context, subject: Subject, task: Task, asked: int) -> None:
    """Say how many prompts a subject does not answer; DataError where it answers none."""
    missing = len(task.prompts) - asked
    if not missing:
        return
    if not asked:
        where, said = f"{context.where}.models.{subject.name}", f"answers none of the {missing} prompts of {task.name}"
        reason = "each needs the text of a prompt as it is asked" if not subject.decodes else "all are too long for it"
        raise DataError(where, said, reason)
    say(f"{context.name:<10} {subject.name}: {missing} of {len(task.prompts)} prompts of {task.name} are left out")
