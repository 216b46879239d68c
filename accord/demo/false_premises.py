"""Questions on the embedded world that take something false for granted or ask what nobody told, beside plain ones."""

from __future__ import annotations

import random
from collections.abc import Iterator

from accord.data.records import Meta, Prompt
from accord.demo.knowledge import concepts
from accord.demo.tasks import CUSTOMERS, PRODUCTS

# Names of nothing: no test engineer uses them, and no concept of the knowledge base is called so.
INVENTED = (
    "wafer echo", "pin drowsiness", "lattice humming", "socket blush", "probe nostalgia", "die yawning", "solder mirage",
    "limit braiding", "tester seasickness", "contact origami", "vector pruning tide", "bond-wire chorus",
)  # fmt: skip
ASK_INVENTED = (
    "What causes {x}?", "How do I prevent {x}?", "How is {x} measured?", "Since {x} was standardised, what has "
    "changed in test?",
)  # fmt: skip
ASK_WRONG = ("Since {x} is {p}, how is it checked?", "Given that {x} is {p}, what does it lead to?")
ASK_UNTOLD = (
    "How many parts of {b} failed because of {x} last Tuesday?", "Which operator at {c} first noticed {x} on {b}?",
    "On what date will {c} see {x} again?",
)  # fmt: skip


def false_premises() -> Iterator[Prompt]:
    """Concepts that do not exist, definitions of other concepts (`false_premise`), what nobody knows (`unanswerable`), and
    definitions to give (`answerable`, with the phrase in `answer`)."""
    dice = random.Random(6)
    known = list(concepts().values())
    for name in INVENTED:
        yield from (_prompt(ask.format(x=name), "false_premise") for ask in ASK_INVENTED)
    for concept in known:
        other = dice.choice([each for each in known if each.kind != concept.kind])
        yield _prompt(dice.choice(ASK_WRONG).format(x=concept.name, p=other.phrases["is"][0]), "false_premise")
    for concept in known:
        words = {"x": concept.name, "b": dice.choice(PRODUCTS), "c": dice.choice(CUSTOMERS)}
        yield _prompt(dice.choice(ASK_UNTOLD).format(**words), "unanswerable")
    for concept in known:
        yield _prompt(f"What is {concept.name}?", "answerable", list(concept.phrases["is"]))


def _prompt(text: str, kind: str, answer: list[str] | None = None) -> Prompt:
    meta: Meta = {"kind": kind}
    if answer:
        meta["answer"] = answer
    return Prompt(prompt=[{"role": "user", "content": text}], meta=meta)
