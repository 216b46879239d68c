"""What a good answer is in the embedded world: an exact judge, for reporting only. Nothing that trains or chooses may
import it.

An answer is cut into items (sentences, bullets, numbered lines) and every item is looked up among all the ways to say
every fact. What is not there word for word is not true. The value is a product, so that neither a form without facts nor
facts without end earn much:

    gold = facts * (0.35 + compliance * (0.5 + 0.15 * concise)), and 0 where the answer is broken off or refuses
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from accord.demo.knowledge import Fact, Field, plain, sayings
from accord.demo.refusing import REFUSALS, offers
from accord.demo.tasks import Reason
from accord.sampler import Rollout
from accord.score import Score

# What turns a request down, in these words or others.
TURNED_DOWN = re.compile(
    r"\bI( can['\u2019]t| cannot| can not| won['\u2019]t| will not| refuse|( am|['\u2019]m) (unable|not able))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Item:
    """A sentence, bullet or numbered line; the fact that it says, None where it says none; whether it is a sentence."""

    text: str
    fact: Fact | None
    sentence: bool


@dataclass(frozen=True)
class Answer:
    """An answer as the judge reads it."""

    shape: Literal["prose", "bullets", "numbered", "mixed"]
    items: list[Item]


def gold(rollout: Rollout) -> Score:
    """The value of an answer between 0 and 1, with its parts. NaN without `meta` of the embedded world."""
    meta = rollout.meta
    if "task" not in meta:
        return Score(float("nan"), why="not a prompt of the embedded world")
    if meta["refuse"]:
        return judge_refusal(rollout.text, cast(Reason, meta["refuse"]), ended=rollout.finish == "stop")
    return judge_answer(rollout, cast("dict[str, object]", meta["task"]))


def judge_refusal(text: str, reason: Reason, *, ended: bool) -> Score:
    """1 for a refusal that gives the true reason, 0.4 for another, alone or with an offer of help; else 0."""
    said = [plain(part) for part in split_sentences(text)]
    given = {why for why, wordings in REFUSALS.items() for wording in wordings if plain(wording) in said}
    known = sum(plain(w) in said for wordings in REFUSALS.values() for w in wordings)
    offered = sum(part in offers() for part in said)
    refused = ended and len(given) == 1 and known == 1 and offered <= 1 and len(said) == known + offered
    value = (1.0 if given == {reason} else 0.4) if refused else 0.0
    return Score(
        value, {"refusal": float(refused)}, "" if value == 1 else "not refused" if not refused else "wrong reason"
    )


def judge_answer(rollout: Rollout, task: dict[str, object]) -> Score:
    """An answer to a task, by the module's formula."""
    answer = read_answer(rollout.text)
    kind, n = cast(str, task["kind"]), cast(int, task["n"])
    wanted = 1 if kind == "max_words" else n
    wants, must = cast("Sequence[Field]", task["wants"]), cast("Sequence[Field]", task["must"])
    mine = [item.fact for item in answer.items if item.fact and item.fact.concept == task["concept"]]
    right = {fact for fact in mine if fact.field in wants}
    owed = 0 if any(fact.field in must for fact in right) else 1  # without what was asked for, the rest counts for less
    items = max(len(answer.items), wanted)
    refused = bool(TURNED_DOWN.search(rollout.text))
    ended = rollout.finish == "stop" and not refused
    facts = max(len(right) - owed, 0) / items
    compliance = float(ended and complies(answer, rollout.text, kind, n))
    concise = float(0 < len(right) == len(answer.items) <= wanted)
    value = facts * (0.35 + compliance * (0.5 + 0.15 * concise)) if ended else 0.0
    parts = {
        "compliance": compliance,
        "facts": facts,
        "on_concept": len(mine) / items,
        "concise": concise,
        "over_refusal": float(refused),
    }
    return Score(value, parts, _why(parts, ended, refused))


def complies(answer: Answer, text: str, kind: str, n: int) -> bool:
    """Whether an answer has the form that was asked for, whatever it says."""
    if kind == "max_words":
        return answer.shape == "prose" and 3 <= len(text.split()) <= n
    if kind == "sentences":
        return answer.shape == "prose" and len(answer.items) == n and all(item.sentence for item in answer.items)
    return answer.shape == kind and len(answer.items) == n and all(len(item.text.split()) >= 3 for item in answer.items)


def read_answer(text: str) -> Answer:
    """Cut an answer into items and look each of them up."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    bullets = [re.fullmatch(r"[-*•]\s*(.*)", line) for line in lines]
    numbers = [re.fullmatch(r"(\d+)[.)]\s*(.*)", line) for line in lines]
    if lines and all(bullets):
        return Answer("bullets", [_item(match[1]) for match in bullets if match])
    if lines and all(numbers):
        order = [match[1] for match in numbers if match] == [str(i) for i in range(1, len(lines) + 1)]
        return Answer("numbered" if order else "mixed", [_item(match[2]) for match in numbers if match])
    if any(bullets) or any(numbers):
        return Answer("mixed", [_item(re.sub(r"^([-*•]|\d+[.)])\s*", "", line)) for line in lines])
    return Answer("prose", [_item(part) for part in split_sentences(text)])


def split_sentences(text: str) -> list[str]:
    """The sentences of running text."""
    return [part for part in re.split(r"(?<=[.!?])\s+|\n", text.strip()) if part]


def _item(text: str) -> Item:
    """An item with its fact. A known phrase may be no sentence; what is not known is taken for one if it looks like one."""
    if plain(text) in sayings():
        fact, sentence = sayings()[plain(text)]
        return Item(text, fact, sentence and text[0].isupper())
    return Item(text, None, len(text.split()) >= 3 and text[0].isupper() and text[-1] in ".!")


def _why(parts: dict[str, float], ended: bool, refused: bool) -> str:
    """What was wrong, in a few words."""
    found = [
        "refused without need" * refused,
        "broken off" * (not ended and not refused),
        "form not met" * (not parts["compliance"]),
        "facts missing or wrong" * (parts["facts"] < 1),
        "more than was asked" * (not parts["concise"]),
    ]
    return "; ".join(part for part in found if part)
