"""Hits and false alarms with Wilson's intervals."""

from __future__ import annotations

from collections.abc import Sequence

from accord.estimate import wilson
from benchmarks.pitfalls.planted import PLANTED
from benchmarks.pitfalls.recipes import Table

POLICY, PAIRS = ("policy",), ("reward", "preference")
# The kinds of training that can show it; None: whatever was compared with its start afterwards.
SHOWS: dict[str, tuple[str, ...] | None] = {
    "reward hacking": ("policy", "preference"), "over-optimisation": POLICY, "mode collapse": POLICY, "forgetting": None,
    "overfitting": PAIRS, "length bias": ("policy", "preference"), "KL too high": POLICY, "KL too low": POLICY,
    "loss spike": ("sft", *PAIRS), "critic failure": POLICY, "sampler mismatch": POLICY, "sycophancy": None,
    "falling chosen log-probability": ("preference",), "off-policy preference data": ("preference",),
}  # fmt: skip

SINCE = {
    "reward hacking": 2000
}  # the first seed that counts, where a threshold was changed after runs had been counted


def counted(rows: Sequence[Table]) -> list[Table]:
    """For each detector the hits among runs with its cause, and the false alarms among healthy ones, live ones counted too."""
    return [_of(name, rows) for name in PLANTED]


def _of(name: str, rows: Sequence[Table]) -> Table:
    fresh = [row for row in rows if int(str(row["seed"])) >= SINCE.get(name, 1000)]
    sick = [row for row in fresh if row["cause"] == name]
    healthy = [row for row in fresh if not row["cause"]]
    able = [row for row in healthy if _shows(name, row)]
    hits, false = [r for r in sick if _told(name, r)], [r for r in healthy if _told(name, r)]
    return {
        "name": name, "hits": len(hits), "sick": len(sick), "hit_interval": wilson(len(hits), len(sick)),
        "live": sum(name in _list(row, "live") for row in sick),
        "false_alarms": len(false), "healthy": len(healthy), "false_interval": wilson(len(false), len(healthy)),
        "able": len(able), "able_interval": wilson(len(false), len(able)),
    }  # fmt: skip


def _told(name: str, row: Table) -> bool:
    return name in _list(row, "found") or name in _list(row, "live")


def _list(row: Table, key: str) -> list[str]:
    found = row[key]
    return [str(item) for item in found] if isinstance(found, list) else []


def _shows(name: str, row: Table) -> bool:
    kinds = SHOWS[name]
    if kinds is None:
        return "kept" in _list(row, "stages")
    curves = name != "over-optimisation" or bool(row["curves"])
    critic = name != "critic failure" or "-ppo-" in str(row["name"])
    return str(row["kind"]) in kinds and curves and critic


def text(found: Sequence[Table]) -> str:
    """A table for the terminal and the page."""
    lines = ["| detector | hits | interval | told while training | false alarms | interval | of runs that can show it |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for row in found:
        lines.append(
            f"| {row['name']} | {row['hits']}/{row['sick']} | {_share(row['hit_interval'])} | {row['live']}/{row['sick']} | "
            f"{row['false_alarms']}/{row['healthy']} | {_share(row['false_interval'])} | {row['false_alarms']}/{row['able']}, "
            f"{_share(row['able_interval'])} |"
        )
    return "\n".join(lines)


def _share(interval: object) -> str:
    low, high = interval if isinstance(interval, tuple | list) else (0.0, 1.0)
    return f"{100 * float(low):.0f} to {100 * float(high):.0f} %"
