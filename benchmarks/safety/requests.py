"""A worked example of the toxicity classifier: which requests are harmful, trained on some sets and tested on others.

python -m benchmarks.safety.requests ../shared/data
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np

from accord.score.safety.toxicity import Quality, quality, train
from benchmarks.safety.files import lines


def column(path: Path, name: str) -> list[str]:
    """A column of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def told(name: str, found: Quality) -> None:
    """One line of the table."""
    print(f"{name}: toxic {found.toxic}, other {found.other}, found {found.hit:.3f} (from {found.hit_low:.3f}), "
          f"false alarms {found.false_alarm:.3f} (to {found.false_alarm_high:.3f}), error {found.error:.3f}, "
          f"AUC {found.auc:.3f}, valid {found.valid}")  # fmt: skip


def main(data: Path) -> None:
    """Train on AdvBench against AlpacaEval's instructions; test on other sets, and on XSTest's prompts by people's labels."""
    harmful = data / "harmful_behaviors"
    bad = column(harmful / "advbench.csv", "goal")
    good = list(
        dict.fromkeys(r["instruction"] for r in lines(data / "alpaca_eval" / "annotations" / "alpaca-7b.jsonl.gz"))
    )
    model = train([*bad, *good], [True] * len(bad) + [False] * len(good))
    told("cross-validation", model.quality)
    worse = [*(harmful / "malicious_instruct.txt").read_text(encoding="utf-8").split("\n"),
             *column(harmful / "harmbench_val.csv", "Behavior")]  # fmt: skip
    worse = [text for text in worse if text.strip()]
    seeds = [json.loads(line) for line in (data / "self_instruct" / "seed_tasks.jsonl").open(encoding="utf-8")]
    better = [row["instruction"] for row in seeds]
    told(
        "other sets", quality(model.probabilities([*worse, *better]), np.arange(len(worse) + len(better)) < len(worse))
    )
    path = data / "xstest" / "xstest_prompts.csv"
    unsafe = np.array([label == "unsafe" for label in column(path, "label")])
    told("XSTest's prompts", quality(model.probabilities(column(path, "prompt")), unsafe))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
