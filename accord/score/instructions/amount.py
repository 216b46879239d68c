"""How amounts are asked for."""

from __future__ import annotations

from accord.errors import DataError


def enough(found: float, relation: str, wanted: float) -> bool:
    """Whether `found` is "at least" or "less than" what is `wanted`."""
    if relation not in ("at least", "less than"):
        raise DataError("relation", f"{relation!r} is no relation", 'allowed: "at least", "less than"')
    return found >= wanted if relation == "at least" else found < wanted
