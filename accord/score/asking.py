"""Models that are asked things, for judging: behind an OpenAI-compatible URL, or opened in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.data import chat
from accord.data.records import Message
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.endpoint import Endpoint, message_of
from accord.engine import Engine
from accord.model import context_of, load_policy
from accord.sampler import Ask
from accord.sampler.local import LocalSampler

Asker: TypeAlias = Callable[[Sequence[list[Message]]], list[str]]  # a reply to each conversation, in order


@dataclass
class Served:
    """A model behind an OpenAI-compatible server. `extra` goes into the body of each request: `{"seed": 1}`."""

    endpoint: Endpoint
    max_tokens: int = 1024
    temperature: float = 0.0
    extra: dict[str, object] = field(default_factory=dict)

    def __call__(self, conversations: Sequence[list[Message]]) -> list[str]:
        """A reply to each conversation, several at a time; EngineError, which ends the rest, where one cannot be had."""
        body = {"max_tokens": self.max_tokens, "temperature": self.temperature, **self.extra}
        at = self.endpoint
        return at.each(conversations, lambda messages: message_of(at.complete(messages, body), at.where)[0])


@dataclass
class Local:
    """A model of this process, asked greedily through the engine. A conversation that leaves no room for a reply gets none."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: set[int]
    engine: Engine
    max_tokens: int = 256

    def __call__(self, conversations: Sequence[list[Message]]) -> list[str]:
        """A reply to each conversation; an empty one where it does not fit into the model's context."""
        room = context_of(self.model.config) - self.max_tokens
        tokens = chat.prompts(self.tokenizer, conversations)
        fits = [i for i, row in enumerate(tokens) if len(row) <= room]
        asks = [Ask(prompt=conversations[i], tokens=tokens[i], number=i, group=i) for i in fits]
        sampler = LocalSampler(self.model, self.tokenizer, self.stops)
        said = self.engine.generate(sampler, asks, max_new_tokens=self.max_tokens, temperature=0.0, seed=0)
        replies = dict(zip(fits, (rollout.text for rollout in said), strict=True))
        return [replies.get(i, "") for i in range(len(conversations))]


def local(path: str, engine: Engine, *, where: str) -> Local:
    """The model of a folder or hub id, on the device."""
    tokenizer = load_tokenizer(path, where)
    model = engine.place(load_policy(path, tokenizer, where))
    return Local(model, tokenizer, stop_ids(tokenizer, path), engine)
