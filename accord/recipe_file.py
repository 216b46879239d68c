"""Recipe files: TOML and `key=value` overrides to a checked Recipe, and back; mistakes in the words of the file."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import cast

import tomli_w
from pydantic import BaseModel, JsonValue, ValidationError

from accord.errors import RecipeError
from accord.recipe import KINDS, PARAMS, Evaluate, Policy, PpoParams, Recipe, Reward, Source, Stage, Table, unknown
from accord.recipe.evaluate import is_server, suite_of


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, apply `key=value` overrides and check everything that can be checked without loading anything.

    Paths in the file are relative to the file, paths in overrides to the working directory; both come out absolute.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), f"is not UTF-8 text (byte {error.start})", "convert it to UTF-8") from None
    except OSError as error:
        raise RecipeError(str(path), error.strerror or "cannot be read", "give the path of a recipe (.toml)") from None
    try:
        table = cast(Table, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), f"is not TOML: {error}", "mend that line") from None
    if "stage" in table:
        table["stage"] = anchor(table["stage"], path.parent.resolve())
    for override in overrides or []:
        _apply(table, override)
    return parse(table)


def parse(table: Table) -> Recipe:
    """Check a recipe given as nested dictionaries."""
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise _explain(error, table) from None
    _check_references(recipe)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as TOML with every default written out; unset options (`None`) are left out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def anchor(value: JsonValue, folder: Path) -> JsonValue:
    """Make path-like strings absolute: those that exist under `folder`, or that begin like a path."""
    if isinstance(value, dict):
        return {
            _anchored(key, folder): [_with_data(suite, folder) for suite in item]
            if key == "suites" and isinstance(item, list)
            else anchor(item, folder)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [anchor(item, folder) for item in value]
    return _anchored(value, folder) if isinstance(value, str) else value


def _with_data(suite: JsonValue, folder: Path) -> JsonValue:
    """A suite with its data, `ifeval=rows.jsonl`, of which both may be paths."""
    if not isinstance(suite, str):
        return suite
    name, data = suite_of(suite)
    return _anchored(name, folder) + (f"={_anchored(data, folder)}" if data else "")


def _anchored(text: str, folder: Path) -> str:
    if not text or text.startswith("@") or is_server(text):
        return text
    path, colon, name = text.partition(":") if ".py:" in text else (text, "", "")
    like_a_path = colon or text.startswith(("./", "../", "/", "~")) or ("/" in text and (folder / path).exists())
    like_a_path = like_a_path or Path(path).suffix in {".jsonl", ".json", ".csv", ".parquet", ".txt", ".gz"}
    return str((folder / Path(path).expanduser()).resolve()) + colon + name if like_a_path else text


def _apply(table: Table, override: str) -> None:
    """Set one `a.b.c=value`; the value is TOML, or a bare string when it is not."""
    key, equals, text = override.partition("=")
    parts = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^."]+)', key.strip())]
    if not equals or not parts or ".".join(parts) != key.strip().replace('"', ""):
        raise RecipeError(override, "is not an override", "write key=value, as in stage.ppo.optim.lr=3e-6")
    try:
        value = cast(JsonValue, tomllib.loads(f"value = {text}")["value"])
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = [_anchored(part, Path.cwd()) if ".py:" in part else part for part in parts]
    for parent in parents:
        table = cast(Table, table.setdefault(parent, {}))
        if not isinstance(table, dict):
            fix = "give it whole, as in stage.sft.data={ source = 'rows.jsonl', limit = 10 }"
            raise RecipeError(key, f"'{parent}' is a value, not a table", fix)
    table[last] = (
        cast(Table, anchor({"suites": value}, Path.cwd()))["suites"] if last == "suites" else anchor(value, Path.cwd())
    )


def _explain(error: ValidationError, table: Table) -> RecipeError:
    """The first mistake, in the words of the recipe rather than of pydantic."""
    # An unknown key is most often the cause of the other mistakes (a misspelled key is also a missing one).
    mistake = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    if mistake["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        where = ".".join(map(str, mistake["loc"]))
        given = cast(dict[str, JsonValue], mistake["input"]).get("kind", "")
        return RecipeError(f"{where}.kind", *unknown("kind", str(given), list(KINDS)))
    at, section = _locate(tuple(part for part in mistake["loc"] if part != "[key]"), table)
    if mistake["type"] == "extra_forbidden":
        known = list(section.model_fields) if section else []
        return RecipeError(at, *unknown("key", str(mistake["loc"][-1]), known))
    if mistake["type"] == "missing":
        return RecipeError(at, "is missing", "add it to the recipe")
    said = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] in {"dict_type", "model_type", "model_attributes_type"}:
        said = "this must be a table, { key = value }"
    if mistake["type"] in {"too_short", "string_too_short"}:
        said = "this must not be empty"
    given = mistake["input"]
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return RecipeError(at, said[0].lower() + said[1:] + shown)


def _locate(loc: tuple[int | str, ...], table: Table) -> tuple[str, type[BaseModel] | None]:
    """The dotted key of a pydantic location without the tags of unions, and the section that holds its last part."""
    section: type[BaseModel] | None = Recipe
    names: list[str] = []
    for depth, part in enumerate(loc):
        if depth == 2 and loc[0] == "stage" and part in KINDS:
            section = KINDS[str(part)]
            continue
        if part in {"fraction", "sources"} and names[-1] == "eval_data":
            continue
        names.append(str(part))
        if depth == len(loc) - 1:
            break
        field = section.model_fields.get(str(part)) if section else None
        section = _section_of(field.annotation) if field else section
        section = _params(loc, table) if part == "params" else section
    return ".".join(names), section


def _params(loc: tuple[int | str, ...], table: Table) -> type[BaseModel]:
    """The section that the params of a stage's objective are."""
    stage = cast("dict[str, Table]", table["stage"])[str(loc[1])]
    known = PARAMS[str(stage["kind"])]
    return known.get(str(stage.get("objective")), next(iter(known.values())))


