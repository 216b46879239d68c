"""docs/methods is true: its generated blocks are the code's, every objective has a page, quotes are quotes, examples run."""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
import runpy
from pathlib import Path

import pytest
import torch
from test_cli import Accord, accord  # noqa: F401  (a fixture)
from test_contributing import follow

from accord import objectives
from accord.data.batch import Batch
from accord.objectives import Objective
from accord.objectives.preference import OBJECTIVES as FAMILY
from accord.outputs import Outputs
from accord.recipe import KINDS, PARAMS
from accord.run import read_rows

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "docs/methods"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(METHODS.glob("*.md"))}
SOURCES = re.compile(r"<!-- source: ([\w.]+):(.+?) -->")
PARTS = ["Formula", "Options", "What to expect", "When to use it, and what goes wrong", "Source", "Papers and tests"]
pages = pytest.mark.parametrize("page", TEXTS)


def built_in() -> dict[tuple[str, str], Objective]:
    """Every objective of the package, by module and name."""
    names = [f"accord.objectives.{module.name}" for module in pkgutil.iter_modules(objectives.__path__)]
    every = [value for name in names for value in vars(importlib.import_module(name)).values()]
    return {(each.function.__module__, each.name): each for each in every if isinstance(each, Objective)}


def page_of(module: str, name: str) -> str:
    """The page that shows the source of an objective."""
    found = [page for page, text in TEXTS.items() for home, names in SOURCES.findall(text)
             if home == module and name in names.split()]  # fmt: skip
    assert len(found) == 1, f"{module}:{name} needs one page in docs/methods that shows its source, has {len(found)}"
    return found[0]


def parts_of(page: str) -> dict[str, str]:
    """The parts of a page by their headings."""
    found = re.split(r"^## (.+)\n", TEXTS[page], flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


# --------------------------------------------------------------------------------------------------------------- pages


@pages
def test_blocks_are_as_the_code_has_them(page: str) -> None:
    filled = runpy.run_path(str(METHODS / "generate.py"))["filled"]
    assert filled(TEXTS[page]) == TEXTS[page], "run `make docs` (python docs/methods/generate.py)"


def test_a_change_of_the_code_is_a_change_of_the_page() -> None:
    filled = runpy.run_path(str(METHODS / "generate.py"))["filled"]
    stale = TEXTS["orpo.md"].replace("| `lam` | `0.1` |", "| `lam` | `0.2` |").replace("odds = mean", "odds = mode")
    assert stale != TEXTS["orpo.md"]
    assert filled(stale) == TEXTS["orpo.md"]


@pytest.mark.parametrize(("module", "name"), built_in())
def test_every_objective_has_a_page_with_all_its_parts(module: str, name: str) -> None:
    assert list(parts_of(page_of(module, name))) == PARTS


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in PARAMS.items() for name in table])
def test_every_option_of_an_objective_is_on_its_page(kind: str, name: str) -> None:
    text = parts_of(page_of(f"accord.objectives.{kind}", name))["Options"]
    assert [option for option in PARAMS[kind][name].model_fields if f"| `{option}` |" not in text] == []


@pages
def test_every_option_says_what_it_means(page: str) -> None:
    tables = re.findall(r"<!-- options: .+? -->\n(.*?)<!-- end -->", TEXTS[page], re.DOTALL)
    assert all(len(table.strip().splitlines()) > 2 for table in tables)
    assert [row for table in tables for row in table.splitlines() if row.endswith("|  |")] == []


def test_every_page_is_in_the_index() -> None:
    assert [page for page in TEXTS if page != "README.md" and f"]({page})" not in TEXTS["README.md"]] == []


# -------------------------------------------------------------------------------------------------------------- quotes


