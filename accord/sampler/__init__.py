"""Sampling answers: what a rollout is, and what can make one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, Protocol

from accord.data.batch import Batch, Row, collate
from accord.data.prepare import Asked
from accord.data.records import Message, Meta
from accord.recipe import Decoding


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What was said, and how: the common currency of training, evaluation and serving."""

    prompt: list[Message]
    text: str
    prompt_tokens: list[int]
    tokens: list[int]  # of the answer, its end token included where it has one
    logp: list[float]  # of each token as it was sampled, in nats
    finish: Literal["stop", "length"]
    group: int = 0  # answers to one prompt share it
    meta: Meta = field(default_factory=dict)  # the prompt's
    version: int = 0  # of the policy: the step it was sampled at


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt to answer. `number` numbers the answers of a stage: with the seed it decides what is drawn."""

    prompt: list[Message]
    tokens: list[int]
    number: int
    group: int = 0
    meta: Meta = field(default_factory=dict)


def asks_of(asked: Sequence[Asked], *, each: int = 1, start: int = 0) -> list[Ask]:
    """`each` answers to every prompt, those to one prompt next to each other and in one group; numbers go on from `start`."""
    return [
        Ask(prompt=a.prompt, tokens=a.tokens, number=start + i * each + k, group=i, meta=a.meta)
        for i, a in enumerate(asked)
        for k in range(each)
    ]


PLAIN = Decoding()  # the model's own distribution


class Sampler(Protocol):
    """Anything that answers prompts."""

    def generate(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        version: int = 0,
        decoding: Decoding = PLAIN,
    ) -> list[Rollout]:
        """One answer for each ask, in order; temperature 0 is greedy.

        A token's `logp` is that under the distribution it was drawn from: after penalty, temperature and truncation.
        """
        ...


def as_batch(rollouts: Sequence[Rollout], pad: int, temperature: float, *, window: int = 0) -> Batch:
    """Prompt and sampled answer of each rollout; the answer is what is trained.

    `sampled_logp` is what the sampler said of each token. `valued` marks what a critic judges: the answer, and after an end
    token one place more where a `window` has room for it.
    """
    rows: list[Row] = []
    for rollout in rollouts:
        start, more = len(rollout.prompt_tokens), int(rollout.finish == "stop" and len(rollout.tokens) < window)
        tokens = rollout.prompt_tokens + rollout.tokens + [pad] * more
        train = [False] * start + [True] * len(rollout.tokens) + [False] * more
        said = [0.0] * start + list(rollout.logp) + [0.0] * more
        rows.append(Row(tokens, train, {"sampled_logp": said, "valued": [0.0] * start + [1.0] * (len(tokens) - start)}))
    batch = beside(rollouts, rows, pad)
    batch.temperature = temperature
    return batch


def beside(rollouts: Sequence[Rollout], rows: Sequence[Row], pad: int) -> Batch:
    """A row of each rollout as a batch, in which neighbours that answer one prompt are a loose group."""
    groups = groupby(zip(rollouts, rows, strict=True), key=lambda pair: pair[0].prompt_tokens)
    batch = collate([[row for _, row in group] for _, group in groups], pad)
    batch.loose = True
    return batch
