"""What can be measured of answers as text, together: how long they are and how much they differ."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from accord.estimate import Estimate

WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and signs, in lower case."""
    return WORD.findall(text.lower())


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every n words that follow one another."""
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def distinct(texts: Sequence[str], n: int, clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """distinct-n: how many different n-grams there are in all texts, over how many n-grams (Li et al. 2016, arXiv 1510.03055).

    It falls as texts get longer, so that only sets of about the same size compare. The standard error is a jackknife over
    clusters (Efron & Stein 1981). None where there is no n-gram.
    """
    counts = [Counter(ngrams(text, n)) for text in texts]
    groups = _joined(counts, clusters)
    whole: Counter[tuple[str, ...]] = Counter()
    for group in groups:
        whole.update(group)
    total, different = whole.total(), len(whole)
    if not total:
        return None
    without: list[float] = []
    for group in groups:
        left = total - group.total()
        own = sum(whole[gram] == count for gram, count in group.items())  # said in no other text
        without.append((different - own) / left if left else math.nan)
    return Estimate(different / total, _jackknife(without), len(texts))


def self_similarity(texts: Sequence[str], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """How alike the texts are: the mean over all pairs of the cosine of their bigram counts; 1 where all say the same.

    What self-BLEU measures (Zhu et al. 2018, arXiv 1802.01886), but symmetric and exact in linear time, as the sum of the
    unit vectors holds every pair. The standard error is that of a U-statistic to first order, 2 sd(mean of a text's pairs) /
    √n (Hoeffding 1948), by clusters; too wide rather than too narrow. Texts of less than two words are left out; None where
    fewer than two are left.
    """
    vectors = [_unit(Counter(ngrams(text, 2))) for text in texts]
    kept = [i for i, vector in enumerate(vectors) if vector]
    n = len(kept)
    if n < 2:
        return None
    whole: Counter[tuple[str, ...]] = Counter()
    for i in kept:
        whole.update(vectors[i])
    each = np.array([(sum(v * whole[g] for g, v in vectors[i].items()) - 1) / (n - 1) for i in kept])
    names = [i if clusters is None else str(clusters[i]) for i in kept]
    _, index = np.unique(np.array(names), return_inverse=True)
    sums = np.bincount(index, weights=each - each.mean())
    groups = len(sums)
    error = 2 / n * math.sqrt(float((sums**2).sum()) * groups / (groups - 1)) if groups > 1 else math.nan
    return Estimate(float(each.mean()), error, n)


def _unit(counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    length = math.sqrt(sum(count**2 for count in counts.values()))
    return {gram: count / length for gram, count in counts.items()}


def _joined(
    counts: Sequence[Counter[tuple[str, ...]]], clusters: Sequence[Hashable] | None
) -> list[Counter[tuple[str, ...]]]:
    """The counts of each cluster."""
    if clusters is None:
        return list(counts)
    found: dict[Hashable, Counter[tuple[str, ...]]] = {}
    for cluster, count in zip(clusters, counts, strict=True):
        found.setdefault(cluster, Counter()).update(count)
    return list(found.values())


def _jackknife(without: Sequence[float]) -> float:
    """The standard error from what is left without each group."""
    left = np.array([value for value in without if not math.isnan(value)])
    n = len(left)
    return math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum())) if n > 1 else math.nan
