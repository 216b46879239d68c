"""The documents say what is there: modules, floors of the house, links, recipes."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_layers import LAYERS

ROOT = Path(__file__).parents[1]
PAGES = [path for folder in (".", "docs", "docs/methods", "recipes") for path in sorted((ROOT / folder).glob("*.md"))]
MODULES = sorted(
    path.name + "/" * path.is_dir()
    for path in (ROOT / "accord").iterdir()
    if path.name not in ("__init__.py", "__main__.py") and (path.suffix == ".py" or (path / "__init__.py").exists())
)


def floors() -> dict[str, float]:
    """How far down the picture of the house each text stands."""
    texts = ElementTree.parse(ROOT / "docs/house.svg").iterfind("{http://www.w3.org/2000/svg}text")
    return {text.text or "": float(text.attrib["y"]) for text in texts}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_in_the_table_and_in_the_picture(module: str) -> None:
    lines = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").splitlines()
    paths = [line.split("|")[1] for line in lines if line.startswith("| `")]
    assert any(f"`{module}" in path for path in paths), f"{module} is not in the table of docs/architecture.md"
    assert module in floors(), f"{module} is not in docs/house.svg"


def test_the_picture_has_the_floors_that_the_code_has() -> None:
    height = {Path(name).stem: y for name, y in floors().items() if name.endswith((".py", "/"))}
    layers = [[height[name] for name in layer if not name.startswith("__")] for layer in LAYERS]
    assert all(max(upper) < min(lower) for upper, lower in pairwise(layers))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)", page.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if not re.match(r"\w+:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_recipes_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"\brecipes/[\w./-]+\.toml", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
