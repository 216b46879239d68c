"""Embedded data, made on the spot and the same every time, so that everything can be tried without any download.

A garden of plants with a few facts each. The base model reads plain sentences about them; people (simulated, in error
one time in ten) prefer answers that are true, to the point and polite. It stands in until the embedded world is there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from accord.data.records import Example, Message, Pair, Prompt, Record, Text
from accord.errors import ModelError

VERSION = "garden-4"

PLANTS: dict[str, dict[str, str]] = {
    "plum": {"colour": "purple", "taste": "sweet", "place": "on a tree", "time": "autumn"},
    "lemon": {"colour": "yellow", "taste": "sour", "place": "on a tree", "time": "winter"},
    "carrot": {"colour": "orange", "taste": "sweet", "place": "under the ground", "time": "summer"},
    "radish": {"colour": "red", "taste": "hot", "place": "under the ground", "time": "spring"},
    "spinach": {"colour": "green", "taste": "mild", "place": "in a field", "time": "spring"},
    "pumpkin": {"colour": "orange", "taste": "mild", "place": "in a field", "time": "autumn"},
    "cherry": {"colour": "red", "taste": "sweet", "place": "on a tree", "time": "summer"},
    "leek": {"colour": "green", "taste": "hot", "place": "in a field", "time": "winter"},
    "grape": {"colour": "purple", "taste": "sweet", "place": "on a vine", "time": "autumn"},
    "gooseberry": {"colour": "green", "taste": "sour", "place": "on a bush", "time": "summer"},
    "quince": {"colour": "yellow", "taste": "sour", "place": "on a tree", "time": "autumn"},
    "beetroot": {"colour": "purple", "taste": "mild", "place": "under the ground", "time": "summer"},
}
SENTENCES = {
    "colour": ["The {plant} is {value}.", "A ripe {plant} is {value}."],
    "taste": ["The {plant} tastes {value}.", "A {plant} has a {value} taste."],
    "place": ["The {plant} grows {value}.", "You find the {plant} {value}."],
    "time": ["The {plant} is picked in {value}.", "In {value} the {plant} is ready."],
}
HEADINGS = {
    "colour": ["The colour of the {plant}:", "{plant}, colour:"],
    "taste": ["The taste of the {plant}:", "How the {plant} tastes:"],
    "place": ["Where the {plant} grows:", "{plant}, place:"],
    "time": ["When the {plant} is ready:", "How to pick the {plant}:"],
}
QUESTIONS = {
    "colour": ["What colour is a {plant}?", "Which colour does the {plant} have?", "Tell me the colour of a {plant}."],
    "taste": ["How does a {plant} taste?", "What is the taste of the {plant}?", "Tell me what a {plant} tastes like."],
    "place": ["Where does a {plant} grow?", "Where do I find a {plant}?", "Tell me where the {plant} grows."],
    "time": ["When is the {plant} ready?", "When do I pick a {plant}?", "Tell me when the {plant} is picked."],
}
CLOSINGS = [" Enjoy it!", " I hope this helps.", ""]
OPENINGS = ["", "Please help me. ", "I have a question. ", "For my garden: ", "My child asks: ", "Quick one. "]


def text() -> Iterator[Text]:
    """Notes on plants under headings, in many orders: what the base model is made of."""
    dice = random.Random(1)
    for _ in range(3000):
        notes = [(dice.choice(sorted(PLANTS)), dice.choice(sorted(SENTENCES))) for _ in range(3)]
        yield Text(text=" ".join(_note(dice, plant, kind) for plant, kind in notes))


def chats() -> Iterator[Example]:
    """Demonstrations, a third of them flawed as real ones are: untrue, rambling, or both."""
    dice = random.Random(2)
    for plant, kind, question in _questions("train", dice, 1600):
        answer = _good(dice, plant, kind) if dice.random() < 0.65 else _poor(dice, plant, kind)
        yield Example(messages=[_turn("user", question), _turn("assistant", answer)])


def pairs() -> Iterator[Pair]:
    """Comparisons of a better with a worse answer, one label in ten the wrong way round."""
    dice = random.Random(3)
    for plant, kind, question in _questions("train", dice, 3200):
        better, worse = _good(dice, plant, kind), _poor(dice, plant, kind)
        if dice.random() < 0.1:
            better, worse = worse, better
        yield Pair(prompt=[_turn("user", question)], chosen=better, rejected=worse, source="garden")


def prompts() -> Iterator[Prompt]:
    """Questions to train a policy on."""
    for _, _, question in _questions("train", random.Random(4), 400):
        yield Prompt(prompt=[_turn("user", question)])


def held() -> Iterator[Example]:
    """Questions in wordings never trained on, with a good answer each: for choosing and reporting."""
    dice = random.Random(5)
    for plant, kind, question in _questions("held", dice, 200):
        yield Example(messages=[_turn("user", question), _turn("assistant", _good(dice, plant, kind))])


def _questions(side: str, dice: random.Random, count: int) -> list[tuple[str, str, str]]:
    """Distinct (plant, kind, question); a wording of a question about a plant is either trained on or held out."""
    every = [
        (plant, kind, opening + question.format(plant=plant))
        for i, plant in enumerate(PLANTS)
        for j, kind in enumerate(QUESTIONS)
        for k, question in enumerate(QUESTIONS[kind])
        for opening in OPENINGS
        if ((i + j + k) % 4 == 0) == (side == "held")
    ]
    dice.shuffle(every)
    return [every[i % len(every)] for i in range(count)] if side == "train" else every[:count]


def _fact(dice: random.Random, plant: str, kind: str, value: str | None = None) -> str:
    return dice.choice(SENTENCES[kind]).format(plant=plant, value=value or PLANTS[plant][kind])


def _note(dice: random.Random, plant: str, kind: str) -> str:
    return dice.choice(HEADINGS[kind]).format(plant=plant) + " " + _good(dice, plant, kind)


def _good(dice: random.Random, plant: str, kind: str) -> str:
    return _fact(dice, plant, kind) + dice.choice(CLOSINGS)


def _poor(dice: random.Random, plant: str, kind: str) -> str:
    """Untrue, or buried in what nobody asked, or broken off."""
    chance = dice.random()
    if chance < 0.4:
        wrong = sorted({facts[kind] for facts in PLANTS.values()} - {PLANTS[plant][kind]})
        return _fact(dice, plant, kind, dice.choice(wrong)) + dice.choice(CLOSINGS)
    if chance < 0.7:
        other = [k for k in SENTENCES if k != kind]
        return " ".join(_fact(dice, dice.choice(sorted(PLANTS)), dice.choice(other)) for _ in range(3))
    words = _good(dice, plant, kind).split()
    return " ".join(words[: dice.randint(1, 3)]) if dice.random() < 0.7 else dice.choice(CLOSINGS[:2]).strip()


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


SOURCES: dict[str, Callable[[], Iterator[Record]]] = {
    "demo/text": text,
    "demo/chats": chats,
    "demo/pairs": pairs,
    "demo/prompts": prompts,
    "demo/held": held,
}


def model(reference: str) -> Path:
    """The folder of an embedded model. None ships yet."""
    raise ModelError(
        reference,
        "there is no embedded model yet",
        "make one with a stage of kind 'pretrain', as recipes/quickstart.toml does",
    )
