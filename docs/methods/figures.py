"""Draw the measured curves of these pages from finished runs: `python docs/methods/figures.py runs/behaviours ...`.

Each run draws what it has: recipes/behaviours.toml `parts.svg` and `adaptive.svg`, recipes/label-noise.toml `noise.svg`,
recipes/kwise.toml `kwise.svg`.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from accord.run import read_json, read_rows

HERE = Path(__file__).parent
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "accord", "font.family": "sans-serif", "font.size": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e7eb", "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=["#0067a5", "#c8590a", "#008856", "#875692", "#8d6b16"]), "figure.facecolor": "white",
    "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip
Series = dict[str, object]


def column(rows: Sequence[Mapping[str, object]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric."""
    found = [(cast(float, row["step"]), cast(float, row[key])) for row in rows if row.get(key) is not None]
    steps, values = np.array(found).T
    return steps, values


def over_kl(ax: Axes, series: list[Series], key: str, kind: str) -> None:
    """Gold or proxy over sqrt(KL), with a standard error to both sides."""
    for one in series:
        if one["kind"] != kind:
            continue
        points = [point for point in cast(list[dict[str, object]], one["points"]) if key in point]
        points.sort(key=lambda point: cast(float, point["kl"]))
        x = np.sqrt([cast(float, point["kl"]) for point in points])
        y, error = (np.array([cast(dict[str, float], p[key])[part] for p in points]) for part in ("value", "stderr"))
        line = ax.plot(x, y, marker="o", markersize=4, label=str(one["name"]).removeprefix("best of n, "))[0]
        ax.fill_between(x, y - error, y + error, color=line.get_color(), alpha=0.13, linewidth=0)
    ax.set_xlabel("√KL from the reference (√nats)")


def parts(run: Path, series: list[Series]) -> None:
    """PPO with one part taken away at a time: gold over sqrt(KL), and KL over updates."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    over_kl(left, [one for one in series if one["name"] != "adaptive"], "gold", "rl")
    left.set_ylabel("gold")
    left.legend()
    for name in ("default", "no critic", "no whitening", "no KL"):
        steps, values = column(read_rows(run / name.lower().replace(" ", "-") / "metrics.jsonl"), "kl/mean")
        right.plot(steps, values, label=name)
    right.set_xlabel("update")
    right.set_ylabel("KL of the rollouts (nats)")
    save("parts")


def adaptive(run: Path) -> None:
    """KL and its weight under the controller; the band is 10 % around the target."""
    rows = read_rows(run / "adaptive" / "metrics.jsonl")
    recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    target = recipe["stage"]["adaptive"]["params"]["kl_target"]
    _, (top, bottom) = plt.subplots(2, 1, figsize=(6.4, 4.4), sharex=True, layout="constrained", height_ratios=(2, 1))
    steps, kl = column(rows, "kl/mean")
    top.axhspan(0.9 * target, 1.1 * target, color="#0067a5", alpha=0.1, linewidth=0)
    top.plot(steps, kl, linewidth=0.8, alpha=0.5)
    smooth = np.convolve(kl, np.ones(9) / 9, "valid")
    top.plot(steps[4:-4], smooth, color="#0067a5")
    top.set_ylabel("KL (nats)")
    bottom.plot(*column(rows, "kl/beta"), color="#c8590a")
    bottom.set_ylabel("beta")
    bottom.set_xlabel("update")
    last = kl[-(len(kl) // 3) :]
    top.set_title(f"mean of the last third {last.mean():.3f}, target {target:g}", loc="left", fontsize=11)
    save("adaptive")


def noise(series: list[Series]) -> None:
    """Best of n: what the reward model thinks, and what is true, by the labels that it learnt from."""
    _, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    for ax, key, words in zip(axes, ("proxy", "gold"), ("what the reward model thinks", "gold"), strict=True):
        over_kl(ax, series, key, "best_of_n")
        ax.set_ylabel(words)
    axes[0].legend(title="labels by")
    save("noise")


def kwise(run: Path) -> None:
    """Rankings as one element of the batch, and as shuffled pairs: loss on training and on held-out data, pass by pass."""
    _, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained", sharex=True)
    for name, words in (("rankings", "a ranking is one element"), ("pairs", "shuffled pairs")):
        rows = [row for row in read_rows(run / name / "metrics.jsonl") if "member" in row]
        total = max(cast(float, row["step"]) for row in rows)
        for ax, key in zip(axes, ("loss", "accuracy"), strict=True):
            steps, values = column(rows, f"eval/{key}")
            line = ax.plot(4 * steps / total, values, marker="o", markersize=4, label=f"{words}, held out")[0]
            steps, values = column(rows, key)
            width = max(len(values) // 16, 1)
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            at = np.convolve(steps, np.ones(width) / width, "valid")
            ax.plot(4 * at / total, smooth, linestyle=":", color=line.get_color(), label=f"{words}, training")
            ax.set_ylabel(key)
            ax.set_xlabel("passes")
    axes[0].legend()
    save("kwise")


def save(name: str) -> None:
    path = HERE / "figures" / f"{name}.svg"
    path.parent.mkdir(exist_ok=True)
    plt.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close()
    print(path)


def main(runs: list[str]) -> None:
    for run in map(Path, runs):
        series = cast(list[Series], read_json(run / "evaluate" / "curves.json").get("series", []))
        if (run / "adaptive").is_dir():
            adaptive(run)
        if (run / "no-critic").is_dir() and series:
            parts(run, series)
        if (run / "ppo-flipped").is_dir() and series:
            noise(series)
        if (run / "pairs").is_dir() and (run / "rankings").is_dir():
            kwise(run)


if __name__ == "__main__":
    with plt.rc_context(cast(Any, STYLE)):
        main(sys.argv[1:])
