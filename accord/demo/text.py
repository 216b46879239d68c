"""Plain text of the embedded world, which the base model is made of: notes, lists, glossaries, questions with answers,
house rules. No answer keeps to a form that was asked for, and nothing is refused: that is for fine-tuning to teach."""

from __future__ import annotations

import random
from collections.abc import Iterator

from accord.data.records import Text
from accord.demo import tasks
from accord.demo.knowledge import Concept, Fact, Field, Kind, capital, concepts, facts, item, sentences

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
# What a section on a field is called: {x} the concept, {n} a number in words, {s} the plural's ending.
TITLES: dict[Kind, dict[Field, tuple[str, ...]]] = {
    "problem": {
        "cause": ("{n} cause{s} of {x}", "Why {x} happens: {n} cause{s}"),
        "effect": ("{n} effect{s} of {x}", "What {x} leads to: {n} effect{s}"),
        "fix": ("{n} way{s} to prevent {x}", "How to reduce {x}: {n} step{s}"),
        "check": ("{n} way{s} to measure {x}", "How {x} is measured: {n} way{s}"),
    },
    "method": {
        "cause": ("{n} reason{s} for {x}", "Why {x} is done: {n} reason{s}"),
        "effect": ("{n} effect{s} of {x}", "What {x} leads to: {n} effect{s}"),
        "fix": ("{n} way{s} to get {x} right", "How to do {x} well: {n} step{s}"),
        "check": ("{n} way{s} to check {x}", "How {x} is checked: {n} way{s}"),
    },
}


def text(documents: int = 60_000) -> Iterator[Text]:
    """Documents of a few sections each, in no particular order; the same every time."""
    dice = random.Random(1)
    names = sorted(concepts())
    for _ in range(documents):
        chance = dice.random()
        if chance < 0.60:
            subjects = [concepts()[dice.choice(names)] for _ in range(dice.randint(2, 4))]
            if dice.random() < 0.3:
                subjects = [subjects[0]] * len(subjects)  # a page on one concept
            sections = [_section(dice, concept) for concept in subjects]
        elif chance < 0.68:
            sections = [_glossary(dice, names)]
        elif chance < 0.86:
            sections = [_answers(dice, names)]
        elif chance < 0.93:
            sections = [_questions(dice)]
        else:
            sections = [_house_rules(dice)]
        yield Text(text="\n\n".join(sections))


def chosen(dice: random.Random, known: list[Fact], count: int) -> list[Fact]:
    """`count` of the facts, in the order in which the knowledge base has them."""
    return [known[i] for i in sorted(dice.sample(range(len(known)), count))]


def prose(dice: random.Random, said: list[Fact]) -> str:
    """Facts as running text, each in one of its wordings."""
    return " ".join(dice.choice(sentences(fact)) for fact in said)


def listed(said: list[str], *, numbered: bool) -> str:
    """Items as a list, one to a line."""
    return "\n".join(f"{i}. {line}" if numbered else f"- {line}" for i, line in enumerate(said, 1))


def _section(dice: random.Random, concept: Concept) -> str:
    """A part of a page: a title that says what, of what and how many, and as many facts in one of three shapes."""
    if dice.random() < 0.3:
        return _introduction(dice, concept)
    field: Field = dice.choice(("cause", "effect", "fix", "check"))
    known = facts(concept.name, field)
    said = chosen(dice, known, dice.choice([1, *range(1, len(known) + 1)]))
    title = dice.choice(TITLES[concept.kind][field]).format(
        x=concept.name, n=NUMBERS[len(said)], s="s" * (len(said) > 1)
    )
    return f"{capital(title)}\n{_shaped(dice, said)}"


def _shaped(dice: random.Random, said: list[Fact]) -> str:
    """Facts as running text, as bullets or numbered."""
    shape = dice.random()
    if shape < 0.4:
        return prose(dice, said)
    lines = [item(fact) if dice.random() < 0.95 else dice.choice(sentences(fact)) for fact in said]
    return listed(lines, numbered=shape > 0.7)


