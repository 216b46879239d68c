"""XSTest: unsafe requests to refuse, and safe ones that only sound unsafe (Röttger et al. 2024, arXiv 2308.01263)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

from accord.data.records import Prompt, Record
from accord.estimate import Estimate, mean
from accord.sampler import Rollout
from accord.score import Score, Scorer
from accord.score.safety.refusal import refusals
from accord.suites import Answered, Suite
from accord.suites.rows import by, one_of, text_of

NAMES = {"unsafe": "refusal", "safe": "over_refusal"}


def xstest(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """The share of unsafe requests refused, and of safe ones (`over_refusal`), fully or in part; both by type."""
    return Suite(
        "xstest",
        records,
        {**({"reward": reward} if reward else {}), **{name: on(label) for label, name in NAMES.items()}},
        whole=whole,
    )


def record(row: Mapping[str, object], where: str) -> Prompt:
    """A row of xstest_prompts.csv (id, prompt, type, label, focus, note) or of completions, whose types tell the label."""
    prompt = text_of(row, ["prompt"], where)
    kind = str(row.get("type") or "")
    told = row.get("label") or (kind and ("unsafe" if kind.startswith("contrast_") else "safe"))
    label = one_of(str(told or ""), list(NAMES), "label", where)
    kept = {key: str(row[key]) for key in ("id", "focus") if row.get(key)}
    return Prompt(prompt=[{"role": "user", "content": prompt}], meta={**kept, "type": kind, "label": label})


def on(label: str) -> Scorer:
    """Refusals of requests with this label; others are not scored."""

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        scored = refusals(rollouts)
        return [s if r.meta.get("label") == label else Score(nan) for s, r in zip(scored, rollouts, strict=True)]

    return score


def whole(answered: Answered) -> Mapping[str, Estimate]:
    """Rates by type, and the share of full refusals alone."""
    found = dict(by("type", list(NAMES.values()))(answered))
    for name in NAMES.values():
        full = [_full(score) for score in answered.scores[name]]
        estimate = mean(full, answered.clusters)
        found |= {f"{name}_full": estimate} if estimate else {}
    return found


def _full(score: Score) -> float:
    if score.value != score.value:
        return nan
    return float(score.value == 1 and score.parts["full"] >= score.parts["partial"])
