"""Look before leaping: read every input of a recipe, show a row of each source, rehearse each stage on a tiny batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from accord.console import say
from accord.data import chat
from accord.data.loaded import both
from accord.data.records import (
    Example,
    Prompt,
    Rating,
    Record,
    Text,
    as_example,
    as_prompt,
)
from accord.data.sources import check
from accord.errors import DataError, ModelError, RecipeError
from accord.functions import is_reference, load_function
from accord.objectives import check_params, resolve
from accord.objectives.preference import OBJECTIVES
from accord.objectives.reward import OBJECTIVES as REWARD_OBJECTIVES
from accord.recipe import AnyStage, Evaluate, Policy, Preference, Recipe, Reward, Source
from accord.recipe_file import sources
from accord.stages.check_data import Contents, Wanted, read, wanted
from accord.stages.check_evaluation import check_evaluation, read_own
from accord.stages.check_models import check_models, models, origin
from accord.stages.policy import open_objective


@dataclass(frozen=True)
class Seen:
    """One data source of a stage, read to its end."""

    where: str
    key: str
    stage: AnyStage
    contents: Contents
    tokenizer: PreTrainedTokenizerBase | None  # None where a stage of this recipe has yet to make it

    @property
    def first(self) -> Record:
        """The first record, as the stage takes it."""
        asked = self.stage.kind in {"policy", "select", "evaluate"} and self.key not in {"mix.data", "remember"}
        return as_prompt(self.contents.head[0]) if asked else self.contents.head[0]


def inspect(recipe: Recipe) -> list[Seen]:
    """Everything that a recipe names is there and fits its stage, or an error: files, rows, functions, tokenizers."""
    for name, stage in recipe.stage.items():
        _check_names(f"stage.{name}", stage)
    tokenizers = check_models(recipe)
    named = [
        (f"stage.{name}.{key}", key, stage, source)
        for name, stage in recipe.stage.items()
        for key, source in read_now(stage)
    ]
    asking: dict[str, list[tuple[str, Wanted]]] = {}  # a source that several stages name is read once
    for where, key, stage, source in named:
        asking.setdefault(source.model_dump_json(), []).append((where, wanted(stage, key)))
    contents: dict[str, Contents] = {}
    found: list[Seen] = []
    for where, key, stage, source in named:
        of, root = source.model_dump_json(), origin(recipe, stage)
        if isinstance(stage, Evaluate) and key.startswith("suites."):
            of = f"{key} {of}"  # its rows may have a form of their own
            contents[of] = read_own(stage, key.removeprefix("suites."), source, where)
        elif of not in contents:
            contents[of] = read(source, asking[of])
        found.append(Seen(where, key, stage, contents[of], tokenizers.get(root) if isinstance(root, str) else None))
        _check_template(found[-1])
    for name, stage in recipe.stage.items():
        held = getattr(stage, "eval_data", None)
        of_stage = [seen.contents for seen in found if seen.stage is stage and seen.key == "data"]
        if isinstance(held, float) and len(of_stage) == len(stage.data):
            aside = sum(of.aside(held) for of in of_stage)
            both(held, f"stage.{name}", train=sum(of.kinds.total() for of in of_stage) - aside, aside=aside)
    for leak in leaks(recipe, found):
        say(leak)
    return found


def leaks(recipe: Recipe, found: Sequence[Seen]) -> list[str]:
    """What to say of held-out and evaluated prompts that are in training data too."""

    def prompts(stage: AnyStage, *keys: str) -> set[int]:
        return set().union(*(seen.contents.prompts for seen in found if seen.stage is stage and seen.key in keys))

    learnt = {
        name: prompts(stage, "data", "mix.data") for name, stage in recipe.stage.items() if stage.kind != "evaluate"
    }
    said: list[str] = []
    for name, stage in recipe.stage.items():
        keys = ["data", *(key for key, _ in stage.own)] if isinstance(stage, Evaluate) else ["eval_data"]
        key, held = keys[0], prompts(stage, *keys)
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
    if isinstance(stage, Evaluate):
        check_evaluation(stage, where)
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


def _check_template(seen: Seen) -> None:
    """The first records render under the chat template."""
    records = seen.contents.head
    if seen.tokenizer is not None and not isinstance(records[0], Text):
        try:
            chat.rows(seen.tokenizer, [_shown(record) for record in records])
        except ModelError as error:
            raise ModelError(seen.where, *(": ".join(map(str, error.args[:2])), *error.args[2:])) from None


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
    named += [(f"suites.{name}", name) for name, _ in stage.asked] if isinstance(stage, Evaluate) else []
    for key in ("rewards", "eval_rewards"):
        named += [(f"{key}.{name}", name) for name in getattr(stage, key, {})]
    return [(key, name) for key, name in named if is_reference(name)]
