"""Fills the generated blocks of these pages from the code: `python docs/methods/generate.py` (`make docs`).

A block stands between `<!-- WHAT: NAME -->` and `<!-- end -->`:

    options: ppo                        every option of an objective, a kind of stage, or a section of accord.recipe
    options: ppo beyond PolicyParams    those that are new there, or have another default or meaning
    source: accord.objectives.policy:ppo _clipped    functions as they are
    presets: policy                     what the presets of the policy stage set
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from accord import recipe
from accord.objectives import Objective
from accord.recipe import KINDS, PARAMS, Policy, Section
from accord.recipe.policy_params import PRESETS

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- (options|source|presets): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
OBJECTIVES = {name: section for table in PARAMS.values() for name, section in table.items()}


def filled(page: str) -> str:
    """A page with its generated blocks as the code has them now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{MAKERS[found[2]](found[3])}\n\n{found[4]}", page)


# ------------------------------------------------------------------------------------------------------------- options


def options(asked: str) -> str:
    """A table of options: name, default, meaning."""
    name, _, base = asked.partition(" beyond ")
    known = dict(rows(section_of(base))) if base else {}
    own = [(option, row) for option, row in rows(section_of(name)) if known.get(option) != row]
    return table(["option", "default", "meaning"], [[f"`{option}`", *row] for option, row in own])


def section_of(name: str) -> type[Section]:
    """The section of an objective's params, of a kind of stage, or of that name."""
    found = {**OBJECTIVES, **KINDS}.get(name) or vars(recipe)[name]
    assert issubclass(found, Section)
    return found


def rows(section: type[Section], prefix: str = "", given: Section | None = None) -> Iterator[tuple[str, list[str]]]:
    """Every option with its default and meaning; tables inside (`optim`) by their own options, but for an objective's."""
    for name, field in section.model_fields.items():
        default = getattr(given, name) if given else field.get_default(call_default_factory=True)
        if isinstance(default, Section) and type(default) not in OBJECTIVES.values():
            yield from rows(type(default), f"{prefix}{name}.", default)
        elif name != "kind":
            yield prefix + name, [written(field, default), meaning(section, name)]


def written(field: FieldInfo, default: object) -> str:
    """A default as a recipe would have it."""
    if field.is_required():
        return "required"
    if default is None:
        return "unset"
    return f"`{json.dumps(default if not isinstance(default, Section) else {})}`"


def meaning(section: type[Section], name: str) -> str:
    """The docstring of an option, or that of the option it overrides, and what it may be."""
    fields = [
        base.model_fields[name] for base in section.__mro__ if issubclass(base, Section) and name in base.model_fields
    ]
    said = " ".join(next((field.description for field in fields if field.description), "").split())
    allowed = choices(fields[0].annotation)
    if len(allowed) > 1:
        said += " One of " + ", ".join(f'`"{value}"`' for value in allowed) + "."
    return said.strip()


def choices(annotation: object) -> list[str]:
    """The strings that an option may be, where these are all."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [value for part in typing.get_args(annotation) for value in choices(part)]


def presets(_: str) -> str:
    """What presets set, beside accord's defaults; an empty cell has the default."""
    defaults = dict(rows(Policy)) | {f"params.{name}": row for name, row in rows(OBJECTIVES["ppo"])}
    names = [name for name, tables in PRESETS.items() if tables]
    given = {
        name: {f"{key}.{option}": value for key, part in PRESETS[name].items() for option, value in part.items()}
        for name in names
    }
    lines: list[list[str]] = []
    for option in defaults:
        if any(option in values for values in given.values()):
            cells = [f"`{json.dumps(values[option])}`" if option in values else "" for values in given.values()]
            default, detail = defaults[option]
            lines.append([detail, f"`{option}`", *cells, default])
    return table(["detail", "option", *names, "accord's default"], lines)


def table(head: list[str], lines: list[list[str]]) -> str:
    """A table as Markdown has it."""
    every = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)


# -------------------------------------------------------------------------------------------------------------- source


def source(asked: str) -> str:
    """Functions of one module as code, under a link to its file."""
    module, _, names = asked.partition(":")
    home = importlib.import_module(module)
    texts = [inspect.getsource(bare(getattr(home, name))).rstrip() for name in names.split()]
    path = module.replace(".", "/") + ".py"
    return f"[`{path}`](../../{path})\n\n```python\n" + "\n\n\n".join(texts) + "\n```"


def bare(function: Objective | Callable[..., object]) -> Callable[..., object]:
    """The function that an objective is."""
    return function.function if isinstance(function, Objective) else function


MAKERS: dict[str, Callable[[str], str]] = {"options": options, "source": source, "presets": presets}


def main() -> None:
    for path in sorted(HERE.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.name} written")


if __name__ == "__main__":
    main()
