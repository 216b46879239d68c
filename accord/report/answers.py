"""Answers side by side: a selection worth reading, and how each differs from the baseline's, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from accord.report.results import Answer, Comparison, Message, main_sampling, main_trial
from accord.report.words import MINUS, named

MORE = 6  # further prompts, folded away
ALIKE = 0.4  # below this share of common words, marks would hide the text
ISLAND = 2  # common words that break a change in two
LONG, HEAD = 460, 320  # longer answers are folded to their head

Pieces = tuple[tuple[str, str], ...]  # ("same" | "ins" | "del", text)


@dataclass(frozen=True)
class Reply:
    """One answer as the page shows it."""

    answer: Answer
    pieces: Pieces
    head: str  # of a long answer; else empty
    scores: tuple[tuple[str, str], ...]  # name, value


@dataclass(frozen=True)
class Card:
    """One prompt with every model's answers to it, the main sampling first."""

    why: str  # it was selected; empty where it merely comes next
    prompt: tuple[Message, ...]
    constraints: tuple[str, ...]
    replies: dict[str, tuple[Reply, ...]]
    top: float | None  # the highest reward


@dataclass(frozen=True)
class Asked:
    """Every answer to one prompt: by model, in the main sampling first."""

    prompt: tuple[Message, ...]
    answers: dict[str, tuple[Answer, ...]]


def cards(compared: Comparison, model: str) -> tuple[Card, ...]:
    """Show where `model` gained and lost most against the baseline, its median, a refusal; then the next prompts."""
    asked = _asked(compared)
    chosen = dict(_select(asked, compared.baseline, model))
    rest = [at for at in range(len(asked)) if at not in chosen][:MORE]
    return tuple(_card(asked[at], chosen.get(at, ""), compared.baseline) for at in [*chosen, *rest])


def differences(old: str, new: str) -> Pieces:
    """Mark which words of `new` are not in `old` and which of `old` are gone; without marks where little is common."""
    before, after = _words(old), _words(new)
    matcher = SequenceMatcher(None, [w.strip() for w in before], [w.strip() for w in after], autojunk=False)
    if not before or matcher.ratio() < ALIKE:
        return (("same", new),) if new else ()
    found: list[tuple[str, str]] = []
    at_old = at_new = 0
    for a, b, size in matcher.get_matching_blocks():
        # A single common word between two changes says nothing and chops the marks up.
        if size < ISLAND and b > 0 and a > 0 and b + size < len(after) and size:
            continue
        if a > at_old:
            found.append(("del", " ".join(word.strip() for word in before[at_old:a]) + " "))
        if b > at_new:
            found.append(("ins", "".join(after[at_new:b])))
        if size:
            found.append(("same", "".join(after[b : b + size])))
        at_old, at_new = a + size, b + size
    return tuple(found)


def _words(text: str) -> list[str]:
    """Words with the space behind them, so that joined they give the text back."""
    return re.findall(r"\s*\S+\s*", text)


def _asked(compared: Comparison) -> list[Asked]:
    """Pair up the answers prompt by prompt, the main suite's first; of repeated samples the first counts."""
    main, suite = main_sampling(compared), main_trial(compared).suite
    prompts: dict[tuple[Message, ...], dict[tuple[str, str], Answer]] = {}
    for answer in sorted(compared.answers, key=lambda answer: answer.suite != suite):
        prompts.setdefault(answer.prompt, {}).setdefault((answer.model, answer.sampling), answer)
    found: list[Asked] = []
    for prompt, answers in prompts.items():
        by: dict[str, tuple[Answer, ...]] = {}
        for name in dict.fromkeys([compared.baseline, *(model for model, _ in answers)]):
            own = [answer for answer in answers.values() if answer.model == name]
            if own:
                by[name] = tuple(sorted(own, key=lambda answer: answer.sampling != main))
        found.append(Asked(prompt, by))
    return found


def _select(asked: Sequence[Asked], baseline: str, model: str) -> Iterator[tuple[int, str]]:
    """Pick prompts by the model's gain in gold, or else in reward, from its largest to its largest loss."""
    metric, by_gain = _gains(asked, baseline, model)
    taken: set[int] = set()
    if by_gain:
        ups, downs = [p for p in by_gain if p[0] > 0][:2], [p for p in by_gain if p[0] < 0][-2:][::-1]
        middle = by_gain[len(by_gain) // 2]
        for words, (gain, at) in [
            *zip(("Largest gain", "Second largest gain"), ups, strict=False),
            *zip(("Largest loss", "Second largest loss"), downs, strict=False),
            ("Median", middle),
        ]:
            if at not in taken:
                taken.add(at)
                yield at, f"{words} of {model} against {baseline}: {metric} {gain:+.2g}".replace("-", MINUS)
    refusing = next((at for at, one in enumerate(asked) if at not in taken and _to_refuse(one)), None)
    if refusing is not None:
        yield refusing, "A request that is to be refused"


def _gains(asked: Sequence[Asked], baseline: str, model: str) -> tuple[str, list[tuple[float, int]]]:
    """Each prompt's gain, largest first; gains in gold that are equal are told apart by the reward."""
    for metric in ("gold", "reward"):
        found: list[tuple[float, float, int]] = []
        for at, one in enumerate(asked):
            if model != baseline and model in one.answers and baseline in one.answers:
                ours, base = one.answers[model][0], one.answers[baseline][0]
                if metric in ours.scores and metric in base.scores:
                    second = ours.scores.get("reward", 0.0) - base.scores.get("reward", 0.0)
                    found.append((ours.scores[metric] - base.scores[metric], second, at))
        if found:
            return metric, [(gain, at) for gain, _, at in sorted(found, reverse=True)]
    return "", []


def _to_refuse(one: Asked) -> bool:
    answers = [answer for own in one.answers.values() for answer in own]
    return any(
        "refusal" in answer.parts or any(word.startswith("refus") for word in answer.constraints) for answer in answers
    )


def _card(one: Asked, why: str, baseline: str) -> Card:
    bases = {answer.sampling: answer.response for answer in one.answers.get(baseline, ())}
    replies: dict[str, tuple[Reply, ...]] = {}
    for model, own in one.answers.items():
        # The baseline's own text, and one that it never answered, stand unmarked.
        olds = [bases.get(answer.sampling, "") if model != baseline else "" for answer in own]
        replies[model] = tuple(_reply(answer, old) for answer, old in zip(own, olds, strict=True))
    rewards = [own[0].reward for own in one.answers.values() if own[0].reward is not None]
    constraints = next((a.constraints for own in one.answers.values() for a in own if a.constraints), ())
    return Card(why, one.prompt, constraints, replies, max(rewards) if len(rewards) > 1 else None)


def _reply(answer: Answer, old: str) -> Reply:
    head = f"{answer.response[:HEAD]}… " if len(answer.response) > LONG else ""
    others = {name: value for name, value in answer.scores.items() if name not in ("gold", "reward")}
    values = ([("gold", answer.gold)] if answer.gold is not None else []) + list((answer.parts | others).items())
    scores = tuple((named(name), f"{value:.2g}".replace("-", MINUS)) for name, value in values)
    return Reply(answer, differences(old, answer.response), head, scores)
