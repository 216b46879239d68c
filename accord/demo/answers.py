"""Answers of the embedded world as people write them: right ones, and ones with the faults that people have."""

from __future__ import annotations

import random
from collections.abc import Iterator

from accord.data.records import Example, Message, Meta, Prompt
from accord.demo.knowledge import Fact, Field, concepts, facts, item
from accord.demo.refusing import OFFERS, REFUSALS
from accord.demo.tasks import (
    CONSTRAINTS,
    CONTENT,
    FORMS,
    WORDINGS,
    Form,
    Reason,
    Refusal,
    Side,
    Task,
    refusals,
    requests,
    tasks,
)
from accord.demo.text import chosen, listed, prose

DEMONSTRATIONS = 3000
# Faults of demonstrations. Two are habits of about half the people, so that even the most likely answer may have them:
# they run over a limit of words, and they stop at four steps. The rest are slips.
HABITS: dict[Form, float] = {"fifteen words": 0.45, "five numbered": 0.45, "five bullets": 0.45}
SLIPS = {"count": 0.05, "shape": 0.03, "concept": 0.07, "field": 0.07, "opening": 0.04, "ending": 0.02}
OPENINGS = ("Certainly, here is what I know.", "Good question.", "I am not quite sure, but this may help.")
ENDINGS = ("I hope this helps.", "Let me know if you need more.")
FIELDS: tuple[Field, ...] = ("is", "like", "cause", "effect", "fix", "check")


def chats() -> Iterator[Example]:
    """Demonstrations for training: about seven in ten of them as they should be."""
    dice = random.Random(2)
    for _ in range(DEMONSTRATIONS):
        request, answer = _demonstration(dice)
        yield Example(messages=[turn("user", request), turn("assistant", answer)])


def prompts() -> Iterator[Prompt]:
    """Requests to train a policy on, every fifth of them one to turn down."""
    yield from (prompt for prompt, _ in asked("train", random.Random(3), tasks_times=3, refusals_times=6))


def choose() -> Iterator[Example]:
    """Requests that choose a checkpoint, with a good answer each."""
    yield from (example(*found) for found in asked("choose", random.Random(4)))


def report() -> Iterator[Example]:
    """Requests that are reported on, with a good answer each: tasks in which nothing was trained or chosen."""
    yield from (example(*found) for found in asked("report", random.Random(5), most_refusals=200))


def asked(
    side: Side, dice: random.Random, *, tasks_times: int = 1, refusals_times: int = 1, most_refusals: int | None = None
) -> Iterator[tuple[Prompt, str]]:
    """Requests of one set with a good answer each, in no particular order; `*_times` is how many wordings each is asked in."""
    found: list[tuple[Prompt, str]] = []
    for task in tasks(side):
        for request, look_alike in dice.sample(requests(task), tasks_times):
            found.append((prompt_of(request, task, look_alike), good(dice, task)))
    for refusal in dice.sample(refusals(side), most_refusals or len(refusals(side))):
        for request in dict.fromkeys(with_form(dice, refusal.request) for _ in range(refusals_times)):
            found.append((prompt_of(request, refusal, False), turn_down(dice, refusal.reason)))
    dice.shuffle(found)
    yield from found


def prompt_of(request: str, wanted: Task | Refusal, look_alike: bool) -> Prompt:
    """A request with what a judge has to know about it in `meta`; `constraints` are for anyone who wants to recount."""
    if isinstance(wanted, Refusal):
        return Prompt(
            prompt=[turn("user", request)],
            meta={"task": {}, "refuse": wanted.reason, "constraints": [{"kind": "refuse"}]},
        )
    form, _ = CONSTRAINTS[wanted.form]
    task: Meta = {"concept": wanted.concept, "wants": list(wanted.wants), "must": list(wanted.must), **form}
    content = [{"kind": CONTENT[wanted.topic]}] if wanted.topic in CONTENT else []
    return Prompt(
        prompt=[turn("user", request)],
        meta={"task": task, "refuse": "", "look_alike": look_alike, "constraints": [form, *content]},
    )


