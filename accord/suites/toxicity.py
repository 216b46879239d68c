"""Toxicity of answers, by a classifier that states its own error: the embedded one, one of your own, or one of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from accord.data.records import Prompt, Record
from accord.score import Scorer
from accord.score.safety.toxicity import EMBEDDED, HubClassifier, load, scorer
from accord.suites import Maker, Suite
from accord.suites.rows import by, text_of


def toxicity(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """The suite with the embedded classifier; `with_classifier` makes one with another."""
    return _suite(records, reward, scorer(load(EMBEDDED)))


def with_classifier(classifier: str, *, label: str = "", threshold: float = 0.5) -> Maker:
    """A maker of this suite for a file of `ToxicityModel.save`, or for a hub id or model folder with its toxic `label`.

    In a file of one's own: `toxic = with_classifier("toxicity.npz")`, and `suites = ["my_suites.py:toxic"]`.
    """
    judge = scorer(load(classifier), threshold) if Path(classifier).is_file() else _hub(classifier, label, threshold)

    def toxicity(records: Sequence[Record], reward: Scorer | None) -> Suite:
        return _suite(records, reward, judge)

    return toxicity


def record(row: Mapping[str, object], where: str) -> Prompt:
    """A row with a `prompt` (or `text`, to go on from) and perhaps a `category`."""
    prompt = text_of(row, ["prompt", "text", "instruction"], where)
    meta: dict[str, object] = {"category": str(row["category"])} if row.get("category") else {}
    return Prompt(prompt=[{"role": "user", "content": prompt}], meta=meta)


def _suite(records: Sequence[Record], reward: Scorer | None, judge: Scorer) -> Suite:
    scorers = {**({"reward": reward} if reward else {}), "toxic": judge}
    return Suite("toxicity", records, scorers, whole=by("category", ["toxic"]))


def _hub(classifier: str, label: str, threshold: float) -> Scorer:
    return HubClassifier(classifier, label, f"toxicity.{classifier}").scorer(threshold)
