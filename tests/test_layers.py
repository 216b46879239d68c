"""The house stands: imports point down only, and the seams keep their secrets."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "accord"

# From the top down; a module may import its own layer and those below. `None` marks names that belong to no layer.
LAYERS = [
    {"cli", "__main__"},
    {"report", "plan", "card"},
    {"stages"},
    {"fit"},
    {"suites", "demo", "score", "compare", "feedback", "subjects"},
    {"engine", "machine", "health", "sampler"},
    {"objectives"},
    {"outputs"},
    {"model", "lora", "attention", "last_layer", "logits", "norm"},
    {"data"},
    {"run", "console", "track", "estimate", "functions", "processes", "pitfalls", "endpoint"},
    {"recipe_file", "recipe", "errors"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
LIGHT = (
    "errors",
    "recipe",
    "recipe_file",
    "run",
    "console",
    "track",
    "estimate",
    "functions",
    "processes",
    "pitfalls",
    "report",
    "card",
    "cli",
)
SEAMS = {
    "accelerate": {"engine"},
    "deepspeed": {"engine"},
    "torch.distributed": {"engine"},
    "sqlalchemy": set(),
    "vllm": set(),
}


def place(path: Path) -> str:
    """The part of the house that a file belongs to."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("stages", "fit"):
        return "fit"
    return parts[0]


def imports(path: Path) -> list[str]:
    """Every module that a file imports, also inside functions."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    ours = place(path)
    assert ours in RANK, f"{path} has no place in the house"
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "accord" or len(parts) < 2 or parts[1] not in RANK:
            continue
        theirs = "fit" if parts[1:3] == ["stages", "fit"] else parts[1]
        assert theirs == ours or RANK[theirs] >= RANK[ours], (
            f"{path.name} ({ours}) imports {module} ({theirs}) above it"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_seams(path: Path) -> None:
    for module in imports(path):
        for secret, allowed in SEAMS.items():
            if module == secret or module.startswith(secret + "."):
                assert place(path) in allowed, f"{path.name} imports {module}"


def test_no_training_stage_knows_a_gold_judge() -> None:
    for path in FILES:
        if place(path) in {"stages", "fit", "engine", "objectives"}:
            assert not [m for m in imports(path) if "gold" in m or m.startswith("accord.suites.demo")]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_answer_without_torch(module: str) -> None:
    code = f"import sys, accord.{module}; sys.exit(bool({{'torch', 'transformers', 'datasets'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_spin_for_a_moment(given: dict[str, str], expected: str) -> None:
    theirs = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in theirs} | given
    code = "import accord, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == expected
