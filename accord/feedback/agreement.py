"""How far annotators agree beyond chance. NaN (or None) is a missing label; a coefficient without disagreement to expect,
because all labels are the same, is NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.errors import DataError

Array: TypeAlias = NDArray[np.float64]
Level: TypeAlias = Literal["nominal", "ordinal", "interval", "ratio"]
Label: TypeAlias = Hashable


@dataclass(frozen=True)
class Agreement:
    """A coefficient with its bootstrap interval over `n` items."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def raw_agreement(ratings: Sequence[Sequence[Label]] | Array) -> float:
    """The share of pairs of labels of one item that are the same, over the items that two or more have labelled; annotators
    are rows. Of two annotators this is the share of items they agree on."""
    counts = _counts(_coded(ratings)[0])
    several = counts[counts.sum(1) > 1]
    pairs = (several.sum(1) * (several.sum(1) - 1)).sum()
    return float((several * (several - 1)).sum() / pairs) if pairs else math.nan


def cohen_kappa(a: Sequence[Label], b: Sequence[Label]) -> float:
    """(p_o - p_e) / (1 - p_e) of two annotators, with the agreement p_e that their own shares of labels would give by chance.

    Cohen 1960, doi 10.1177/001316446002000104. Items that either has left out do not count.
    """
    if len(a) != len(b):
        raise DataError(
            "cohen_kappa", f"{len(a)} labels and {len(b)}", "both label the same items, NaN where they do not"
        )
    coded, labels = _coded([a, b])
    first, second = coded[:, ~np.isnan(coded).any(0)].astype(int)
    if not len(first):
        return math.nan
    by_chance = (np.bincount(first, minlength=labels) * np.bincount(second, minlength=labels)).sum() / len(first) ** 2
    return _beyond(float((first == second).mean()), float(by_chance))


def fleiss_kappa(counts: ArrayLike) -> float:
    """Agreement of equally many labels for each item, [items, categories] of how many chose each.

    Fleiss 1971, doi 10.1037/h0031619. DataError where items have unlike numbers of labels.
    """
    table = np.asarray(counts, dtype=float)
    if table.ndim != 2 or not table.size or (table.sum(1) != table.sum(1)[0]).any() or table.sum(1)[0] < 2:
        said = "items need the same number of labels, two or more"
        raise DataError("fleiss_kappa", said, "rows are items, columns categories", "krippendorff_alpha takes any")
    raters = table.sum(1)[0]
    observed = (table * (table - 1)).sum(1) / (raters * (raters - 1))
    shares = table.sum(0) / table.sum()
    return _beyond(float(observed.mean()), float((shares**2).sum()))


def krippendorff_alpha(ratings: Sequence[Sequence[Label]] | Array, level: Level = "nominal") -> float:
    """1 - D_o / D_e of any number of annotators, who are rows; items that fewer than two have labelled do not count.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". `level` says how far apart two labels are: `nominal`
    alike or not, `ordinal` by what ranks between them, `interval` by difference, `ratio` by difference over sum.
    """
    values, coded = _levels(ratings, level)
    counts = _counts(coded, len(values))
    counts = counts[counts.sum(1) > 1]
    if not len(counts):
        return math.nan
    each = counts.sum(1)
    together = (counts / (each - 1)[:, None]).T @ counts - np.diag((counts / (each - 1)[:, None]).sum(0))
    total = together.sum(0)
    apart = _distance(values, total, level)
    expected = (np.outer(total, total) * apart).sum() / (total.sum() - 1)
    return float(1 - (together * apart).sum() / expected) if expected > 0 else math.nan


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    items: int,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """A coefficient of the items at given places, with the percentile interval of drawing the items anew `draws` times.

    `bootstrap(lambda at: cohen_kappa(a[at], b[at]), len(a))`. Draws that leave it undefined are left out.
    """
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(items, size=items)) for _ in range(draws)]) if items else np.array([])
    drawn = drawn[~np.isnan(drawn)]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (math.nan, math.nan)
    value = statistic(np.arange(items)) if items else math.nan
    return Agreement(value, float(low), float(high), items)


def _beyond(observed: float, by_chance: float) -> float:
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def _missing(label: Label) -> bool:
    return label is None or (isinstance(label, float | np.floating) and math.isnan(label))


def _coded(ratings: Sequence[Sequence[Label]] | Array) -> tuple[Array, int]:
    """Labels as the numbers 0 .. K - 1, NaN where missing, [annotators, items], and K."""
    if len({len(row) for row in ratings}) > 1:
        raise DataError("agreement", "annotators with unlike numbers of items", "give NaN where one has no label")
    table = np.array(ratings)
    if table.dtype.kind in "biuf":
        return _numbered(table.astype(float))
    numbers: dict[Label, int] = {}
    rows = cast(Sequence[Sequence[Label]], ratings)
    coded = [[math.nan if _missing(x) else float(numbers.setdefault(x, len(numbers))) for x in row] for row in rows]
    return np.array(coded), len(numbers)


def _numbered(table: Array) -> tuple[Array, int]:
    """The same of labels that are numbers."""
    values, index = np.unique(table[known := ~np.isnan(table)], return_inverse=True)
    coded = np.full(table.shape, np.nan)
    coded[known] = index
    return coded, len(values)


def _levels(ratings: Sequence[Sequence[Label]] | Array, level: Level) -> tuple[Array, Array]:
    """The labels that occur, [K] in rising order, and which of them each is, [annotators, items]."""
    if level == "nominal":
        coded, count = _coded(ratings)
        return np.arange(count, dtype=float), coded
    if level not in ("ordinal", "interval", "ratio"):
        raise DataError("krippendorff_alpha", f"unknown level {level!r}", "nominal, ordinal, interval or ratio")
    try:
        numbers = np.asarray(ratings, dtype=float)
    except (TypeError, ValueError):
        raise DataError("krippendorff_alpha", f"labels of level {level} are numbers", "or choose nominal") from None
    return np.unique(numbers[~np.isnan(numbers)]), _numbered(numbers)[0]


def _counts(coded: Array, labels: int | None = None) -> Array:
    """How often each item was given each label, [items, K]."""
    kinds = labels if labels is not None else int(np.nanmax(coded, initial=-1)) + 1
    return (coded[:, :, None] == np.arange(kinds)).sum(0).astype(float)


def _distance(values: Array, total: Array, level: Level) -> Array:
    """How far apart each two labels are, squared, [K, K]; `total` is how often each occurs."""
    if level == "nominal":
        return 1 - np.eye(len(values))
    if level == "ordinal":  # all that lies between the two, with half of each
        middle = total.cumsum() - total / 2
        return (middle[:, None] - middle) ** 2
    apart = values[:, None] - values
    if level == "interval":
        return apart**2
    both = values[:, None] + values
    return np.divide(apart, both, out=np.zeros_like(apart), where=both != 0) ** 2
