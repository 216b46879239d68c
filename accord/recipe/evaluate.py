"""The evaluate stage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from accord.recipe.base import NotEmpty, Positive, Probability, Section, one_of
from accord.recipe.policy import Rewards
from accord.recipe.training import AnySource, Source, Sources, Stage

ROWS = (".jsonl", ".json", ".csv", ".parquet", ".gz")  # files of rows
EMBEDDED = {"demo": "accord:demo/report"}  # the data of suites that bring some


def is_server(model: str) -> bool:
    """Whether a model is behind the URL of an OpenAI-compatible server, `http://host:8000/v1#name`."""
    return model.startswith(("http://", "https://"))


def is_given(model: str) -> bool:
    """Whether a model is a file of ready answers."""
    return not is_server(model) and Path(model).suffix in ROWS


class Asked(NamedTuple):
    """A suite of a stage: its name (or `file.py:fn`), and where its prompts are; None stands for the stage's `data`."""

    name: str
    source: Source | None


def suite_of(text: str) -> tuple[str, str]:
    """`ifeval=rows.jsonl` -> (ifeval, rows.jsonl); without data of its own the second is empty."""
    found = re.fullmatch(r"(\w+|.+?\.py:\w+)(?:=(.+))?", text)
    return (found[1], found[2] or "") if found else (text, "")


class Decoding(Section):
    """What shapes the distribution of the next token beside the temperature, in the order given here, and what ends an
    answer beside end tokens. As set, everything stays as it is. The definitions are those of transformers."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Makes tokens of prompt and answer less likely to come again: a positive logit is divided by it, a negative one
    multiplied (Keskar et al. 2019); 1.1 is usual, under 1 asks for repetition. Greedy answers heed it too."""
    top_k: int = Field(default=0, ge=0)
    """Draw from this many most likely tokens (0 = from all)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the fewest most likely tokens that together are at least this likely (Holtzman et al. 2020)."""
    min_p: Probability = 0.0
    """Leave out tokens less likely than this times the most likely one: 0.05 cuts the tail where the model is sure, and
    little where it is not."""
    stop: Annotated[tuple[NotEmpty, ...], BeforeValidator(lambda x: [x] if isinstance(x, str) else x)] = ()
    """An answer ends where it says one of these texts, which does not count as part of it: `["\\n\\n", "User:"]`."""


class Sampling(Decoding):
    """How an evaluation or a selection samples."""

    max_new_tokens: Positive = 128
    """Longest answer, its end token included."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampled answers; an evaluation also answers each prompt greedily."""


