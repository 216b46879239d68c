"""What a detector reads, and what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Literal, TypeAlias

from pydantic import JsonValue

from accord.estimate import errors, sure

Row: TypeAlias = Mapping[str, float | None]  # of metrics.jsonl; None = was not finite
Severity: TypeAlias = Literal["alarm", "hint"]


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong. A `hint` is one whose detector has not shown to be right often enough for an `alarm`."""

    name: str
    severity: Severity
    evidence: str  # what was seen, with numbers
    threshold: str  # what would have been fine
    advice: str  # what to do, as the rest of "Next, ..."
    value: float  # the number that was compared with the threshold
    at_step: int | None = None  # None: measured after training

    @property
    def line(self) -> str:
        """On one line, for the terminal."""
        word = "looks like" if self.severity == "alarm" else "may be"
        return f"{word} {self.name}: {self.evidence}. Next: {self.advice}"

    def to_json(self) -> dict[str, JsonValue]:
        """As stage.json keeps it."""
        return {
            "name": self.name, "severity": self.severity, "evidence": self.evidence, "threshold": self.threshold,
            "advice": self.advice, "value": self.value, "at_step": self.at_step,
        }  # fmt: skip


@dataclass(frozen=True)
class Change:
    """How far a model lies from the baseline in one metric of a comparison; the error is that of the difference, paired
    where it can be."""

    suite: str
    sampling: str
    model: str
    baseline: str
    metric: str
    before: float
    after: float
    stderr: float | None

    @property
    def errors(self) -> float | None:
        """The difference in standard errors; None where these are not known."""
        return errors(self.after - self.before, self.stderr)

    @property
    def sure(self) -> int:
        """1 clearly up, -1 clearly down, 0 neither."""
        return sure(self.after - self.before, self.stderr)

    @property
    def place(self) -> tuple[str, str, str]:
        """What this is one of the metrics of."""
        return self.suite, self.sampling, self.model

    def __str__(self) -> str:
        error = f" ± {self.stderr:.2g}" if self.stderr else ""
        return f"{self.before:.3g} to {self.after:.3g} ({self.after - self.before:+.3g}{error})"


@dataclass(frozen=True)
class Bend:
    """Gold along growing optimisation of one policy, with the fitted peak (Gao et al. 2022)."""

    name: str
    points: Sequence[tuple[float, float, float]]  # KL in nats, gold, its standard error; in the order of KL
    peak: float | None  # KL at which the fit is highest
    inside: bool  # whether that is a KL that was reached


@dataclass(frozen=True)
class Both:
    """A model's answer beside the baseline's to one prompt: by how much its reward is higher, and by how much it is longer."""

    suite: str
    sampling: str
    model: str
    reward: float
    length: float


@dataclass(frozen=True)
class Seen:
    """What is known of a stage, while it trains or afterwards. What was not measured is empty."""

    kind: str
    settings: Mapping[str, JsonValue] = field(default_factory=dict)  # the stage's, every default written out
    rows: Sequence[Row] = ()  # of one fit, in order
    done: float = 1.0  # the part of training that is over
    result: Mapping[str, JsonValue] = field(default_factory=dict)  # of stage.json
    changes: Sequence[Change] = ()
    bends: Sequence[Bend] = ()
    both: Sequence[Both] = ()

    def series(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of each finite value of a metric."""
        return [
            (int(row.get("step") or 0), value)
            for row in self.rows
            if (value := row.get(key)) is not None and math.isfinite(value)
        ]

    def values(self, key: str) -> list[float]:
        """The finite values of a metric."""
        return [value for _, value in self.series(key)]

    @property
    def last(self) -> int | None:
        """The last step; None where none was logged."""
        return int(self.rows[-1].get("step") or 0) if self.rows else None

    def setting(self, *path: str) -> JsonValue:
        """A setting of the stage, as in setting("params", "kl"); None where there is none."""
        found: JsonValue = dict(self.settings)
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def number(self, *path: str) -> float | None:
        """The same, where it is a number."""
        found = self.setting(*path)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


@dataclass(frozen=True)
class Ends:
    """The first and the last part of a series, each with its mean and the mean's standard error."""

    early: float
    late: float
    early_stderr: float
    late_stderr: float

    @property
    def rise(self) -> float:
        """How far the late mean lies above the early one."""
        return self.late - self.early

    @property
    def errors(self) -> float:
        """The rise in standard errors."""
        error = math.hypot(self.early_stderr, self.late_stderr)
        return self.rise / error if error else math.copysign(math.inf, self.rise) if self.rise else 0.0


def ends(values: Sequence[float], part: float = 1 / 3, fewest: int = 2) -> Ends | None:
    """The two ends of a series, `part` of it each and at least `fewest` values; None where it has fewer than twice as many."""
    n = max(fewest, int(len(values) * part))
    if len(values) < 2 * fewest:
        return None
    early, late = values[:n], values[-n:]
    return Ends(fmean(early), fmean(late), pstdev(early) / math.sqrt(n - 1), pstdev(late) / math.sqrt(n - 1))
