"""Toxicity of answers, by a classifier that states its own error; without a valid one nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path

from accord.data.records import Prompt, Record
from accord.sampler import Rollout
from accord.score import Score, Scorer
from accord.score.safety.toxicity import HubClassifier, load, scorer
from accord.suites import Maker, Suite
from accord.suites.rows import by, text_of


def toxicity(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """The suite without a classifier: every answer stays unmeasured, and says so. `with_classifier` makes one that measures."""
    return _suite(records, reward, unmeasured)


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


def unmeasured(rollouts: Sequence[Rollout]) -> list[Score]:
    """No number where there is no valid classifier."""
    return [Score(nan, why="unmeasured: no classifier, see accord.suites.toxicity.with_classifier") for _ in rollouts]


def _suite(records: Sequence[Record], reward: Scorer | None, judge: Scorer) -> Suite:
    scorers = {**({"reward": reward} if reward else {}), "toxic": judge}
    return Suite("toxicity", records, scorers, whole=by("category", ["toxic"]))


def _hub(classifier: str, label: str, threshold: float) -> Scorer:
    return HubClassifier(classifier, label, f"toxicity.{classifier}").scorer(threshold)
