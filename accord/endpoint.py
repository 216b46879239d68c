"""An OpenAI-compatible server: how it is asked, what is asked again, and several requests at a time."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TypeVar, cast
from urllib.parse import urldefrag

from accord import processes
from accord.errors import EngineError
from accord.recipe import Server

Item = TypeVar("Item")
Found = TypeVar("Found")

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses that may pass
LONGEST_PAUSE = 60.0  # seconds


@dataclass
class Endpoint:
    """Where an OpenAI-compatible server is, and how it is asked. `url` ends in `/v1` or the like."""

    url: str
    model: str
    settings: Server = field(default_factory=Server)
    where: str = "server"
    pause: float = 1.0  # seconds before the first repetition
    stopped: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, reference: str, settings: Server, where: str) -> Endpoint:
        """The endpoint of `http://host:8000/v1#model`; without a name, the first model that the server has."""
        url, model = urldefrag(reference)
        made = cls(url.rstrip("/"), model, settings, where)
        if not model:
            known = cast(list[dict[str, object]], made.call("/models", None).get("data") or [])
            if not known:
                raise EngineError(where, f"{made.url} names no model", f"name one: {made.url}#model")
            made.model = str(known[0].get("id"))
        return made

    def complete(self, messages: Sequence[Mapping[str, object]], body: dict[str, object]) -> dict[str, object]:
        """What `/chat/completions` says to a conversation, with `body` beside model and messages. Repeats what may pass."""
        return self.call("/chat/completions", {"model": self.model, "messages": list(messages), **body})

    def each(self, items: Sequence[Item], ask: Callable[[Item], Found]) -> list[Found]:
        """What `ask`, which makes requests, finds for each item, in order, several at a time, in one process of several; the
        first failure ends the rest."""
        failures: list[BaseException] = []

        def one(item: Item) -> Found:
            try:
                return ask(item)
            except BaseException as error:
                failures.append(error)
                self.stopped.set()  # the others wait for nothing more
                raise

        def all_of_them() -> list[Found]:
            pool = ThreadPoolExecutor(self.settings.concurrency)
            try:
                return list(pool.map(one, items))
            except BaseException as error:
                self.stopped.set()
                raise (failures or [error])[0] from None
            finally:
                pool.shutdown(cancel_futures=True)

        return processes.once(all_of_them)

    def call(self, path: str, body: dict[str, object] | None) -> dict[str, object]:
        """The JSON object that a path answers with. EngineError where it cannot be had."""
        pause, last = self.pause, ""
        for attempt in range(self.settings.retries + 1):
            if self.stopped.is_set():
                raise EngineError(self.where, "stopped: another request failed")
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                last = f"HTTP {error.code}: {_said(error)}"
                if error.code not in AGAIN:
                    raise EngineError(self.where, f"{self.url}{path} says {last}", self._advice(error.code)) from None
                after = error.headers.get("Retry-After") or ""
                pause = max(pause, float(after)) if after.isdigit() else pause
            except (OSError, HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                last = str(reason) or type(reason).__name__
            except ValueError as error:
                last = f"what is no JSON ({error})"
            if attempt < self.settings.retries:
                self.stopped.wait(min(pause, LONGEST_PAUSE))
                pause *= 2
        said = f"{self.url}{path} could not be asked, {self.settings.retries + 1} times: {last}"
        raise EngineError(self.where, said, "start the server, or mend the URL; what has been answered is kept")

    def _once(self, path: str, body: dict[str, object] | None) -> dict[str, object]:
        headers = {"Content-Type": "application/json", "User-Agent": "accord"}
        if key := os.environ.get(self.settings.api_key_env, ""):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=self.settings.timeout) as answer:
            found = json.loads(answer.read())
        if not isinstance(found, dict):
            raise ValueError("a JSON object is expected")
        return cast(dict[str, object], found)

    def _advice(self, status: int) -> str:
        if status in {401, 403}:
            return f"put the key into the environment variable {self.settings.api_key_env}, or name another with api_key_env"
        return "look at the URL (it ends in /v1) and at the name of the model behind #"


def message_of(said: dict[str, object], where: str) -> tuple[str, dict[str, object]]:
    """The text of the first choice, empty where it has none, and the choice. EngineError where there is no choice."""
    choices = said.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = cast(dict[str, object], first).get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        shown = json.dumps(said)[:200]
        raise EngineError(where, f"an answer without choices[0].message: {shown}", "ask an OpenAI-compatible server")
    text = cast(dict[str, object], message).get("content")
    return text if isinstance(text, str) else "", cast(dict[str, object], first)


def _said(error: urllib.error.HTTPError) -> str:
    """What a server says of a refusal, in one line."""
    try:
        body = error.read().decode(errors="replace").strip()
    except (OSError, HTTPException):
        return error.reason
    return " ".join(body.split())[:300] or error.reason
