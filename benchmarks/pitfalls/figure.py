"""Curves of healthy runs and of those with a planted cause, in what a detector reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.pitfalls.recipes import Table

# Pitfall, metric, which healthy runs to lay beside it, how it is called.
PANELS = (
    ("reward hacking", "eval/reward", "-ppo-", "held-out judge"),
    ("mode collapse", "rollout/distinct", "-group-", "different pairs of tokens"),
    ("length bias", "rollout/length", "-ppo-", "tokens of an answer"),
    ("KL too high", "kl/mean", "-group-", "KL, nats per answer"),
    ("critic failure", "value/explained_variance", "-ppo-", "explained variance"),
    ("overfitting", "eval/loss", "-reward-", "held-out loss"),
    ("loss spike", "loss", "-sft-", "loss"),
    ("falling chosen log-probability", "eval/chosen_logp", "-dpo-", "held-out chosen log-prob, nats"),
)


def draw(folders: dict[str, Path], rows: Sequence[Table], path: Path) -> None:
    """Write the figure; `folders` are the runs by name."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    for ax, (cause, key, beside, title) in zip(figure.subplots(2, 4).flat, PANELS, strict=True):
        healthy = [str(row["name"]) for row in rows if not row["cause"] and beside in str(row["name"])]
        sick = [str(row["name"]) for row in rows if row["cause"] == cause]
        for names, colour in ((healthy, "#9aa4ad"), (sick, "#c0392b")):
            for name in names:
                found = _series(folders[name], key)
                ax.plot([x for x, _ in found], [y for _, y in found], color=colour, linewidth=1, alpha=0.8)
        ax.set_title(f"{cause}\n{title}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("step (grey: healthy, red: planted)", fontsize=9)
    figure.savefig(path, dpi=90)


def _series(folder: Path, key: str) -> list[tuple[float, float]]:
    """(step, value) of a metric of the training stage."""
    rows = [json.loads(line) for line in (folder / "it/metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]
