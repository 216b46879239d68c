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
from typing import Protocol, TypeAlias, cast
from urllib.parse import urldefrag

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord import processes
from accord.data import chat
from accord.data.records import Message
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Engine
from accord.errors import EngineError
from accord.model import context_of, load_policy
from accord.sampler import Ask
from accord.sampler.local import LocalSampler

Asker: TypeAlias = Callable[[Sequence[list[Message]]], list[str]]  # a reply to each conversation, in order

MAY_PASS = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # HTTP statuses that are worth another try
LONGEST_PAUSE = 60.0  # seconds


@dataclass
class Served:
    """A model behind an OpenAI-compatible server. `url` ends in `/v1` or the like.

    The key, where one is wanted, is in the environment variable `key_env`. EngineError, at `where`, if a reply cannot be had.
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
    where: str = "judge"

    def first_model(self) -> str:
        """The first of the models that the server has."""
        found = self._call("/models", None, threading.Event())
        data = cast(dict[str, object], found).get("data") if isinstance(found, dict) else None
        first = cast(object, data[0]) if isinstance(data, list) and data else None
        if not isinstance(first, dict) or "id" not in first:
            raise EngineError(self.where, f"{self.url} names no model", f"name one: {self.url}#model")
        return str(cast(dict[str, object], first)["id"])

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
        body = {"model": self.model, "messages": conversation, "max_tokens": self.max_tokens}
        return _text(self._call("/chat/completions", body | {"temperature": self.temperature} | self.extra, stop), self)

    def _call(self, path: str, body: dict[str, object] | None, stop: threading.Event) -> object:
        """What the server says, from JSON; what may pass is tried again."""
        pause, said = self.pause, ""
        for attempt in range(self.retries + 1):
            if stop.is_set():
                raise EngineError(self.where, "stopped, another request failed")
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                said = f"HTTP {error.code}: {_body(error)}"
                if error.code not in MAY_PASS:
                    raise EngineError(self.where, f"{self.url}{path} says {said}", self._advice(error.code)) from None
                after = error.headers.get("Retry-After") or ""
                pause = max(pause, float(after)) if after.isdigit() else pause
            except (OSError, HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                said = str(reason) or type(reason).__name__
            except ValueError as error:
                said = f"what is no JSON ({error})"
            if attempt < self.retries:
                stop.wait(min(pause, LONGEST_PAUSE))
                pause *= 2
        said = f"{self.url}{path} could not be asked, {self.retries + 1} times: {said}"
        raise EngineError(self.where, said, "start the server, mend the URL, or raise timeout and retries")

    def _once(self, path: str, body: dict[str, object] | None) -> object:
        headers = {"Content-Type": "application/json", "User-Agent": "accord"}
        if key := os.environ.get(self.key_env, ""):
            headers["Authorization"] = f"Bearer {key}"
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url.rstrip("/") + path, sent, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            return cast(object, json.loads(answer.read()))

    def _advice(self, status: int) -> str:
        if status in {401, 403}:
            return f"put the key into the environment variable {self.key_env}, or name another with key_env"
        return "look at the URL (it ends in /v1) and at the name of the model"


class Settings(Protocol):
    """How a server is asked, as recipes say it."""

    @property
    def api_key_env(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...


def served(reference: str, settings: Settings, *, seed: int, where: str) -> Served:
    """The model of `http://host:8000/v1#model`; without a name, the first that the server has."""
    url, model = urldefrag(reference)
    made = Served(
        url.rstrip("/"), model, settings.api_key_env, timeout=settings.timeout, retries=settings.retries,
        concurrency=settings.concurrency, extra={"seed": seed}, where=where,
    )  # fmt: skip
    made.model = model or made.first_model()
    return made


def _text(found: object, of: Served) -> str:
    """What the first choice says; EngineError where there is none. A reply without text is empty."""
    choices = cast(dict[str, object], found).get("choices") if isinstance(found, dict) else None
    first = cast(object, choices[0]) if isinstance(choices, list) and choices else None
    message = cast(dict[str, object], first).get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        said = f"{of.url} answers without choices[0].message: {json.dumps(found)[:200]}"
        raise EngineError(of.where, said, "ask an OpenAI-compatible server")
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


def local(path: str, engine: Engine, *, where: str) -> Local:
    """The model of a folder or hub id, on the device."""
    tokenizer = load_tokenizer(path, where)
    model = engine.place(load_policy(path, tokenizer, where))
    return Local(model, tokenizer, stop_ids(tokenizer, path), engine)