@pages
def test_headings_that_links_name_exist(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([\w-]*\.md|)#([\w-]+)\)", TEXTS[page]):
        headings = re.findall(r"^#+ (.+)$", TEXTS[target or page], re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
        assert anchor in slugs, f"{page} links to {target}#{anchor}"


@pages
def test_tests_that_are_named_exist(page: str) -> None:
    for name, file in re.findall(r"\[`(test_\w+)`\]\(\.\./\.\./(tests/\w+\.py)\)", TEXTS[page]):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{name} is not in {file}"


def quotes(page: str) -> str:
    """What a page says is to be expected, and the ways to go wrong that it gives a source for."""
    parts = parts_of(page)
    wrong = [item for item in parts.get(PARTS[3], "").split("\n- ") if "](../" in item]
    return re.sub(r"loss of 0\.6931|loss begins at [\d.]+", "", "\n".join([parts.get(PARTS[2], ""), *wrong]))


@pages
def test_numbers_are_those_of_the_files_that_are_linked_beside_them(page: str) -> None:
    """Decimal fractions; where a loss begins is computed below."""
    files = [METHODS / link for link in re.findall(r"\]\((\.\./[^)#]+)", quotes(page))]
    said = " ".join(path.read_text(encoding="utf-8") for path in files)
    numbers = re.findall(r"(?<![\w.])\d*\.\d+", re.sub(r"\]\([^)]+\)", "", quotes(page)))
    assert [number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", said)] == []


BEGINS = {
    page: float(found[1]) for page, text in TEXTS.items() if (found := re.search(r"loss begins at ([\d.]+\d)", text))
}


def test_losses_begin_where_the_pages_say() -> None:
    """Where policy and reference are one."""
    train = torch.tensor([[False, True, True]] * 4)
    logp = -torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) * train
    numbers = {"prob": 1.0, "weight": 1.0, "label": 1.0, "baseline": 0.0, "good_share": 0.5}
    columns = {"ref_logp": logp, **{name: torch.full((4,), value) for name, value in numbers.items()}}
    batch = Batch(torch.ones(4, 3).long(), torch.ones_like(train), train, torch.arange(4), columns)
    found: dict[str, float] = {}
    for name, objective in FAMILY.items():
        if "ref_logp" in objective.needs:
            terms, counts = objective(Outputs({"logp": logp}), batch).terms, batch.counts()
            found[f"{name}.md"] = sum(weight * float(value) / counts[unit] for value, unit, weight in terms.values())
    assert pytest.approx(found, abs=1e-4) == BEGINS


# ------------------------------------------------------------------------------------------------------------ examples


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("your-own")


@pytest.fixture
def here(home: Path, accord: Accord, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.chdir(home)
    follow(TEXTS["your-own.md"].partition("\n## ")[0], home, accord)
    return home


def begins(here: Path, stage: str) -> dict[str, object]:
    """The first line of a stage's metrics."""
    return dict(read_rows(here / f"runs/small/{stage}/metrics.jsonl")[0])


def test_every_stage_that_takes_an_objective_has_an_example() -> None:
    takes = {kind for kind, stage in KINDS.items() if "objective" in stage.model_fields}
    assert {heading.partition(":")[0] for heading in parts_of("your-own.md")} == takes | {"Into the package"}


def test_an_objective_on_pairs(here: Path, accord: Accord) -> None:  # noqa: F811
    follow(parts_of("your-own.md")["preference: on pairs"], here, accord)
    first = begins(here, "prefer")
    assert first["loss"] == pytest.approx(math.log(2))
    assert first["lost"] == 0
    lost = [row["lost"] for row in read_rows(here / "runs/small/prefer/metrics.jsonl")]
    assert any(isinstance(value, float) and value > 0 for value in lost)


def test_an_objective_on_rated_answers(here: Path, accord: Accord) -> None:  # noqa: F811
    # In bfloat16 the reference, computed in batches of another shape, rounds otherwise than the policy that it is.
    with (here / "small.toml").open("a") as recipe:
        recipe.write('\n[compute]\nprecision = "float32"\n')
    follow(parts_of("your-own.md")["preference: on rated answers"], here, accord)
    assert begins(here, "prefer")["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_an_objective_of_a_reward_model(here: Path, accord: Accord) -> None:  # noqa: F811
    follow(parts_of("your-own.md")["reward: on pairs"], here, accord)
    first = {name: value for name, value in begins(here, "judge").items() if isinstance(value, float)}
    assert first["eval/short"] == 1  # a new head tells no two answers that far apart
    assert first["eval/loss"] == pytest.approx(2 - first["eval/margin"], abs=1e-5)


def test_an_objective_of_a_policy(here: Path, accord: Accord) -> None:  # noqa: F811
    follow(parts_of("your-own.md")["policy"], here, accord)
    first = {name: value for name, value in begins(here, "improve").items() if isinstance(value, float)}
    parts = first["policy/loss"] + 0.5 * first["policy/moved"] + 0.1 * first["value/loss"]
    assert first["loss"] == pytest.approx(parts, abs=1e-6)
    assert first["policy/moved"] > 0  # four answers to an update: the second one is not on the policy that sampled
    assert first["value/loss"] > 0
