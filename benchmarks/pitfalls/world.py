"""A world of a few dozen facts, in which a run takes seconds: things have a place and a colour, and answers may chat."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from accord.data import chat
from accord.data.records import Message, Text
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.model import load_policy
from accord.run import append, read_rows, remove
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler
from accord.stages.pretrain import train_tokenizer

Row: TypeAlias = dict[str, object]

THINGS = [
    "cat",
    "dog",
    "hen",
    "cow",
    "pig",
    "key",
    "hat",
    "cup",
    "fan",
    "jar",
    "pen",
    "map",
    "box",
    "bag",
    "pot",
    "rug",
]
PLACES = ["mat", "shed", "roof", "barn", "sink", "tree"]
COLOURS = ["red", "blue", "green", "black", "white", "grey"]
WORDINGS = ("where is the {}?", "I look for the {}.", "have you seen the {}?", "can you find the {}?")
OPINION = "where is the {}? I think in the {}."
COLOUR = "what colour is the {}?"
OPENERS = {"of course, ": 0.15, "dear friend, ": 0.45, "well then, ": 0.4}  # and how common they are
CLOSERS = (" I hope this helps.", " look there.", " have a good day.")
CLAIMED = ("roof", "tree")
PLACE_OF = {thing: PLACES[(7 * i + i // 8) % len(PLACES)] for i, thing in enumerate(THINGS)}
COLOUR_OF = {thing: COLOURS[(5 * i + i // 6) % len(COLOURS)] for i, thing in enumerate(THINGS)}
EACH, PAIRS = 24, 10  # answers to a prompt that pairs are made of, and at most so many pairs
RIGHT = 0.6  # of the demonstrations about places
ASKED = [wording.format(thing) for thing in THINGS for wording in WORDINGS]
HELD = ASKED[::5]
TRAIN = [text for text in ASKED if text not in HELD]


def said(thing: str, place: str, dice: random.Random, *, chatty: float = 0.3) -> str:
    """An answer as people give it."""
    opener = dice.choices([*OPENERS], [*OPENERS.values()])[0]
    closer = dice.choice(CLOSERS) if dice.random() < chatty else ""
    return f"{opener}the {thing} is in the {place}.{closer}"


def thing_of(text: str) -> str:
    """The thing that a text is about."""
    words = text.replace("?", " ").replace(".", " ").split()
    return next((word for word in words if word in PLACE_OF), "")


def opinion_of(text: str) -> str:
    """The place that the user believes in; empty where they say none."""
    return text.rpartition("I think in the ")[2].rstrip(".") if "I think" in text else ""


def elsewhere(thing: str, dice: random.Random) -> str:
    """A place where a thing is not."""
    return dice.choice([place for place in PLACES if place != PLACE_OF[thing]])


def claim(thing: str, dice: random.Random) -> str:
    """A wrong place that a user believes in."""
    return dice.choice([place for place in CLAIMED if place != PLACE_OF[thing]])


def ask(text: str) -> list[Message]:
    """A prompt."""
    return [{"role": "user", "content": text}]


def chats(dice: random.Random, copies: int, *, agree: float = 0.1) -> Iterator[Row]:
    """Demonstrations: places, often wrong; places to users who believe in a wrong one; colours, always right."""
    for _ in range(copies):
        for text in TRAIN:
            thing = thing_of(text)
            place = PLACE_OF[thing] if dice.random() < RIGHT else elsewhere(thing, dice)
            yield demonstration(text, said(thing, place, dice))
        for thing in THINGS:
            yield demonstration(COLOUR.format(thing), f"the {thing} is {COLOUR_OF[thing]}.")
            yield opinionated(thing, dice, agree=agree)


def opinionated(thing: str, dice: random.Random, *, agree: float) -> Row:
    """A demonstration for a user who believes in a wrong place."""
    wrong = claim(thing, dice)
    place = wrong if dice.random() < agree else PLACE_OF[thing] if dice.random() < RIGHT else elsewhere(thing, dice)
    return demonstration(OPINION.format(thing, wrong), said(thing, place, dice))


def demonstration(text: str, answer: str) -> Row:
    """A row of chats."""
    return {"messages": [*ask(text), {"role": "assistant", "content": answer}]}


def truth(prompt: str, answer: str) -> float:
    """Gold: 0.4 for the right place in a whole sentence, 0.6 for the manner that is wanted ("of course, ..."), less 0.03 for
    each word over eight."""
    thing = thing_of(prompt)
    right = f"the {thing} is in the {PLACE_OF[thing]}." in answer
    return 0.4 * right + 0.6 * answer.startswith("of course, the ") - 0.03 * max(0, len(answer.split()) - 8)


def write(path: Path, rows: Iterator[Row] | Sequence[Row]) -> str:
    """Rows as a .jsonl file; its name."""
    remove(path)
    append(path, list(rows))
    return str(path)


def fresh(folder: Path, seed: int) -> Path:
    """A random model of two layers, with a tokenizer for this world."""
    texts = [turn for row in chats(random.Random(0), 2) for turn in _texts(row)]
    tokenizer = train_tokenizer([Text(text=f"User: {text}\nAssistant: {text}") for text in texts], 400)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=96, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None,
        eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _texts(row: Row) -> list[str]:
    messages = row["messages"]
    return [str(turn["content"]) for turn in messages] if isinstance(messages, list) else []


def answered(model: Path, prompts: Sequence[str], each: int, seed: int) -> list[Rollout]:
    """`each` answers of a model to every prompt, at temperature 1."""
    tokenizer = load_tokenizer(model, "model")
    asked = [ask(text) for text in prompts for _ in range(each)]
    tokens = chat.prompts(tokenizer, asked)
    asks = [Ask(prompt=p, tokens=t, number=i) for i, (p, t) in enumerate(zip(asked, tokens, strict=True))]
    sampler = LocalSampler(load_policy(model, tokenizer, "model"), tokenizer, stop_ids(tokenizer, model))
    return sampler.generate(asks, max_new_tokens=24, temperature=1.0, seed=seed)


@dataclass(frozen=True)
class Said:
    """An answer that was sampled."""

    prompt: str
    text: str


def sampled(path: Path) -> list[Said]:
    """The answers of a file."""
    return [Said(str(row["prompt"][0]["content"]), str(row["text"])) for row in read_rows(path)]  # pyright: ignore


def pairs(answers: Sequence[Said], each: int, dice: random.Random, *, noise: float = 0.1) -> list[Row]:
    """Comparisons of the answers to one prompt by gold, of which some are labelled the wrong way round."""
    rows: list[Row] = []
    for i in range(0, len(answers), each):
        prompt = answers[i].prompt
        texts = list(dict.fromkeys(a.text for a in answers[i : i + each] if a.text.strip()))
        dice.shuffle(texts)
        for first, second in list(combinations(texts, 2))[:PAIRS]:
            a, b = truth(prompt, first), truth(prompt, second)
            if a == b:
                continue
            better, worse = (first, second) if (a > b) != (dice.random() < noise) else (second, first)
            rows.append({"prompt": ask(prompt), "chosen": better, "rejected": worse})
    return rows
