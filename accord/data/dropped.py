"""Count what is left out of training, with an example of each kind, so that nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Reason:
    """How many records were left out for one reason, and the first of them."""

    count: int
    example: str


@dataclass
class Dropped:
    """The records that a stage left out, by reason."""

    reasons: dict[str, Reason] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Count one record; the first of each reason is kept as the example, shortened."""
        if reason in self.reasons:
            self.reasons[reason].count += 1
        else:
            self.reasons[reason] = Reason(1, example if len(example) <= 200 else example[:199] + "…")

    def include(self, other: Dropped) -> None:
        """Count what another has counted too; examples stay those of the first."""
        for name, reason in other.reasons.items():
            before = self.reasons.get(name, Reason(0, reason.example))
            self.reasons[name] = Reason(before.count + reason.count, before.example)

    @property
    def total(self) -> int:
        """All records left out."""
        return sum(reason.count for reason in self.reasons.values())

    def to_json(self) -> dict[str, dict[str, int | str]]:
        """`{reason: {count, example}}`, as stage.json holds it."""
        return {name: {"count": reason.count, "example": reason.example} for name, reason in self.reasons.items()}

    @classmethod
    def from_json(cls, reasons: Mapping[str, Mapping[str, int | str]]) -> Dropped:
        """What `to_json` has written."""
        return cls({name: Reason(int(said["count"]), str(said["example"])) for name, said in reasons.items()})
