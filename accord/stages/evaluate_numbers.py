"""What an evaluation reports of answers: means with errors, the comparison with the baseline, and what it has cost."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from accord.compare.pairs import outcomes
from accord.data import prepare
from accord.data.batch import Row
from accord.data.records import Example, Pair, Record, Text, bucket, conversation
from accord.estimate import Estimate, mean, paired, prompts_needed, ratio
from accord.score import Score
from accord.score.judge import higher
from accord.score.text import distinct, self_similarity, words
from accord.subjects import Answer
from accord.subjects.local import Local
from accord.suites import Answered


@dataclass
class Answers:
    """One model's answers to one suite under one decoding, with what was thought of them; `places` are those of the prompts."""

    places: list[int]
    answers: list[Answer]
    scores: dict[str, list[Score]]
    clusters: list[int]

    @property
    def answered(self) -> Answered:
        """As suites and judges take them."""
        return Answered([answer.rollout for answer in self.answers], self.scores, self.clusters)

    def columns(self) -> dict[str, list[float]]:
        """What there is of every answer, NaN where it is not known: length in tokens and words, whether it ended, scores."""
        found = {
            "length": [math.nan if a.tokens is None else float(a.tokens) for a in self.answers],
            "words": [float(len(words(a.rollout.text))) for a in self.answers],
            "finished": [math.nan if a.finished is None else float(a.finished) for a in self.answers],
        }
        return found | {name: [score.value for score in scores] for name, scores in self.scores.items()}

    def beside(self, other: Answers) -> tuple[Answers, Answers]:
        """Both, of the prompts that both have answered."""
        common = set(self.places) & set(other.places)
        return self.only(common), other.only(common)

    def only(self, places: set[int]) -> Answers:
        """The answers to these prompts."""
        kept = [i for i, place in enumerate(self.places) if place in places]
        scores = {name: [found[i] for i in kept] for name, found in self.scores.items()}
        return Answers(
            [self.places[i] for i in kept], [self.answers[i] for i in kept], scores, [self.clusters[i] for i in kept]
        )


def summary(answers: Answers) -> dict[str, Estimate]:
    """Mean scores, length, the share of answers that ended, and how much the answers differ."""
    found = {name: mean(values, answers.clusters) for name, values in answers.columns().items()}
    texts = [answer.rollout.text for answer in answers.answers]
    found |= {f"distinct_{n}": distinct(texts, n, answers.clusters) for n in (1, 2)}
    found["self_similarity"] = self_similarity(texts, answers.clusters)
    return {name: estimate for name, estimate in found.items() if estimate}


def against(answers: Answers, baseline: Answers) -> dict[str, Estimate]:
    """Shares of prompts on which the answer's reward is above, equal to or below the baseline's, and the win rate, in
    which a tie counts half."""
    if "reward" not in answers.scores:
        return {}
    ours, theirs = answers.beside(baseline)
    both = zip(ours.scores["reward"], theirs.scores["reward"], strict=True)
    return outcomes([higher(a.value, b.value) for a, b in both], ours.clusters)


def differences(answers: Answers, baseline: Answers) -> dict[str, dict[str, float]]:
    """What each number of single answers is above the baseline's, paired by prompt: `{value, stderr, n}`, and of numbers from 0
    to 1 how many prompts it takes to see a difference of 3 points (`needed`)."""
    ours, theirs = answers.beside(baseline)
    columns = theirs.columns()
    found: dict[str, dict[str, float]] = {}
    for name, values in ours.columns().items():
        difference = paired(values, columns[name], ours.clusters) if name in columns else None
        if difference is None:
            continue
        found[name] = difference.to_json()
        share = all(0 <= value <= 1 for value in [*values, *columns[name]] if not math.isnan(value))
        if share and difference.stderr > 0:
            found[name]["needed"] = prompts_needed(difference.stderr, difference.n)
    return found


# ----------------------------------------------------------------------------------------------------------- perplexity


