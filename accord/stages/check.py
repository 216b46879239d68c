"""Look before leaping: read every input of a recipe, show a row of each source, rehearse each stage on a tiny batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from accord.console import say
from accord.data import chat, judged, prepare
from accord.data.dropped import Dropped
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
    conversation,
    is_good,
    named,
)
from accord.data.sources import check, read_all
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


@dataclass(frozen=True)
class Seen:
    """One data source of a stage, read to its end."""

    where: str
    kinds: dict[str, int]  # records by type
    dropped: Dropped
    first: Record
    tokenizer: PreTrainedTokenizerBase | None  # None where a stage of this recipe has yet to make it


def inspect(recipe: Recipe) -> list[Seen]:
    """Everything that a recipe names is there and fits its stage, or an error: files, rows, functions, tokenizers."""
    for name, stage in recipe.stage.items():
        _check_names(f"stage.{name}", stage)
    tokenizers = check_models(recipe)
    found: list[Seen] = []
    read: dict[str, tuple[list[Record], Dropped]] = {}
    for name, stage in recipe.stage.items():
        root = origin(recipe, stage)
        for key, source in read_now(stage):
            identity = source.model_dump_json()
            if identity not in read:
                dropped = Dropped()
                read[identity] = (read_all([source], dropped, f"stage.{name}.{key}"), dropped)
            records, dropped = read[identity]
            asked = stage.kind in {"policy", "select", "evaluate"} and key != "mix.data"
            first = as_prompt(records[0]) if asked else records[0]
            seen = Seen(f"stage.{name}.{key}", dict(Counter(type(r).__name__ for r in records)), dropped, first,
                        tokenizers.get(root) if isinstance(root, str) else None)  # fmt: skip
            _check_rows(stage, records, seen)
            found.append(seen)
        held = getattr(stage, "eval_data", None)
        now = [source for key, source in read_now(stage) if key == "data"]
        if isinstance(held, float) and len(now) == len(stage.data):  # leaves something on both sides, or raises
            every = [record for source in now for record in read[source.model_dump_json()][0]]
            prepare.split(every, held, f"stage.{name}")
    for leak in leaks(recipe, {identity: records for identity, (records, _) in read.items()}):
        say(leak)
    return found


def leaks(recipe: Recipe, records: dict[str, list[Record]]) -> list[str]:
    """What to say of held-out and evaluated prompts that are in training data too; `records` by source."""

    def prompts(stage: AnyStage, *keys: str) -> set[str]:
        return {
            "\0".join(turn["content"].strip().lower() for turn in conversation(record))
            for key, source in read_now(stage)
            if key in keys
            for record in records[source.model_dump_json()]
            if not isinstance(record, Text)
        }

    learnt = {
        name: prompts(stage, "data", "mix.data") for name, stage in recipe.stage.items() if stage.kind != "evaluate"
    }
    said: list[str] = []
    for name, stage in recipe.stage.items():
        key = "data" if stage.kind == "evaluate" else "eval_data"
        held = prompts(stage, key)
        for other in learnt if stage.kind == "evaluate" else [name]:
            if both := held & learnt[other]:
                said.append(
                    f"{name:<10} {len(both)} of {len(held)} prompts of {key} are in the training data of {other} too"
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


def _check_rows(stage: AnyStage, records: list[Record], seen: Seen) -> None:
    """The records are of the kind that the stage reads, and the first ones render under its chat template."""
    mixed, shown = seen.where.endswith(".mix.data"), seen.where.endswith(".normalise.data")
    rated = isinstance(stage, Preference) and "label" in resolve(stage.objective, OBJECTIVES, "objective").needs
    for record in records:
        if mixed and isinstance(record, Text):
            continue
        if mixed or shown or stage.kind == "sft":
            as_example(record, seen.where)
        elif isinstance(stage, Reward):
            judged.check(record, stage.objective, seen.where, margin=stage.params.get("margin") is True)
        elif isinstance(stage, Preference):
            _check_preference(record, seen.where, stage.objective, rated=rated)
        elif (stage.kind == "pretrain") != isinstance(record, Text):
            wanted = "plain text" if stage.kind == "pretrain" else "prompts"
            raise DataError(seen.where, f"{named(record)} is not what the stage reads", f"give {wanted}")
    if seen.tokenizer is not None and not isinstance(records[0], Text):
        try:
            chat.rows(seen.tokenizer, [_shown(record) for record in records[:8]])
        except ModelError as error:
            raise ModelError(seen.where, *(": ".join(map(str, error.args[:2])), *error.args[2:])) from None


def _check_preference(record: Record, where: str, objective: str, *, rated: bool) -> None:
    """Ratings go with objectives that read a `label`, and say good or bad; pairs go with every objective."""
    if rated:
        for rating in as_ratings(record, where):
            is_good(rating, where)
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
