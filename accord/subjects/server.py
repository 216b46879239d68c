"""A model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, TGI, accord's own, or a paid service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from accord.data.records import Prompt
from accord.data.sources import Form
from accord.endpoint import Endpoint, message_of
from accord.recipe import Sampling
from accord.sampler import Ask, Rollout
from accord.subjects import Answer
from accord.suites import Likelihoods, Question


@dataclass(frozen=True)
class Behind:
    """A subject behind an endpoint."""

    name: str
    endpoint: Endpoint
    chunk: int = 32
    decodes: bool = True

    def asks(self, prompts: Sequence[Prompt], form: Form) -> list[Ask]:
        """All of them: how long a prompt may be is the server's business."""
        return [
            Ask(prompt=prompt.prompt, tokens=[], number=i, group=i, meta=prompt.meta)
            for i, prompt in enumerate(prompts)
        ]

    def answer(self, asks: Sequence[Ask], sampling: Sampling, *, temperature: float, seed: int) -> list[Answer]:
        """One answer for each ask, in order, several requests at a time. Each has a seed of its own."""

        def one(ask: Ask) -> Answer:
            body = body_of(sampling, temperature=temperature, seed=seed_of(seed, ask.number))
            return answer_of(ask, self.endpoint.complete(ask.prompt, body), self.endpoint.where)

        return self.endpoint.each(asks, one)

    def likelihoods(self, questions: Sequence[Question]) -> list[Likelihoods] | None:
        """None: the interface tells no likelihoods of given text."""
        return None


def body_of(sampling: Sampling, *, temperature: float, seed: int) -> dict[str, object]:
    """The settings of a request. What only some servers know is sent where it is not as it is left."""
    known = {"temperature": temperature, "max_tokens": sampling.max_new_tokens, "seed": seed}
    more = sampling.model_dump(
        include={"top_p", "top_k", "min_p", "repetition_penalty"}, exclude_defaults=True, mode="json"
    )
    return {**known, **more, **({"stop": list(sampling.stop)} if sampling.stop else {})}


def seed_of(seed: int, number: int) -> int:
    """A seed for each answer, or repeated prompts would be answered alike."""
    return (seed * 1_000_003 + number) % 2**31


def answer_of(ask: Ask, said: dict[str, object], where: str) -> Answer:
    """The answer in what a server says. EngineError where there is none."""
    text, first = message_of(said, where)
    reason = first.get("finish_reason")
    usage = said.get("usage")
    count = cast(dict[str, object], usage).get("completion_tokens") if isinstance(usage, dict) else None
    rollout = Rollout(
        prompt=ask.prompt, text=text.strip(), prompt_tokens=[], tokens=[], logp=[],
        finish="length" if reason == "length" else "stop", group=ask.group, meta=ask.meta,
    )  # fmt: skip
    return Answer(rollout, count if isinstance(count, int) else None, None if reason is None else reason != "length")
