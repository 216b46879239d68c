"""Comparisons as text: lines for the terminal, a block of docs/performance.md, raw results as JSON."""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from accord.run import hardware
from benchmarks.compare import Check, Compared, Spread
from benchmarks.works import WORKS

PACKAGES = ("torch", "transformers", "trl", "accelerate", "tokenizers")
HEAD = [
    "work", "against", "tokens/s", "rows, pairs or answers/s", "times as fast", "peak memory, GB", "first step, s",
    "share of the matrix rate", "checks",
]  # fmt: skip


class Record(TypedDict):
    """One work as measured once, the newest of its size and precision."""

    work: str
    size: str
    precision: str
    machine: str
    date: str
    rate: float | None
    compared: list[dict[str, object]]
    skipped: list[str]
    runs: dict[str, list[dict[str, object]]]


def machine(trl_ppo: bool) -> str:
    """Processor, cores, memory, system and versions, in one line."""
    facts = hardware()
    found = [f"python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    peers = " (PPO: trl 1.12.0)" if trl_ppo else ""
    named = f"{facts.get('cpu', platform.processor())}, {facts['cores']} cores, {facts.get('memory_gib', '?')} GiB"
    return f"{named}, {facts['system']} {facts['machine']}; {', '.join(found)}{peers}"


def today() -> str:
    """The date, as 2026-11-23."""
    return time.strftime("%Y-%m-%d")


# ------------------------------------------------------------------------------------------------------------- terminal


def lines(work: str, found: Compared) -> list[str]:
    """A comparison for a person: the ratios, then every check, those that fail loudest."""
    first = f"{work:<14} {found.ours} / {found.peer}: {spread(found.speed)} times as fast"
    other = f"memory x {spread(found.memory)}, first step x {spread(found.first)}"
    more = f"{'':<14} processor time 1 / {spread(found.effort)}, {other}"
    said = [first + disturbance(found), more]
    for check in found.checks:
        mark = {True: "ok", False: "!!! FAILED", None: "--"}[check.holds]
        said.append(f"{'':<14} {mark} {check.name}: {check.said}")
    return said


def disturbance(found: Compared) -> str:
    """How many pairs another process has disturbed; nothing where none."""
    if not found.disturbed:
        return ""
    every = found.disturbed == found.pairs
    return f"  [{found.disturbed} of {found.pairs} pairs disturbed by other processes, {'counted' if every else 'left out'}]"


def spread(of: Spread) -> str:
    """The middle with the extremes."""
    return f"{of.middle:.2f} ({of.low:.2f} to {of.high:.2f})"


# ----------------------------------------------------------------------------------------------------------------- page


def row(work: str, found: Compared) -> list[str]:
    """A line of the table."""
    share = "" if found.share is None else " / ".join(f"{part:.0%}" for part in found.share)
    failed = ", ".join(f"**{check.name} FAILED**" for check in found.failed)
    named = found.peer if found.ours == "accord" else f"{found.peer} ({found.ours})"
    return [
        work, named, two(found.tokens_per_second, "{:,.0f}"), two(found.sequences_per_second, "{:.2f}"),
        f"**{spread(found.speed)}**{' [disturbed]' if found.disturbed == found.pairs else ''}",
        f"{two([mb / 1000 for mb in found.peak_mb], '{:.2f}')}, x {found.memory.middle:.2f}",
        f"{two(found.first_seconds, '{:.1f}')}, x {found.first.middle:.2f}", share,
        failed or ("hold" if found.checks else "other settings"),
    ]  # fmt: skip


def two(values: Sequence[float], form: str) -> str:
    """Ours and theirs."""
    return " / ".join(form.format(value) for value in values)


def block(records: Sequence[Record]) -> str:
    """The part of the page of one size and precision: machine, table, failed checks, who was missing."""
    cells = [HEAD, ["---"] * len(HEAD)]
    notes: list[str] = []
    for record in records:
        for found in map(read, record["compared"]):
            cells.append(row(record["work"], found))
            notes += [f"- {record['work']}, {found.peer}: {check.name} FAILED: {check.said}" for check in found.failed]
        notes += [f"- {record['work']}: {reason}" for reason in record["skipped"]]
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    return "\n\n".join([*measured(records), table, *(["\n".join(dict.fromkeys(notes))] if notes else [])])


def measured(records: Sequence[Record]) -> list[str]:
    """When, where and against which rate each work was measured."""
    found: dict[tuple[str, str, float | None], list[str]] = {}
    for record in records:
        found.setdefault((record["date"], record["machine"], record["rate"]), []).append(record["work"])
    said: list[str] = []
    for (date, where, rate), works in found.items():
        limit = f" Matrix products: {rate / 1e9:,.0f} billion operations per second." if rate else ""
        said.append(f"{date} ({', '.join(works)}): {where}.{limit}")
    return said


def read(found: dict[str, object]) -> Compared:
    """A comparison from its JSON form."""
    values = json.loads(json.dumps(found))
    for name in ("speed", "effort", "memory", "first"):
        values[name] = Spread(**values[name])
    values["checks"] = [Check(**check) for check in values["checks"]]
    return Compared(**values)


def load(path: Path) -> dict[str, Record]:
    """Raw results by size, precision and work; none where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep(path: Path, records: dict[str, Record]) -> None:
    """Write raw results, a work to a line; numbers to five places."""
    rounded = json.loads(json.dumps(records), parse_float=lambda text: float(f"{float(text):.5g}"))
    lines = [f"{json.dumps(key)}: {json.dumps(record)}" for key, record in rounded.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def fill(page: Path, records: dict[str, Record]) -> None:
    """Write the table of each size and precision between its markers; those that the page has not are put at its end."""
    text = page.read_text(encoding="utf-8")
    for size, precision in dict.fromkeys((record["size"], record["precision"]) for record in records.values()):
        name = f"{size} {precision}"
        made = block([records[key] for work in WORKS if (key := f"{name} {work}") in records])
        whole = f"<!-- benchmark: {name} -->\n\n{made}\n\n<!-- end -->"
        marked = re.compile(rf"<!-- benchmark: {re.escape(name)} -->\n.*?<!-- end -->", re.DOTALL)
        if not marked.search(text):
            text += f"\n## {size}, {precision}\n\n{whole}\n"
        text = marked.sub(lambda _, whole=whole: whole, text)
    page.write_text(text, encoding="utf-8")