class Server(Section):
    """How an OpenAI-compatible server is asked. Nothing here changes what it is asked."""

    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; a server on this machine needs none."""
    concurrency: Positive = 8
    """Requests at a time."""
    timeout: float = Field(default=120, gt=0)
    """Seconds that an answer may take."""
    retries: int = Field(default=5, ge=0)
    """How often a request is repeated after a failure of the network or the server, each time after twice the pause."""


class Evaluate(Stage):
    """Any number of models, side by side on the same prompts."""

    kind: Literal["evaluate"] = "evaluate"
    models: dict[str, NotEmpty] = {}
    """Name in the table = hub id, folder, `@stage`, an OpenAI-compatible server (`http://localhost:8000/v1#model`), or a file
    of ready answers (rows with prompt and response)."""
    baseline: str = Field(default="", validate_default=True)
    """The model that win rate and KL refer to; unset means the first. Without models it is one of those in `annotations`."""
    data: Annotated[list[AnySource], BeforeValidator(lambda value: value if isinstance(value, list) else [value])] = []
    """Prompts of the suites that have none of their own; where records bring an answer, perplexity is measured on it."""
    rewards: Rewards = {}
    """What judges the answers: held-out reward models or functions."""
    suites: list[NotEmpty] = Field(default=["prompts"], min_length=1)
    """Names under which results are reported: `prompts`, another built-in suite, or a function of yours (`file.py:fn`).
    `"ifeval=rows.jsonl"` gives a suite data of its own."""
    sampling: Sampling = Sampling()
    """How answers are sampled. Those behind `curves` come from the whole distribution at temperature 1, which KL is of."""
    decode: Literal["both", "sampled", "greedy"] = "both"
    """How each prompt is answered: sampled, greedily, or once each way."""
    limit: Positive | None = None
    """Read at most this many records of each source."""
    judge: str = ""
    """An LLM that compares each answer with the baseline's: a server's URL, a folder or a hub id."""
    remember: Sources | None = None
    """What the base knew: plain text or demonstrations, on which perplexity is measured and its rise over the baseline's."""
    annotations: Annotated[list[NotEmpty], BeforeValidator(lambda x: [x] * bool(x) if isinstance(x, str) else x)] = []
    """Files of ready judgements in AlpacaEval's form, for the suite `winrate`; of more than one pair of models they make a
    leaderboard."""
    ratings: str = ""
    """A file of people's ratings, which come in as columns."""
    curves: dict[str, str] = {}
    """Name = `@stage` of policy stages with `checkpoints`: reward and gold of each over KL, in curves.json."""
    best_of: int = Field(default=0, ge=0)
    """Beside each curve, best-of-n from where the policy started, for n up to this (0 = none)."""
    server: Server = Server()
    """How models behind a URL are asked."""
    max_tokens: Positive | None = None
    """Longest prompt with its answer, in tokens; unset takes the models' context."""
    micro_tokens: Positive = 4096
    """Token budget of one forward pass."""

    @field_validator("baseline")
    @classmethod
    def _known(cls, baseline: str, info: ValidationInfo) -> str:
        models = list(info.data.get("models", [baseline]))  # not there where they are a mistake themselves
        if models:
            one_of("model", baseline or models[0], models)
        return baseline or next(iter(models), "")  # without models it is one of those in `annotations`

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.models and not self.annotations and not self.ratings:
            raise ValueError("models is missing; name at least one model, or a file of ready answers")
        if len(set(self.annotations)) < len(self.annotations):
            raise ValueError("annotations names a file twice; a judgement counts once")
        if self.baseline and not self.models and not self.annotations:
            raise ValueError("baseline is one of models, or of those in annotations; name it there, or leave it out")
        return self

    @property
    def asked(self) -> list[Asked]:
        """The suites with their own data, in order."""
        found: list[Asked] = []
        for name, data in map(suite_of, self.suites):
            data = data or ("" if self.data else EMBEDDED.get(name, ""))
            found.append(Asked(name, Source(source=data, limit=self.limit) if data else None))
        return found

    @property
    def own(self) -> list[tuple[str, Source]]:
        """The sources that are suites' own, with their keys."""
        return [(f"suites.{name}", source) for name, source in self.asked if source]

    @property
    def local(self) -> dict[str, str]:
        """The models that are opened here: neither behind a URL nor ready answers."""
        return {name: model for name, model in self.models.items() if not is_server(model) and not is_given(model)}

    @property
    def start(self) -> str | None:
        """The model whose tokens count: the baseline, else the first one that is opened here; None where there is none."""
        return self.local.get(self.baseline) or next(iter(self.local.values()), None)

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The files that are read as they are, with their keys: ready answers, judgements, ratings."""
        given = [(f"models.{name}", Path(model)) for name, model in self.models.items() if is_given(model)]
        given += [(f"annotations.{at}", Path(path)) for at, path in enumerate(self.annotations)]
        return given + ([("ratings", Path(self.ratings))] if self.ratings else [])

    def limited(self, sources: list[Source]) -> list[Source]:
        """Sources, none longer than `limit`."""
        most = self.limit
        return [
            source.model_copy(update={"limit": min(source.limit or most, most)}) if most else source
            for source in sources
        ]
