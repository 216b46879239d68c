"""Texts as sparse rows of hashed n-grams, and a logistic regression on them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from accord.compare.logistic import sigmoid
from accord.score.safety.logistic import Array, minimise

Half: TypeAlias = NDArray[np.float16]  # numbers that are kept on disk
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]  # columns of n-grams, and how often each is there
Sparse: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], Array]  # row, column and value of each number


def ngrams(text: str) -> tuple[list[str], list[str]]:
    """Words and pairs of words; and the 3- to 5-grams of letters inside each word with its borders."""
    words = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    edged = [f"<{word}>" for word in words]
    letters = [f"#{word[i : i + n]}" for word in edged for n in (3, 4, 5) for i in range(len(word) - n + 1)]
    return words + pairs, letters


def counted(texts: Sequence[str], size: int) -> list[tuple[Found, Found]]:
    """The n-grams of each text in `size` columns by their hash: words, and letters."""
    return [(_hashed(words, size), _hashed(letters, size)) for words, letters in map(ngrams, texts)]


def rarity(texts: Sequence[tuple[Found, Found]], size: int) -> Array:
    """What an n-gram says by being rare, [size]: 1 + log((1 + N) / (1 + n)), where n of the N texts have it.

    Spärck Jones 1972 (https://doi.org/10.1108/eb026526), smoothed, so that what no text has is finite.
    """
    found = np.zeros(size)
    for (words, _), (letters, _) in texts:
        found[np.union1d(words, letters)] += 1
    return 1 + np.log((1 + len(texts)) / (1 + found))


def sparse(texts: Sequence[tuple[Found, Found]], rare: Array | Half) -> Sparse:
    """Each text as (1 + log count) * `rare` of its n-grams, words and letters of length 1 each; a 1 in the last column."""
    row, column, value = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[Array]()
    for i, parts in enumerate(texts):
        for where, counts in parts:
            scaled = (1 + np.log(counts)) * rare[where].astype(np.float64)
            value.append(scaled / max(float(np.sqrt((scaled**2).sum())), 1e-9))
            column.append(where)
            row.append(np.full(len(where), i, dtype=np.int64))
    ones = np.arange(len(texts), dtype=np.int64)
    return (
        np.concatenate([*row, ones]),
        np.concatenate([*column, np.full(len(texts), len(rare), dtype=np.int64)]),
        np.concatenate([*value, np.ones(len(texts))]),
    )


def product(rows: Sparse, weights: Array | Half, count: int) -> Array:
    """The rows, so many, times weights [D + 1]."""
    row, column, value = rows
    return np.bincount(row, weights=value * weights[column], minlength=count).astype(np.float64)


def fit(rows: Sparse, y: Array, weigh: Array, size: int, l2: float) -> Array:
    """Weights [size + 1] that minimise sum(w * cross-entropy) / sum(w) + l2 / 2 * |weights|^2, the bias apart."""
    row, column, value = rows
    w = weigh / weigh.sum()
    decay = np.full(size + 1, l2)
    decay[-1] = 0

    def loss(x: Array) -> tuple[float, Array]:
        z = product(rows, x, len(y))
        cost = float((w * (np.logaddexp(0, z) - y * z)).sum() + (decay * x**2).sum() / 2)
        slope = w * (sigmoid(z) - y)
        return cost, np.bincount(column, weights=value * slope[row], minlength=len(x)) + decay * x

    return minimise(loss, np.zeros(size + 1), steps=100)


def _hashed(grams: Sequence[str], size: int) -> Found:
    hashed = np.array([zlib.crc32(gram.encode()) % size for gram in grams], dtype=np.int64)
    return np.unique(hashed, return_counts=True)
