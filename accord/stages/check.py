"""Look before leaping: read every input of a recipe, show a row of each source, rehearse each stage on a tiny batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from accord.console import say
from accord.data import chat, judged
from accord.data.dropped import Dropped
from accord.data.loaded import BUCKETS, both
from accord.data.records import (
    Example,
    Prompt,
    Rating,
    Record,
    Text,
    as_example,
    as_pair,
    as_prompt,
    as_ratings,
    bucket,
    conversation,
    is_good,
    named,
)
from accord.data.sources import check, read_each
from accord.errors import DataError, ModelError, RecipeError
from accord.functions import is_reference, load_function
from accord.objectives import check_params, resolve
from accord.objectives.preference import OBJECTIVES
from accord.objectives.reward import OBJECTIVES as REWARD_OBJECTIVES
from accord.recipe import AnyStage, Policy, Preference, Recipe, Reward, Source
from accord.recipe_file import sources
from accord.stages.check_models import check_models, models, origin
from accord.stages.policy import open_objective
from accord.suites import resolve as resolve_suite

SHOWN = 8  # records of a source that are rendered before any work


@dataclass
class Contents:
    """What a source holds, found in one pass that keeps no record but the first few."""

    kinds: Counter[str] = field(default_factory=Counter)  # records by type
    dropped: Dropped = field(default_factory=Dropped)
    head: list[Record] = field(default_factory=list)
    prompts: set[bytes] = field(default_factory=set)  # hashes
    buckets: Counter[int] = field(default_factory=Counter)  # records by the hash that decides what is held out

    def add(self, record: Record) -> None:
        """One more record."""
        self.kinds[type(record).__name__] += 1
        self.buckets[bucket(record, BUCKETS)] += 1
        if len(self.head) < SHOWN:
            self.head.append(record)
        if not isinstance(record, Text):
            prompt = "\0".join(turn["content"].strip().lower() for turn in conversation(record))
            self.prompts.add(hashlib.blake2b(prompt.encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Seen:
    """One data source of a stage, read to its end."""

    where: str
    key: str
    stage: AnyStage
    source: Source
    contents: Contents
    tokenizer: PreTrainedTokenizerBase | None  # None where a stage of this recipe has yet to make it

    @property
    def first(self) -> Record:
        """The first record, as the stage takes it."""
        asked = self.stage.kind in {"policy", "select", "evaluate"} and self.key != "mix.data"
        return as_prompt(self.contents.head[0]) if asked else self.contents.head[0]


def inspect(recipe: Recipe) -> list[Seen]:
    """Everything that a recipe names is there and fits its stage, or an error: files, rows, functions, tokenizers."""
    for name, stage in recipe.stage.items():
        _check_names(f"stage.{name}", stage)
    tokenizers = check_models(recipe)
    found: list[Seen] = []
    contents: dict[str, Contents] = {}  # a source that several stages name is read once
    for name, stage in recipe.stage.items():
        root = origin(recipe, stage)
        tokenizer = tokenizers.get(root) if isinstance(root, str) else None
        for key, source in read_now(stage):
            of = contents.setdefault(source.model_dump_json(), Contents())
            found.append(Seen(f"stage.{name}.{key}", key, stage, source, of, tokenizer))
    for of in contents.values():
        _read([seen for seen in found if seen.contents is of])
    for name, stage in recipe.stage.items():
        held = getattr(stage, "eval_data", None)
        of_stage = [seen.contents for seen in found if seen.stage is stage and seen.key == "data"]
        if isinstance(held, float) and len(of_stage) == len(stage.data):
            aside = sum(sum(n for i, n in of.buckets.items() if i < held * BUCKETS) for of in of_stage)
            both(held, f"stage.{name}", train=sum(of.buckets.total() for of in of_stage) - aside, aside=aside)
    for leak in leaks(recipe, found):
        say(leak)
    return found


def _read(every: Sequence[Seen]) -> None:
    """Read a source to its end for all stages that name it; each record must fit each of them."""
    first, contents = every[0], every[0].contents
    checks = [_check_of(seen) for seen in every]
    for record in read_each([first.source], contents.dropped, first.where):
        contents.add(record)
        for check_one in checks:
            check_one(record)
    for seen in every:
        _check_template(seen)


def leaks(recipe: Recipe, found: Sequence[Seen]) -> list[str]:
    """What to say of held-out and evaluated prompts that are in training data too."""

    def prompts(stage: AnyStage, *keys: str) -> set[bytes]:
        return set().union(*(seen.contents.prompts for seen in found if seen.stage is stage and seen.key in keys))

    learnt = {
        name: prompts(stage, "data", "mix.data") for name, stage in recipe.stage.items() if stage.kind != "evaluate"
    }
    said: list[str] = []
    for name, stage in recipe.stage.items():
        key = "data" if stage.kind == "evaluate" else "eval_data"
        held = prompts(stage, key)
        for other in learnt if stage.kind == "evaluate" else [name]:
            if common := held & learnt[other]:
                said.append(
                    f"{name:<10} {len(common)} of {len(held)} prompts of {key} are in the training data of {other} too"
                )
    return said


def _check_names(where: str, stage: AnyStage) -> None:
    """Files, functions and folders exist; parameters fit the objective."""
    for key, source in read_now(stage):
        check(source, f"{where}.{key}")
    for key, reference in functions(stage):
        load_function(reference, f"{where}.{key}")
    for suite in getattr(stage, "suites", []):
        resolve_suite(suite, f"{where}.suites")
    for key, model in models(stage):
        if model.startswith("/") and not Path(model).is_dir():
            raise RecipeError(
                f"{where}.{key}", f"there is no folder {model}", "give a model folder, a hub id or @stage"
            )
    if isinstance(stage, Preference):
        objective = resolve(stage.objective, OBJECTIVES, f"{where}.objective")
        check_params(objective, dict(stage.params), f"{where}.params")
    if isinstance(stage, Reward) and is_reference(stage.objective):
        objective = resolve(stage.objective, REWARD_OBJECTIVES, f"{where}.objective")
        check_params(objective, dict(stage.params), f"{where}.params")
    if isinstance(stage, Policy):
        open_objective(stage, where)


def _check_of(seen: Seen) -> Callable[[Record], object]:
    """What raises DataError for a record that is not of the kind that the stage reads."""
    stage, where = seen.stage, seen.where
    if seen.key == "mix.data":
        return lambda record: isinstance(record, Text) or as_example(record, where)
    if seen.key == "normalise.data" or stage.kind == "sft":
        return lambda record: as_example(record, where)
    if isinstance(stage, Reward):
        margin = stage.params.get("margin") is True
        return lambda record: judged.check(record, stage.objective, where, margin=margin)
    if isinstance(stage, Preference):
        rated = "label" in resolve(stage.objective, OBJECTIVES, "objective").needs
        return lambda record: _check_preference(record, where, stage.objective, rated=rated)
    return lambda record: _check_prompt(record, where, plain=stage.kind == "pretrain")


def _check_prompt(record: Record, where: str, *, plain: bool) -> None:
    if plain != isinstance(record, Text):
        wanted = "plain text" if plain else "prompts"
        raise DataError(where, f"{named(record)} is not what the stage reads", f"give {wanted}")


def _check_template(seen: Seen) -> None:
    """The first records render under the chat template."""
    records = seen.contents.head
    if seen.tokenizer is not None and not isinstance(records[0], Text):
        try:
            chat.rows(seen.tokenizer, [_shown(record) for record in records])
        except ModelError as error:
            raise ModelError(seen.where, *(": ".join(map(str, error.args[:2])), *error.args[2:])) from None


def _check_preference(record: Record, where: str, objective: str, *, rated: bool) -> None:
    """Ratings go with objectives that read a `label`, and say good or bad; pairs go with every objective."""
    if rated:
        for rating in as_ratings(record, where):
            is_good(rating.label, where)
    elif isinstance(record, Rating):
        fix = 'give pairs or rankings, or set objective = "kto"'
        raise DataError(where, f"ratings do not go with objective '{objective}'", fix)
    else:
        as_pair(record, where)


def _shown(record: Record) -> Example:
    """A record as a conversation with an answer."""
    if isinstance(record, Prompt | Rating):
        said = record.response if isinstance(record, Rating) else "…"
        return Example(messages=[*record.prompt, {"role": "assistant", "content": said}], train="last")
    try:
        return as_example(record, "")
    except DataError:
        return Example(messages=[*as_prompt(record).prompt, {"role": "assistant", "content": "…"}], train="last")


def marked(seen: Seen) -> str:
    """The first row as the stage will see it; what is trained stands between ⟦ and ⟧."""
    if isinstance(seen.first, Text) or seen.tokenizer is None:
        return seen.first.text if isinstance(seen.first, Text) else _plain(seen.first)
    row = chat.rows(seen.tokenizer, [_shown(seen.first)])[0]
    text, inside, start = "", False, 0
    for i in range(len(row) + 1):
        if i == len(row) or row.train[i] != inside:
            piece = str(seen.tokenizer.decode(row.tokens[start:i]))
            text += f"⟦{piece}⟧" if inside else piece
            inside, start = not inside, i
    return text


def _plain(record: Record) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in _shown(record).messages)


# ------------------------------------------------------------------------------------------------- what a stage names


def read_now(stage: AnyStage) -> list[tuple[str, Source]]:
    """The sources that are there before any stage has run, with their keys."""
    return [(key, source) for key, source in sources(stage) if not source.source.startswith("@")]


def functions(stage: AnyStage) -> list[tuple[str, str]]:
    """The functions by reference that a stage calls, with their keys (data functions are sources)."""
    named = [("objective", getattr(stage, "objective", ""))]
    named += [(f"suites.{name}", name) for name in getattr(stage, "suites", [])]
    for key in ("rewards", "eval_rewards"):
        named += [(f"{key}.{name}", name) for name in getattr(stage, key, {})]
    return [(key, name) for key, name in named if is_reference(name)]