def example(prompt: Prompt, answer: str) -> Example:
    """A prompt with the answer that it calls for."""
    return Example(messages=[*prompt.prompt, turn("assistant", answer)], meta=prompt.meta)


def with_form(dice: random.Random, request: str) -> str:
    """A request to turn down, half of the time with a form: a form is no sign of a harmless request."""
    forms: set[Form] = {form for forms in FORMS.values() for form in forms}
    return request if dice.random() < 0.5 else f"{request} {dice.choice(WORDINGS[dice.choice(sorted(forms))])}"


# ------------------------------------------------------------------------------------------------------------- answers


def good(dice: random.Random, task: Task) -> str:
    """An answer without fault."""
    return _shaped(dice, _facts(dice, task, CONSTRAINTS[task.form][1]), task.form)


def turn_down(dice: random.Random, reason: Reason) -> str:
    """A refusal with its reason, now and then with an offer."""
    said = dice.choice(REFUSALS[reason])
    return said if dice.random() < 0.7 else f"{said} {dice.choice(OFFERS).format(x=dice.choice(sorted(concepts())))}"


def _demonstration(dice: random.Random) -> tuple[str, str]:
    """A request of the training set with what somebody wrote."""
    if dice.random() < 0.25:
        refusal = dice.choice(refusals("train"))
        chance = dice.random()
        if chance < 0.8:
            answer = turn_down(dice, refusal.reason)
        elif chance < 0.9:
            answer = turn_down(dice, dice.choice(("unsafe", "proprietary", "scope")))
        else:
            answer = good(dice, dice.choice(tasks("train")))  # answered as if it were harmless
        return with_form(dice, refusal.request), answer
    task = dice.choice(tasks("train"))
    request, look_alike = dice.choice(requests(task))
    if look_alike and dice.random() < 0.1:
        return request, turn_down(dice, dice.choice(("unsafe", "proprietary")))
    return request, _flawed(dice, task)


def _flawed(dice: random.Random, task: Task) -> str:
    """An answer with the faults that its author happened to have."""
    slips = {name for name, share in SLIPS.items() if dice.random() < share}
    habit = dice.random() < HABITS.get(task.form, 0.0)
    count, form = CONSTRAINTS[task.form][1], task.form
    if "five" in form and habit:
        count = 4
    elif "count" in slips:
        count = max(1, count + dice.choice((-1, 1)))
    said = _facts(dice, task, count)
    if "concept" in slips:
        other = dice.choice(sorted(concepts()))
        said[-1] = dice.choice(facts(other, said[-1].field))
    if "field" in slips:
        said[-1] = dice.choice(facts(task.concept, dice.choice(FIELDS)))
    if form == "fifteen words" and habit:
        body = prose(dice, [*said, *_facts(dice, task, 1)][:2])
    elif "shape" in slips:
        body = _shaped(dice, said, dice.choice(("two sentences", "three bullets", "three numbered")))
    else:
        body = _shaped(dice, said, form)
    gap = "\n" if body[:2] in ("- ", "1.") else " "
    before = dice.choice(OPENINGS) + gap if "opening" in slips else ""
    after = gap + dice.choice(ENDINGS) if "ending" in slips else ""
    return before + body + after


def _facts(dice: random.Random, task: Task, count: int) -> list[Fact]:
    """Facts that answer a task, as many as there are up to `count`."""
    if task.must == task.wants:
        known = [fact for field in task.wants for fact in facts(task.concept, field)]
        return chosen(dice, known, min(count, len(known)))
    fields: dict[Field, None] = dict.fromkeys((*task.must, *task.wants))
    return [dice.choice(facts(task.concept, field)) for field in list(fields)[:count]]


def _shaped(dice: random.Random, said: list[Fact], form: Form) -> str:
    """Facts in the form that was asked for."""
    if "sentence" in form or "words" in form:  # no sentence has more than fifteen words
        return prose(dice, said)
    return listed([item(fact) for fact in said], numbered="numbered" in form)


def turn(role: str, content: str) -> Message:
    """One turn of a conversation."""
    return {"role": role, "content": content}
