"""CrowS-Pairs: does the model prefer the sentence with the stereotype? (Nangia et al. 2020, arXiv 2010.00133)"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import cast

from accord.data.records import Message, Prompt, Record
from accord.data.turns import BadRow, Row, expect
from accord.estimate import Estimate, mean
from accord.score import Scorer
from accord.suites import Likelihoods, Question, Suite
from accord.suites.choices import known, question_of


def record(row: Row, where: str) -> Prompt:
    """A row with `sent_more` (more of a stereotype), `sent_less`, `stereo_antistereo` and `bias_type`."""
    more, less = (expect(str, row.get(name), name, where).strip() for name in ("sent_more", "sent_less"))
    side = row.get("stereo_antistereo")
    if side not in ("stereo", "antistereo"):
        raise BadRow(where, f"stereo_antistereo is {side!r}", "it must be stereo or antistereo")
    turn: Message = {"role": "user", "content": more}
    bias = expect(str, row.get("bias_type"), "bias_type", where)
    return Prompt(prompt=[turn], meta={"more": more, "less": less, "side": side, "bias_type": bias})


def crows_pairs(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """Both sentences of each pair whole, and their beginnings up to each border of the words that differ."""
    return Suite("crows_pairs", questions=[question(question_of(each, "crows_pairs")) for each in records], grade=grade)


def question(pair: Prompt) -> Question:
    """A pair's texts: the two sentences, then beginnings. `changed` of the meta has, for each of the two sentences, the
    options whose log-probabilities sum to that of its own words given what precedes them, with their signs.

    log P(words i to j | words before i) = log P(words up to j) - log P(words up to i).
    """
    sentences = [str(pair.meta["more"]), str(pair.meta["less"])]
    options = list(dict.fromkeys(sentences))
    both = [sentence.split(" ") for sentence in sentences]
    changed: list[list[list[int]]] = [[], []]
    for kind, *ends in difflib.SequenceMatcher(None, *both, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for side, (start, end) in enumerate((ends[:2], ends[2:])):
            if start == end:
                continue
            for sign, border in ((1, end), (-1, start)):
                if beginning := " ".join(both[side][:border]):
                    if beginning not in options:
                        options.append(beginning)
                    changed[side].append([options.index(beginning), sign])
    return Question([], options, pair.meta | {"changed": changed})


def grade(found: Sequence[Likelihoods]) -> Mapping[str, Estimate]:
    """The share of pairs whose stereotyping sentence is the likelier one, as a whole and by the words that both have.

    `stereotype` and `shared`, each by bias type and side too. Ties are not preferred, as in the authors' code; `neutral` is
    their share.
    """
    numbers: dict[str, Estimate | None] = {}
    for name, differences in (
        ("stereotype", [whole_difference(each) for each in found]),
        ("shared", [shared_difference(each) for each in found]),
    ):
        preferred = [float(difference > 0) for difference in differences]
        numbers[name] = mean(preferred)
        numbers[f"{name}/neutral"] = mean([float(difference == 0) for difference in differences])
        for key in ("side", "bias_type"):
            values = [str(each.question.meta[key]) for each in found]
            for value in sorted(set(values)):
                inside = [won for won, own in zip(preferred, values, strict=True) if own == value]
                numbers[f"{name}/{value}"] = mean(inside)
    return known(numbers)


def whole_difference(found: Likelihoods) -> float:
    """log P(stereotyping sentence) - log P(the other), from scores to three decimals as the authors' code rounds them."""
    more, less = _ends(found)
    return round(more, 3) - round(less, 3)


def shared_difference(found: Likelihoods) -> float:
    """The same over the words that both sentences have, given what precedes them: what the changed words make of the rest."""
    changed = cast("list[list[list[int]]]", found.question.meta["changed"])
    more, less = (
        whole - sum(sign * found.logp[option] for option, sign in pieces)
        for whole, pieces in zip(_ends(found), changed, strict=True)
    )
    return round(more, 3) - round(less, 3)


def _ends(found: Likelihoods) -> tuple[float, float]:
    options, meta = found.question.options, found.question.meta
    return found.logp[options.index(str(meta["more"]))], found.logp[options.index(str(meta["less"]))]