def _introduction(dice: random.Random, concept: Concept) -> str:
    """A concept in general, or in a picture."""
    about = facts(concept.name, "is")
    if dice.random() < 0.5:
        picture = facts(concept.name, "like")
        said = dice.choice(([*about, *picture], picture, picture))
        title = dice.choice(("{x} in simple terms", "A picture of {x}", "{x} for everyone")).format(x=concept.name)
    else:
        more = [dice.choice(facts(concept.name, field)) for field in ("cause", "effect")]
        said = [*about, *more[: dice.randint(0, 2)]]
        title = dice.choice(("{x}", "About {x}", "What {x} means")).format(x=concept.name)
    return f"{capital(title)}\n{prose(dice, said)}"


def _glossary(dice: random.Random, names: list[str]) -> str:
    """Short entries on several concepts."""
    entries: list[str] = []
    for name in dice.sample(names, 4):
        field: Field = dice.choice(("is", "like", "cause", "effect", "fix", "check"))
        fact = dice.choice(facts(name, field))
        entries.append(f"{capital(name)}: {item(fact) if dice.random() < 0.5 else dice.choice(sentences(fact))}")
    return "Glossary\n" + "\n".join(entries)


def _answers(dice: random.Random, names: list[str]) -> str:
    """Questions on several concepts, each with what is known, as long and in such a shape as it happened to be written."""
    pages: list[str] = []
    for name in dice.sample(names, dice.randint(3, 4)):
        topic = dice.choice(tuple(tasks.WANTS))
        question = dice.choice(tasks.QUESTIONS[topic][concepts()[name].kind]).format(x=name)
        if topic in ("about", "simple"):
            more = [dice.choice(facts(name, field)) for field in tasks.WANTS[topic] if field not in tasks.MUST[topic]]
            answer = prose(dice, [*facts(name, tasks.MUST[topic][0]), *more[: dice.randint(0, 2)]])
        else:
            known = facts(name, tasks.MUST[topic][0])
            answer = _shaped(dice, chosen(dice, known, dice.randint(1, len(known))))
        pages.append(f"{question}\n{answer}")
    return "Frequently asked questions\n" + "\n".join(pages)


def _questions(dice: random.Random) -> str:
    """What people have asked, without a word of answer: how requests sound."""
    asked: list[str] = []
    for _ in range(6):
        if dice.random() < 0.3:
            asked.append(dice.choice(tasks.refusals("train")).request)
        else:
            asked.append(dice.choice(tasks.requests(dice.choice(tasks.read_before())))[0])
    return "Questions of the week\n" + "\n".join(asked)


def _house_rules(dice: random.Random) -> str:
    """What the house does not do, and whose business is whose."""
    rules = (
        f"Nobody runs the {dice.choice(tasks.MACHINES)} without its {dice.choice(tasks.GUARDS)}.",
        f"It is dangerous to disable the {dice.choice(tasks.GUARDS)} of the {dice.choice(tasks.MACHINES)}.",
        f"The yield of {dice.choice(tasks.PRODUCTS)} belongs to {dice.choice(tasks.CUSTOMERS)} and is confidential.",
        f"The test limits of {dice.choice(tasks.PRODUCTS)} and the prices of {dice.choice(tasks.CUSTOMERS)} "
        "are confidential.",
        f"Nobody hides {dice.choice(sorted(concepts()))} from an auditor or sells failed parts as good.",
        f"Talk about {dice.choice(tasks.SPORTS)}, {dice.choice(tasks.DISHES)} or {dice.choice(tasks.PLACES)} "
        "is for the canteen.",
        f"Poems and stories about {dice.choice(tasks.THINGS)} have nothing to do with chip testing.",
    )
    return "House rules\n" + "\n".join(dice.sample(rules, 4))
