"""What the person at the terminal sees: a line per step, and tables."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accord import processes

FORMATS = {
    "accuracy": "{:.2f}",
    "rollout/finished": "{:.0%}",
    "policy/clip_fraction": "{:.1%}",
    "lr": "{:.1e}",
    "tokens_per_second": "{:,.0f} tok/s",
    "perplexity": "{:.1f}",
    "rollout/length": "{:.0f}",
}
SHORT = {
    "reward/mean": "reward",
    "kl/mean": "kl",
    "policy/clip_fraction": "clip",
    "rollout/length": "len",
    "rollout/finished": "finished",
    "value/explained_variance": "ev",
    "tokens_per_second": "",
}
SHOWN = ("loss", "accuracy", "margin", "reward/mean", "kl/mean", "policy/clip_fraction", "value/explained_variance",
         "rollout/length", "rollout/finished", "lr", "tokens_per_second")  # fmt: skip


@dataclass
class Progress:
    """The live line of a stage: rewritten in place on a terminal, a line every few seconds elsewhere."""

    name: str
    total: int
    began: float = field(default_factory=time.monotonic)
    shown: float = 0.0

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show the numbers of one step."""
        now = time.monotonic()
        live = sys.stderr.isatty()
        if not processes.speaks() or (not live and now - self.shown < 5 and step not in {1, self.total}):
            return
        self.shown = now
        line = (
            f"{self.name:<10} {step:>{len(str(self.total))}}/{self.total}  {self._left(step, now)}  {_numbers(numbers)}"
        )
        if live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{line[:width]}" + ("\n" if step == self.total else ""))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def _left(self, step: int, now: float) -> str:
        seconds = (now - self.began) / max(step, 1) * (self.total - step)
        return f"{duration(seconds)} left"


def _numbers(numbers: Mapping[str, float]) -> str:
    """`loss 2.31  accuracy 0.61  lr 3.0e-06`, evaluations last."""
    keys = [key for key in SHOWN if key in numbers] + [key for key in numbers if key.startswith("eval/")]
    parts = [f"{SHORT.get(key, key.rpartition('/')[2] if not key.startswith('eval/') else key)} "
             + FORMATS.get(key.removeprefix("eval/"), "{:.3f}").format(numbers[key]) for key in keys]  # fmt: skip
    return "  ".join(part.strip() for part in parts)


def duration(seconds: float) -> str:
    """`4.2s`, `3m 05s`, `2h 10m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def say(text: str) -> None:
    """One line on standard error, where progress goes; results go to standard output."""
    if processes.speaks():
        print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
             for row in [header, *rows]]  # fmt: skip
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


@dataclass(frozen=True)
class Box:
    """One line of a checklist: whether it holds, what was measured, and how to close it where it does not."""

    name: str
    holds: bool
    evidence: str
    close: str = ""


def checklist(boxes: Sequence[Box]) -> str:
    """`[x] name: evidence`, open ones with how to close them below."""
    lines: list[str] = []
    for box in boxes:
        lines.append(f"[{'x' if box.holds else ' '}] {box.name}: {box.evidence}")
        if not box.holds and box.close:
            lines.append(f"    to close it: {box.close}")
    return "\n".join(lines)
