"""Look before leaping: read every input of a recipe, show a row of each source, rehearse each stage on a tiny batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from accord import demo, lora
from accord.console import say
from accord.data import chat, judged, prepare
from accord.data.dropped import Dropped
from accord.data.records import Example, Prompt, Record, Text, as_example, as_pair, as_prompt, conversation
from accord.data.sources import check, read_all
from accord.data.tokenizer import load_tokenizer
from accord.errors import DataError, ModelError, RecipeError
from accord.functions import is_reference, load_function
from accord.model import load_config
from accord.objectives import check_params, resolve
from accord.objectives.preference import OBJECTIVES
from accord.objectives.reward import OBJECTIVES as REWARD_OBJECTIVES
from accord.recipe import AnyStage, Lora, Policy, Preference, Recipe, Reward, Source
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
        _check_adapter(recipe, f"stage.{name}", stage)
    tokenizers: dict[str, PreTrainedTokenizerBase] = {}
    found: list[Seen] = []
    read: dict[str, tuple[list[Record], Dropped]] = {}
    for name, stage in recipe.stage.items():
        root = root_model(recipe, stage)
        for key, model in [*models(stage), *([("model", root)] if root else [])]:
            if model not in tokenizers:
                tokenizers[model] = load_tokenizer(model_path(model), f"stage.{name}.{key}")
                load_config(model_path(model), f"stage.{name}.{key}")
        for key, source in sources(stage):
            identity = source.model_dump_json()
            if identity not in read:
                dropped = Dropped()
                read[identity] = (read_all([source], dropped, f"stage.{name}.{key}"), dropped)
            records, dropped = read[identity]
            asked = stage.kind in {"policy", "evaluate"} and key != "mix.data"
            first = as_prompt(records[0]) if asked else records[0]
            seen = Seen(f"stage.{name}.{key}", dict(Counter(type(r).__name__ for r in records)), dropped, first,
                        tokenizers.get(root) if root else None)  # fmt: skip
            _check_rows(stage, records, seen)
            found.append(seen)
        held = getattr(stage, "eval_data", None)
        if isinstance(held, float):  # leaves something on both sides, or raises
            every = [record for source in stage.data for record in read[source.model_dump_json()][0]]
            prepare.split(every, held, f"stage.{name}")
    for leak in leaks(recipe, {identity: records for identity, (records, _) in read.items()}):
        say(leak)
    return found


def leaks(recipe: Recipe, records: dict[str, list[Record]]) -> list[str]:
    """What to say of held-out and evaluated prompts that are in training data too; `records` by source."""

    def prompts(stage: AnyStage, *keys: str) -> set[str]:
        return {
            "\0".join(turn["content"].strip().lower() for turn in conversation(record))
            for key, source in sources(stage)
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
    for key, source in sources(stage):
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


def _check_adapter(recipe: Recipe, where: str, stage: AnyStage) -> None:
    """An adapter that comes in has the form of the one that the stage trains."""
    train, model = getattr(stage, "lora", None), getattr(stage, "model", None)
    if not isinstance(train, Lora) or not model:
        return
    if model.startswith("@"):
        before = getattr(recipe.stage[model[1:]], "lora", None)
        fits = before is None or (before.r, before.scale, before.targets) == (train.r, train.scale, train.targets)
        form = f"of stage '{model[1:]}'"
    else:
        adapter = lora.find(model_path(model), f"{where}.model")
        fits = adapter is None or adapter.fits(train)
        form = f"in {model}"
    if not fits:
        raise RecipeError(f"{where}.lora", f"the adapter {form}, which goes on learning here, has another form",
                          "use its r, alpha and targets, or merge it first: accord export MODEL --merge")  # fmt: skip


def _check_rows(stage: AnyStage, records: list[Record], seen: Seen) -> None:
    """The records are of the kind that the stage reads, and the first ones render under its chat template."""
    mixed, shown = seen.where.endswith(".mix.data"), seen.where.endswith(".normalise.data")
    for record in records:
        if mixed and isinstance(record, Text):
            continue
        if mixed or shown or stage.kind == "sft":
            as_example(record, seen.where)
        elif isinstance(stage, Reward):
            judged.check(record, stage.objective, seen.where, margin=stage.params.get("margin") is True)
        elif stage.kind == "preference":
            as_pair(record, seen.where)
        elif (stage.kind == "pretrain") != isinstance(record, Text):
            wanted = "plain text" if stage.kind == "pretrain" else "prompts"
            raise DataError(seen.where, f"a {type(record).__name__} is not what the stage reads", f"give {wanted}")
    if seen.tokenizer is not None and not isinstance(records[0], Text):
        try:
            chat.rows(seen.tokenizer, [_shown(record) for record in records[:8]])
        except ModelError as error:
            raise ModelError(seen.where, *(": ".join(map(str, error.args[:2])), *error.args[2:])) from None


def _shown(record: Record) -> Example:
    """A record as a conversation with an answer."""
    if isinstance(record, Prompt):
        return Example(messages=[*record.prompt, {"role": "assistant", "content": "…"}], train="last")
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


def sources(stage: AnyStage) -> list[tuple[str, Source]]:
    """The data sources of a stage, with their keys."""
    found = [("data", source) for source in stage.data]
    if isinstance(stage, Policy) and stage.mix:
        found += [("mix.data", source) for source in stage.mix.data]
    if isinstance(stage, Reward) and stage.normalise.data:
        found += [("normalise.data", source) for source in stage.normalise.data]
    held = getattr(stage, "eval_data", None)
    return found + ([("eval_data", source) for source in held] if isinstance(held, list) else [])


def functions(stage: AnyStage) -> list[tuple[str, str]]:
    """The functions by reference that a stage calls, with their keys (data functions are sources)."""
    named = [("objective", getattr(stage, "objective", ""))]
    named += [(f"suites.{name}", name) for name in getattr(stage, "suites", [])]
    for key in ("rewards", "eval_rewards"):
        named += [(f"{key}.{name}", name) for name in getattr(stage, key, {})]
    return [(key, name) for key, name in named if is_reference(name)]


def models(stage: AnyStage) -> list[tuple[str, str]]:
    """The models from outside the run that a stage reads, with their keys."""
    named = [("model", getattr(stage, "model", None)), ("reference", getattr(stage, "reference", None))]
    named += [(f"models.{name}", path) for name, path in getattr(stage, "models", {}).items()]
    named += [("normalise.policy", stage.normalise.policy)] if isinstance(stage, Reward) else []
    for key in ("rewards", "eval_rewards"):
        named += [(f"{key}.{name}", name) for name in getattr(stage, key, {})]
    return [(key, name) for key, name in named if name and not name.startswith("@") and not is_reference(name)]


def root_model(recipe: Recipe, stage: AnyStage) -> str | None:
    """The model from outside that a stage's model grew from; None where this recipe makes it from scratch."""
    model = getattr(stage, "model", None) or next(iter(getattr(stage, "models", {}).values()), None)
    while model and model.startswith("@"):
        model = getattr(recipe.stage[model[1:]], "model", None)
    return model


def model_path(model: str) -> Path | str:
    """The folder of an embedded model or of a path; a hub id stays as it is."""
    if model.startswith("accord:"):
        return demo.model(model)
    return Path(model) if Path(model).is_dir() else model
