"""One answer to everything: it can win by fooling a judge, and is no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accord.estimate import Estimate, mean

MOST = 0.5  # a text that more than this share of the prompts gets is reported


def repeated(texts: Sequence[str], prompts: Sequence[str]) -> dict[str, Estimate]:
    """`repeated`: the share of answers that are the commonest one, where it answers most of several prompts; else nothing.

    Zheng et al. 2024 (https://arxiv.org/abs/2410.07137) win 86.5 % (length-controlled) on AlpacaEval 2 with one text that is
    written for the judge.
    """
    if len(set(prompts)) < 2:
        return {}
    same = [text.strip() for text in texts]
    commonest, _ = Counter(same).most_common(1)[0]
    found = mean([float(text == commonest) for text in same], prompts)
    return {"repeated": found} if found and found.value > MOST else {}
