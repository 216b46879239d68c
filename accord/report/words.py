"""How numbers and metrics are written out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from accord.report.values import Measure

MINUS = "\u2212"
NO_BREAK = "\u00a0"
BETTER = {"gold": 1, "compliance": 1, "facts": 1, "concise": 1, "refusal": 1, "reward": 1, "win_rate": 1, "accuracy": 1,
          "finished": 1, "over_refusal": -1, "perplexity": -1, "loss": -1}  # fmt: skip
PARTS = ("compliance", "facts", "concise", "refusal", "over_refusal")  # of gold
RANK = "rank"  # on a leaderboard
PERCENT = {
    "win_rate",
    "win",
    "tie",
    "lose",
    "finished",
    "accuracy",
    "folds",
    "agreement",
    "ceiling",
    "ece",
    "unanimous",
    "categories_mean",
    "expected_win_rate",
    "length_controlled",
}
NAMES = {
    "kl": "KL",
    "ece": "calibration error",
    "over_refusal": "over-refusal",
    "win_rate": "win rate",
    "facts": "correct facts",
}


def is_share(name: str) -> bool:
    """Whether a metric is a share, to be written as a percentage."""
    metric = name.rpartition("/")[2]
    return metric in PERCENT or metric.startswith(("accuracy_", "best_of_"))


def named(metric: str) -> str:
    """Name a metric in a sentence or a table."""
    return NAMES.get(metric) or metric.replace("_", " ")


def show(name: str, found: Measure) -> str:
    """Write a value with its error, both to the error's second digit; shares as percentages."""
    value, error, unit = split(name, found)
    # No line break inside a value.
    return f"{value}{NO_BREAK}{error}{unit}" if error else f"{value}{unit}"


def split(name: str, found: Measure) -> tuple[str, str, str]:
    """Write value, error ("± 0.01", or nothing) and unit, for a place that puts them apart; of a rank, the interval."""
    if name == RANK and found.low is not None and found.high is not None:
        return f"{found.value:.0f}", f"{found.low:.0f} to {found.high:.0f}", ""
    share = is_share(name)
    value, error = found.value * (100 if share else 1), found.stderr
    unit = f"{NO_BREAK}%" if share else ""
    if error:
        error *= 100 if share else 1
        digits = digits_of(error)
        return _minus(f"{value:,.{digits}f}"), f"±{NO_BREAK}{error:,.{digits}f}", unit
    if value.is_integer() and abs(value) < 1e9:
        return _minus(f"{value:,.0f}"), "", unit
    return _minus(f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"), "", unit


def signed(name: str, found: Measure) -> str:
    """Write a difference with its sign: `+0.178 ± 0.013`."""
    written = show(name, found)
    return written if written.startswith(MINUS) else f"+{written}"


def brief(name: str, value: float) -> str:
    """Write a value in a sentence, to three digits."""
    if is_share(name):
        return f"{100 * value:.3g}{NO_BREAK}%"
    return _minus(f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}")


def digits_of(error: float) -> int:
    """Return how many decimals show an error's second digit, at most 3, or 4 for a very small one."""
    return min(max(1 - math.floor(math.log10(error)), 0), 3 if error >= 0.001 else 4)


def listed(items: Sequence[str]) -> str:
    """Join a list the way a sentence does: `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
