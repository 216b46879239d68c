"""Models that are asked things, for judging: behind an OpenAI-compatible URL, or opened in this process."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TypeAlias, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord import processes
from accord.data import chat
from accord.data.records import Message
from accord.engine import Engine
from accord.errors import EngineError
from accord.model import context_of
from accord.sampler import Ask
from accord.sampler.local import LocalSampler

Asker: TypeAlias = Callable[[Sequence[list[Message]]], list[str]]  # a reply to each conversation, in order

MAY_PASS = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # HTTP statuses that are worth another try
LONGEST_PAUSE = 60.0  # seconds


@dataclass
class Served:
    """A model behind an OpenAI-compatible server. `url` ends in `/v1` or the like.

    The key, where one is wanted, is in the environment variable `key_env`. EngineError where a reply cannot be had.
    """

    url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 1024
    temperature: float = 0.0
    timeout: float = 120.0  # seconds for one reply
    retries: int = 4
    pause: float = 1.0  # seconds before the first repetition, twice as long before each further one
    concurrency: int = 8
    extra: dict[str, object] = field(default_factory=dict)  # of the request's body, `{"seed": 1}`

    def __call__(self, conversations: Sequence[list[Message]]) -> list[str]:
        """A reply to each conversation, several at a time; the first failure ends the rest."""
        return processes.once(lambda: self._all(conversations))

    def _all(self, conversations: Sequence[list[Message]]) -> list[str]:
        stop = threading.Event()
        failed: list[BaseException] = []

        def one(conversation: list[Message]) -> str:
            try:
                return self._reply(conversation, stop)
            except BaseException as error:
                failed.append(error)
                stop.set()
                raise

        pool = ThreadPoolExecutor(self.concurrency)
        try:
            return list(pool.map(one, conversations))
        except BaseException as error:
            stop.set()
            raise (failed or [error])[0] from None
        finally:
            pool.shutdown(cancel_futures=True)

    def _reply(self, conversation: list[Message], stop: threading.Event) -> str:
        pause, said = self.pause, ""
        for attempt in range(self.retries + 1):
            if stop.is_set():
                raise EngineError(self.url, "stopped, another request failed")
            try:
                return self._once(conversation)
            except urllib.error.HTTPError as error:
                said = f"HTTP {error.code}: {_body(error)}"
                if error.code not in MAY_PASS:
                    raise EngineError(self.url, f"the judge says {said}", self._advice(error.code)) from None
                after = error.headers.get("Retry-After") or ""
                pause = max(pause, float(after)) if after.isdigit() else pause
            except (OSError, HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                said = str(reason) or type(reason).__name__
            except ValueError as error:
                said = f"no answer in OpenAI's form ({error})"
            if attempt < self.retries:
                stop.wait(min(pause, LONGEST_PAUSE))
                pause *= 2
        fix = "start the server, mend the URL, or raise timeout and retries"
        raise EngineError(self.url, f"the judge could not be asked, {self.retries + 1} times: {said}", fix)

    def _once(self, conversation: list[Message]) -> str:
        body = {"model": self.model, "messages": conversation, "max_tokens": self.max_tokens}
        sent = json.dumps(body | {"temperature": self.temperature} | self.extra).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "accord"}
        if key := os.environ.get(self.key_env, ""):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url.rstrip("/") + "/chat/completions", sent, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            found = cast(object, json.loads(answer.read()))
        return _text(found)

    def _advice(self, status: int) -> str:
        if status in {401, 403}:
            return f"put the key into the environment variable {self.key_env}, or name another with key_env"
        return "look at the URL (it ends in /v1) and at the name of the model"


def _text(found: object) -> str:
    """What the first choice says; ValueError where there is none. A reply without text is empty."""
    choices = cast(dict[str, object], found).get("choices") if isinstance(found, dict) else None
    first = cast(object, choices[0]) if isinstance(choices, list) and choices else None
    message = cast(dict[str, object], first).get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        raise ValueError(f"no choices[0].message in {json.dumps(found)[:200]}")
    said = cast(dict[str, object], message).get("content")
    return said if isinstance(said, str) else ""


def _body(error: urllib.error.HTTPError) -> str:
    """What a server says of a refusal, in one line."""
    try:
        said = error.read().decode(errors="replace")
    except (OSError, HTTPException):
        said = ""
    return " ".join(said.split())[:300] or error.reason


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
