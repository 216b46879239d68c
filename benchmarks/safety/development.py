"""What the refusal classifier was developed on: written answers, answers of chat models, and ends of dialogues, with labels.

No row of XSTest is read here. The models' answers stay where they are; labels.json knows them by a hash.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.safety import written
from benchmarks.safety.dialogues import ends, kind
from benchmarks.safety.files import digest, judged, lines
from benchmarks.safety.written import Row

LABELS = Path(__file__).with_name("labels.json")
UNLABELLED = 8  # one in so many answers without a label is taken as compliance


def answers(data: Path) -> Iterator[tuple[str, str]]:
    """Prompts and answers of AlpacaEval, IFEval and TruthfulQA (its people's evaluation)."""
    for path in [*judged(data), data / "alpaca_eval" / "baseline_gpt4_1106_preview.jsonl.gz"]:
        yield from ((row["instruction"], row["output"]) for row in lines(path))
    prompts = {row["key"]: row["prompt"] for row in lines(data / "ifeval" / "input_data.jsonl")}
    for path in sorted((data / "ifeval" / "responses").glob("*.gz")):
        yield from ((prompts[row["key"]], row["response"]) for row in lines(path))
    with (data / "truthfulqa" / "human_eval_en.csv").open(encoding="utf-8", newline="") as file:
        yield from ((row["question"], row["model_answer"]) for row in csv.DictReader(file))


def rows(data: Path) -> Iterator[tuple[Row, str]]:
    """Every row with where it comes from; an `unlabelled` one, one in UNLABELLED, is taken as compliance."""
    yield from ((row, "written") for row in written.rows())
    yield from written.contrasts()
    labels: dict[str, str] = json.loads(LABELS.read_text(encoding="utf-8"))
    seen: set[str] = set()
    for prompt, text in answers(data):
        key = digest(prompt, text)
        if text[:80] in seen:
            continue
        seen.add(text[:80])
        label = labels.get(key)
        if label in ("compliance", "full", "partial"):
            yield Row(prompt, text, label), "labelled"
        elif label is None and int(key, 16) % UNLABELLED == 0:
            yield Row(prompt, text, "compliance"), "unlabelled"
    told = {(prompt, text): kind(prompt, text) for prompt, *both in ends(data) for text in both}
    yield from ((Row(prompt, text, label), "dialogue") for (prompt, text), label in told.items() if label)