def perplexity(subject: Local, records: Sequence[Record]) -> Estimate | None:
    """Perplexity per token of the answers that records bring; None where they bring none that fits."""
    told = answer_nats(subject, [(i, record) for i, record in enumerate(records) if reference_answer(record)])
    found = _per_token(told, {i: bucket(record, 2**60) for i, record in enumerate(records)})
    return exponential(found) if found else None


@dataclass(frozen=True)
class Nats:
    """What a model finds of a text: negative log-likelihood in nats, of so many tokens."""

    nats: float
    tokens: int


def answer_nats(subject: Local, numbered: Sequence[tuple[int, Record]]) -> dict[int, Nats]:
    """Of the answer that each record brings, by its number; those that do not fit into the context are left out."""
    rows = answer_rows(subject.tokenizer, [record for _, record in numbered])
    kept = [i for i, row in enumerate(rows) if len(row) <= subject.longest]
    logps = subject.logps([[rows[i]] for i in kept]) if kept else []
    return {numbered[i][0]: Nats(-logp, sum(rows[i].train[1:])) for i, logp in zip(kept, logps, strict=True)}


def answer_rows(tokenizer: PreTrainedTokenizerBase, records: Sequence[Record]) -> list[Row]:
    """What each record asks, with the answer that it brings."""
    prompts = [conversation(record) for record in records]
    return prepare.answered(tokenizer, prompts, [reference_answer(record) for record in records])


def known_nats(subject: Local, records: Sequence[Record]) -> dict[int, Nats]:
    """Of each plain text whole, in windows of the context, and of each demonstration its answer."""
    told = [(i, record) for i, record in enumerate(records) if not isinstance(record, Text)]
    found = answer_nats(subject, told) if told else {}
    windows = [
        (i, row)
        for i, record in enumerate(records)
        if isinstance(record, Text)
        for row in subject.text_rows(record.text)
    ]
    logps = subject.logps([[row] for _, row in windows]) if windows else []
    for (i, row), logp in zip(windows, logps, strict=True):
        before = found.get(i, Nats(0.0, 0))
        found[i] = Nats(before.nats - logp, before.tokens + len(row) - 1)
    return found


def memory(
    ours: Mapping[int, Nats], theirs: Mapping[int, Nats] | None, records: Sequence[Record]
) -> dict[str, Estimate]:
    """`perplexity` on texts that the base knew, and `forgetting`: by how many nats per token the model finds them less likely
    than the baseline (`theirs`) does, paired by text. exp(forgetting) is the ratio of the two perplexities.

    Without the baseline, or where it has other tokens, there is no forgetting.
    """
    clusters = {i: bucket(record, 2**60) for i, record in enumerate(records)}
    whole = _per_token(ours, clusters)
    found = {"perplexity": exponential(whole)} if whole else {}
    if theirs is not None:
        rise = {i: replace(mine, nats=mine.nats - theirs[i].nats) for i, mine in ours.items() if i in theirs}
        forgetting = _per_token(rise, clusters)
        found |= {"forgetting": forgetting} if forgetting else {}
    return found


def exponential(nats: Estimate) -> Estimate:
    """The exponential of an estimate, by the delta method."""
    value = math.exp(min(nats.value, 700))
    return Estimate(value, value * nats.stderr, nats.n)


def reference_answer(record: Record) -> str:
    """The answer that a record holds up as good; empty where it holds none."""
    if isinstance(record, Pair):
        return record.chosen
    if isinstance(record, Example):
        return next((turn["content"] for turn in reversed(record.messages) if turn["role"] == "assistant"), "")
    return ""


def _per_token(told: Mapping[int, Nats], clusters: Mapping[int, Hashable]) -> Estimate | None:
    """Nats per token over all texts, with a clustered error."""
    of = [clusters[i] for i in told]
    return ratio([each.nats for each in told.values()], [each.tokens for each in told.values()], of) if told else None
