"""What can be evaluated: a model opened here, a server, a file of ready answers. All answer prompts; some tell likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from accord.data.records import Prompt
from accord.data.sources import Form
from accord.recipe import Sampling
from accord.sampler import Ask, Rollout
from accord.suites import Likelihoods, Question


@dataclass(frozen=True)
class Answer:
    """An answer with what is known of it: how many tokens it took, and whether it came to its end."""

    rollout: Rollout
    tokens: int | None
    finished: bool | None


class Subject(Protocol):
    """Anything that is evaluated."""

    @property
    def name(self) -> str:
        """Under which results are reported."""
        ...

    @property
    def chunk(self) -> int:
        """How many answers are written down at a time."""
        ...

    @property
    def decodes(self) -> bool:
        """Whether it can be asked for sampled and for greedy answers; ready ones are as they are."""
        ...

    def asks(self, prompts: Sequence[Prompt], form: Form) -> list[Ask]:
        """The prompts that it can answer; `number` is the place among `prompts`. `form` reads the rows of the suite's data."""
        ...

    def answer(self, asks: Sequence[Ask], sampling: Sampling, *, temperature: float, seed: int) -> list[Answer]:
        """One answer for each ask, in order; temperature 0 is greedy."""
        ...

    def likelihoods(self, questions: Sequence[Question]) -> list[Likelihoods] | None:
        """The log-probability of each option; None from those that tell none."""
        ...