def _section_of(annotation: object) -> type[BaseModel] | None:
    """The section inside an annotation such as `Source | None` or `list[Source]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_of(part) for part in typing.get_args(annotation))
    return next((section for section in found if section), None)


# ----------------------------------------------------------------------------------------------------------- references


def references(stage: Stage) -> list[tuple[str, str]]:
    """The earlier stages that a stage reads, as (key, name)."""
    found: list[tuple[str, str]] = []
    for key in ("model", "reference"):
        value = getattr(stage, key, None)
        found += [(key, value)] if value else []
    if isinstance(stage, Policy) and isinstance(stage.params, PpoParams):
        found.append(("params.critic", stage.params.critic))
    if isinstance(stage, Reward) and stage.normalise.on == "samples":
        found.append(("normalise.policy", stage.normalise.policy or stage.model))
    if isinstance(stage, Evaluate):
        found += [(f"models.{name}", model) for name, model in stage.models.items()]
        found += [(f"curves.{name}", policy) for name, policy in stage.curves.items()]
        found.append(("judge", stage.judge))
    for key in ("rewards", "eval_rewards"):
        found += [(f"{key}.{name}", name) for name in getattr(stage, key, {})]
    found += [(key, source.source) for key, source in sources(stage)]
    return [(key, value[1:]) for key, value in found if value.startswith("@")]


def sources(stage: Stage) -> list[tuple[str, Source]]:
    """The data sources of a stage, with their keys."""
    found = [("data", source) for source in getattr(stage, "data", [])]
    if isinstance(stage, Policy) and stage.mix:
        found += [("mix.data", source) for source in stage.mix.data]
    if isinstance(stage, Reward) and stage.normalise.data:
        found += [("normalise.data", source) for source in stage.normalise.data]
    if isinstance(stage, Evaluate):
        found += stage.own + [("remember", source) for source in stage.remember or []]
    held = getattr(stage, "eval_data", None)
    return found + ([("eval_data", source) for source in held] if isinstance(held, list) else [])


def _check_references(recipe: Recipe) -> None:
    """Every `@name` is an earlier stage that makes a model of the right kind."""
    earlier: list[str] = []
    for name, stage in recipe.stage.items():
        for key, target in references(stage):
            where = f"stage.{name}.{key}"
            if target in recipe.stage and target not in earlier:
                raise RecipeError(where, f"'@{target}' is not made before this stage", "move it up in the file")
            if target not in earlier:
                raise RecipeError(where, *unknown("stage", target, earlier))
            _check_kind(where, target, key, recipe.stage[target].kind, stage.kind)
            other = recipe.stage[target]
            if key.startswith("curves.") and not (isinstance(other, Policy) and other.checkpoints):
                raise RecipeError(where, f"'@{target}' keeps no checkpoints",
                                  "give a policy stage with checkpoints = true")  # fmt: skip
        earlier.append(name)


def _check_kind(where: str, target: str, key: str, kind: str, user: str) -> None:
    if key in {"data", "eval_data", "mix.data", "normalise.data", "remember"} or key.startswith("suites."):
        if kind != "select":
            raise RecipeError(
                where, f"'@{target}' is a stage of kind '{kind}' and leaves no records", "give a select stage"
            )
        return
    scores = "rewards." in key or key == "params.critic"
    if kind in {"evaluate", "select"} or (scores and key != "params.critic" and kind != "reward"):
        wanted = "a reward stage" if scores else "a stage that makes a model"
        raise RecipeError(where, f"'@{target}' is a stage of kind '{kind}'", f"give {wanted}")
    if key != "judge" and not scores and kind == "reward" and (user != "reward" or key == "normalise.policy"):
        raise RecipeError(where, f"'@{target}' is a reward model and cannot answer", "give a stage that makes a policy")
