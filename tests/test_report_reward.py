"""What the report shows of a reward stage: how well calibrated it is, what more labels would bring, and a suspicion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_fixture import save

from accord.report import write_report

RESULT = {
    "accuracy": {"value": 0.71, "stderr": 0.02, "n": 400},
    "ece": {"value": 0.0634, "n": 400},
    "reliability": [
        {"confidence": 0.52, "value": 0.5, "stderr": 0.05, "n": 90}, {"confidence": 0.9, "value": 1.0, "n": 310},
    ],
    "warning": "Suspect: accuracy 0.710 is above what there is.",
    "learning_curve": {
        "points": [{"labels": 200, "value": 0.65, "stderr": 0.02, "n": 400}, {"labels": 800, "value": 0.71, "n": 400}],
        "gain": {"value": 0.03, "stderr": 0.011, "n": 400},
    },
    "more_labels": "One point of accuracy more takes about 210 more labels.",
}  # fmt: skip


def page(folder: Path, result: dict[str, object]) -> str:
    """The report of a run with one reward stage."""
    (folder / "recipe.toml").write_text('name = "r"\n[stage.reward]\nkind = "reward"\n')
    save(folder / "reward/stage.json", {"kind": "reward", "status": "done", "seconds": 3.0, "result": result})
    return write_report(folder).read_text(encoding="utf-8")


def test_calibration_and_labels_are_drawn_and_said(tmp_path: Path) -> None:
    found = page(tmp_path, RESULT)
    assert re.findall("<figcaption>(.*?)</figcaption>", found) == [
        "Right as often as sure, on held-out pairs", "Accuracy against labels",
    ]  # fmt: skip
    assert "Expected calibration error 6.34 %." in found
    assert "3.0\u00a0±\u00a01.1 points for each doubling" in found
    assert '<p class="note">One point of accuracy more takes about 210 more labels.</p>' in found
    assert found.count("Suspect") == 1
    assert '<p class="warning">Suspect: accuracy 0.710 is above what there is.</p>' in found
    assert "<span>calibration error</span>" in found


@pytest.mark.parametrize("key", ["reliability", "learning_curve"])
def test_what_was_not_measured_is_not_drawn(tmp_path: Path, key: str) -> None:
    found = page(tmp_path, {name: value for name, value in RESULT.items() if name != key})
    assert found.count("<figcaption>") == 1
