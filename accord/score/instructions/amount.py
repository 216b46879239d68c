"""How amounts are asked for."""

from __future__ import annotations

from typing import Literal, TypeAlias

Relation: TypeAlias = Literal["at least", "less than"]


def enough(found: float, relation: Relation, wanted: float) -> bool:
    """Whether there are "at least" as many as `wanted`, or "less than" that."""
    return found >= wanted if relation == "at least" else found < wanted
