"""Detectors of what goes wrong in training, while it does and afterwards: each with evidence, threshold and advice.

A detector is a pure function `(Seen) -> Finding | None`; it says nothing where its inputs were not measured. The thresholds
were chosen on runs apart from those that tell how often a detector is right (docs/evaluation/pitfalls.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import JsonValue

from accord.pitfalls.collapse import forgetting, mode_collapse
from accord.pitfalls.distance import kl_high, kl_low
from accord.pitfalls.hacking import over_optimisation, reward_hacking
from accord.pitfalls.length import length_bias
from accord.pitfalls.preferences import falling_chosen, off_policy, overfitting
from accord.pitfalls.seen import Finding, Row, Seen
from accord.pitfalls.sycophancy import sycophancy
from accord.pitfalls.training import critic_failure, loss_spike, sampler_mismatch

__all__ = ["DETECTORS", "Detector", "Finding", "Seen", "Watch", "find"]

Detector: TypeAlias = Callable[[Seen], Finding | None]

# The most pressing first.
DETECTORS: tuple[Detector, ...] = (
    reward_hacking,
    over_optimisation,
    mode_collapse,
    forgetting,
    overfitting,
    length_bias,
    kl_high,
    kl_low,
    loss_spike,
    critic_failure,
    sampler_mismatch,
    sycophancy,
    falling_chosen,
    off_policy,
)


def find(seen: Seen) -> list[Finding]:
    """What all detectors find, alarms before hints."""
    found = [finding for detect in DETECTORS if (finding := detect(seen))]
    return sorted(found, key=lambda finding: finding.severity != "alarm")


@dataclass
class Watch:
    """Looks at a fit while it trains; every finding is told once."""

    kind: str
    settings: Mapping[str, JsonValue]
    rows: list[Row] = field(default_factory=list)  # of metrics.jsonl so far
    told: set[str] = field(default_factory=set)  # names of findings

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """What was logged at a step."""
        self.rows.append({"step": float(step), **numbers})

    def look(self, done: float, result: Mapping[str, JsonValue] | None = None) -> list[Finding]:
        """What is found now and was not told before, with the part of training that is `done`."""
        seen = Seen(self.kind, self.settings, self.rows, done, result or {})
        new = [finding for finding in find(seen) if finding.name not in self.told]
        self.told |= {finding.name for finding in new}
        return new
