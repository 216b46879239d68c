"""What is wrong with data before anything is learned from it: duplicates, contradictions, leaks, halves, imbalance.

One pass makes a few numbers of each record (about 600 bytes), sorting finds what belongs together, and a second pass
shows examples and writes what is left. So a file of any size is looked at in bounded memory.

Near duplicates: MinHash (Broder 1997) of three-word shingles with banding (Leskovec et al., Mining of Massive Datasets,
section 3.4). Leaks: a shared run of 13 words (Brown et al. 2020, appendix C), or the same prompt.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from accord.data.dropped import Dropped
from accord.data.language import language
from accord.data.records import Example, Pair, Ranking, Rating, Record, Text, conversation

Hashes: TypeAlias = NDArray[np.uint64]

PERMUTATIONS, BAND = 64, 4  # of the signature, and how many of its values make a band: 16 bands of 4
ALIKE = 0.75  # the share of shingles in common, as estimated, from which two records are near duplicates
SHINGLE, RUN = 3, 13  # words
CHUNK = 2048  # records that are worked on at a time
EXAMPLES = 3
WORD = re.compile(r"\w+")
DICE = np.random.default_rng(20261123)
FACTORS = DICE.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
SHIFTS = DICE.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
WEIGHTS = DICE.integers(1, 2**63, max(SHINGLE, RUN), dtype=np.uint64) | np.uint64(1)

# What is found, whether a cleaned copy leaves it out, and what it means.
KINDS = {
    "duplicate": (True, "the same record again"),
    "near_duplicate": (True, f"about {ALIKE:.0%} or more of the {SHINGLE}-word shingles of an earlier record"),
    "identical": (True, "chosen and rejected are the same"),
    "contradiction": (True, "the same two answers preferred the other way round elsewhere"),
    "leak": (True, f"the prompt, or a run of {RUN} words, is in the data it is held against"),
    "truncated": (False, "the answer stops in the middle of a sentence"),
}


@dataclass
class Finding:
    """How many records are affected, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Quality:
    """What was found in a source."""

    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    dropped: Dropped = field(default_factory=Dropped)  # rows that hold no valid record
    findings: dict[str, Finding] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    longer_chosen: float | None = None  # the share of pairs whose chosen answer has more words; ties count half
    words: dict[str, float] = field(default_factory=dict)  # mean words of prompts, chosen, rejected, answers
    left_out: set[int] = field(default_factory=set)  # what a cleaned copy does without


@dataclass
class _Columns:
    """The numbers of every record."""

    whole: array[int] = field(default_factory=lambda: array("Q"))
    signatures: list[NDArray[np.uint32]] = field(default_factory=list)
    identical: list[int] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)
    leaked: list[int] = field(default_factory=list)
    # One entry for each comparison: its record, its two answers to its prompt, and which of them was preferred.
    compared: array[int] = field(default_factory=lambda: array("Q"))
    answers: array[int] = field(default_factory=lambda: array("Q"))
    first: array[int] = field(default_factory=lambda: array("b"))
    lengths: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    longer: float = 0.0
    pairs: int = 0


def inspect(
    open_records: Callable[[Dropped], Iterable[Record]], *, against: Sequence[Iterable[Record]] = ()
) -> Quality:
    """Look through records, which `open_records` yields anew each time it is called, `Dropped` counting bad rows.

    `against` is data that must not share anything with them: held-out records, prompts of evaluations.
    """
    known = Known.of(against)
    found, columns = Quality(), _Columns()
    records = iter(open_records(found.dropped))
    while chunk := list(islice(records, CHUNK)):
        _add(found, columns, chunk, known)
    marks = _marks(columns, found.records)
    found.findings = {name: Finding(len(which)) for name, which in marks.items() if which}
    found.left_out = {i for name, which in marks.items() if KINDS[name][0] for i in which}
    found.words = {name: columns.lengths[name] / columns.texts[name] for name in columns.texts}
    found.longer_chosen = columns.longer / columns.pairs if columns.pairs else None
    _show(found, marks, open_records(Dropped()))
    return found


def clean(found: Quality, open_records: Callable[[Dropped], Iterable[Record]]) -> Iterator[Record]:
    """The records that are left once duplicates, contradictions, identical pairs and leaks are taken out."""
    for i, record in enumerate(open_records(Dropped())):
        if i not in found.left_out:
            yield record


# ------------------------------------------------------------------------------------------------------------ one pass


def _add(found: Quality, columns: _Columns, chunk: Sequence[Record], known: Known) -> None:
    start = found.records
    found.records += len(chunk)
    texts: list[list[int]] = []
    for i, record in enumerate(chunk, start):
        prompt, answers = parts(record)
        words = [hashed(word) for word in WORD.findall(" ".join([prompt, *answers]).lower())]
        texts.append(words)
        found.kinds[type(record).__name__] += 1
        found.languages[language(answers[-1] if answers else prompt)] += 1
        columns.whole.append(_number(type(record).__name__, prompt, *answers))
        names = ("chosen", "rejected") if isinstance(record, Pair) else ("answer",) * len(answers)
        for name, text in (("prompt", prompt), *zip(names, answers, strict=True)):
            columns.lengths[name] += text.count(" ") + 1
            columns.texts[name] += 1
        if answers and any(map(truncated, answers)):
            columns.truncated.append(i)
        if known.prompts and _number(prompt.strip().lower()) in known.prompts:
            columns.leaked.append(i)
        if isinstance(record, Pair | Ranking | Rating):
            _compare(columns, i, prompt, record)
    hashes, starts = windows(texts, SHINGLE)
    columns.signatures.append(signatures(hashes, starts))
    if len(known.runs):
        columns.leaked += [start + int(row) for row in known.rows(texts)]


def parts(record: Record) -> tuple[str, list[str]]:
    """A record's prompt and its answers, as text."""
    if isinstance(record, Text):
        return record.text, []
    prompt = "\n".join(turn["content"] for turn in conversation(record))
    match record:
        case Pair():
            return prompt, [record.chosen, record.rejected]
        case Ranking():
            return prompt, list(record.responses)
        case Rating():
            return prompt, [record.response]
        case Example():
            return prompt, [record.messages[-1]["content"]]
        case _:
            return prompt, []


def _compare(columns: _Columns, i: int, prompt: str, record: Pair | Ranking | Rating) -> None:
    """Note every comparison that a record holds, and that of its lengths."""
    if isinstance(record, Pair):
        if record.chosen.strip() == record.rejected.strip():
            columns.identical.append(i)
            return
        chosen, rejected = record.chosen.count(" "), record.rejected.count(" ")
        columns.pairs += 1
        columns.longer += 0.5 if chosen == rejected else float(chosen > rejected)
        said = [(record.chosen, record.rejected)] if record.prob != 0.5 else []
        said = [(worse, better) for better, worse in said] if record.prob < 0.5 else said
    elif isinstance(record, Ranking):
        ranked = zip(record.responses, record.ranks, strict=True)
        both = [(a, b) if m < n else (b, a) for (a, m), (b, n) in combinations(ranked, 2) if m != n]
        said = [(better, worse) for better, worse in both if better.strip() != worse.strip()]
    else:  # an answer against itself being good enough
        said = [(record.response, "")] if bool(record.label) else [("", record.response)]
        said = said if isinstance(record.label, bool) else []
    for better, worse in said:
        a, b = _number(better.strip()), _number(worse.strip())
        columns.compared.append(i)
        columns.answers.append(_number(prompt.strip(), str(min(a, b)), str(max(a, b))))
        columns.first.append(a < b)


def truncated(answer: str) -> bool:
    """Whether an answer of some length ends in a letter or a comma, and no list or code ends it."""
    text = answer.rstrip()
    if text.count(" ") < 20 or not text or not (text[-1].isalpha() or text[-1] in ",;("):
        return False
    last = text.rsplit("\n", 1)[-1].strip()
    return last.count(" ") >= 7 and not last.startswith(("-", "*", "•", "#", "|")) and not last[0].isdigit()


# -------------------------------------------------------------------------------------------------- what belongs together


def _marks(columns: _Columns, records: int) -> dict[str, list[int]]:
    """The records of every finding, in order."""
    duplicates = _later(np.frombuffer(columns.whole, dtype=np.uint64)) if records else set[int]()
    both_ways = _contradictions(columns)  # much like each other, and worse than that
    near = _near(np.concatenate(columns.signatures), duplicates | both_ways) if columns.signatures else set[int]()
    found = {
        "duplicate": duplicates,
        "near_duplicate": near,
        "identical": set(columns.identical),
        "contradiction": both_ways,
        "leak": set(columns.leaked),
        "truncated": set(columns.truncated),
    }
    return {name: sorted(which) for name, which in found.items()}


def _later(values: Hashes) -> set[int]:
    """The places of values that have stood there before."""
    order = np.argsort(values, kind="stable")
    again = values[order][1:] == values[order][:-1]
    return set(order[1:][again].tolist())


def _near(signature: NDArray[np.uint32], without: set[int]) -> set[int]:
    """Records that are much like an earlier one; those of `without` have been found to be worse.

    Records that share a band stand next to each other once its values are sorted; each is held against the first of them.
    """
    found: set[int] = set()
    skip = np.zeros(len(signature), dtype=bool)
    skip[list(without)] = True
    for band in range(0, PERMUTATIONS, BAND):
        keys = _mixed(signature[:, band : band + BAND].astype(np.uint64))
        order = np.argsort(keys, kind="stable")
        same = np.concatenate([[False], keys[order][1:] == keys[order][:-1]])
        first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        later, earlier = order[same], order[first[same]]
        alike = (signature[later] == signature[earlier]).mean(1) >= ALIKE if len(later) else np.zeros(0, dtype=bool)
        found.update(later[alike & ~skip[later]].tolist())
    return found


def _contradictions(columns: _Columns) -> set[int]:
    """Records of two answers that were preferred both ways."""
    answers, first = np.frombuffer(columns.answers, dtype=np.uint64), np.frombuffer(columns.first, dtype=np.int8)
    if not len(answers):
        return set()
    _, which = np.unique(answers, return_inverse=True)
    yes = np.bincount(which, weights=first)
    count = np.bincount(which)
    both = (yes > 0) & (yes < count)
    return set(np.frombuffer(columns.compared, dtype=np.uint64)[both[which]].tolist())


def _show(found: Quality, marks: dict[str, list[int]], records: Iterable[Record]) -> None:
    """Read up to the last example that is wanted."""
    wanted = {i: name for name, which in reversed(marks.items()) for i in which[:EXAMPLES]}
    for i, record in enumerate(islice(records, max(wanted, default=-1) + 1)):
        for name, which in marks.items():
            if i in which[:EXAMPLES]:
                prompt, answers = parts(record)
                said = " → ".join([prompt[-80:], *(text[:60] for text in answers[:2])])
                found.findings[name].examples.append(f"record {i + 1}: {' '.join(said.split())}")


# -------------------------------------------------------------------------------------------------------------- hashes


@lru_cache(maxsize=2**17)
def hashed(word: str) -> int:
    """A word as a number, the same on every machine."""
    return zlib.crc32(word.encode())


def _number(*texts: str) -> int:
    """Texts as one number of 64 bits."""
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest(), "big")


def _mixed(columns: Hashes) -> Hashes:
    """Rows of numbers as one number each."""
    return (columns * WEIGHTS[: columns.shape[1]]).sum(1, dtype=np.uint64)


def windows(texts: Sequence[Sequence[int]], width: int, *, whole: bool = False) -> tuple[Hashes, NDArray[np.int64]]:
    """A number for every run of `width` words of every text, one after the other, and where each text begins.

    A run may reach beyond the end of its text, into blanks, so that short texts have some too; with `whole` those have
    the number 0.
    """
    lengths = np.array([max(len(words), 1) for words in texts])
    flat: list[int] = []
    for words in texts:
        flat += words or [0]
        flat += [0] * (width - 1)
    values = np.array(flat, dtype=np.uint64)
    count = len(values) - width + 1
    mixed = values[:count] * WEIGHTS[0]
    for i in range(1, width):
        mixed += values[i : i + count] * WEIGHTS[i]
    mixed ^= mixed >> np.uint64(29)
    starts = np.concatenate([[0], np.cumsum(lengths + width - 1)[:-1]])
    offset = np.arange(count) - np.repeat(starts, lengths + width - 1)[:count]
    size = np.repeat(lengths, lengths + width - 1)[:count]
    if whole:
        mixed[offset > size - width] = 0
    inside = offset < size
    return mixed[inside], np.concatenate([[0], np.cumsum(lengths)[:-1]])


def signatures(hashes: Hashes, starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The MinHash signature of each text, [texts, permutations]."""
    found = np.empty((len(starts), PERMUTATIONS), dtype=np.uint32)
    for k in range(PERMUTATIONS):
        permuted = ((hashes * FACTORS[k] + SHIFTS[k]) >> np.uint64(32)).astype(np.uint32)
        found[:, k] = np.minimum.reduceat(permuted, starts)
    return found


@dataclass
class Known:
    """What must not come up in the data: prompts, and runs of words."""

    prompts: set[int]
    runs: Hashes

    @classmethod
    def of(cls, sources: Sequence[Iterable[Record]]) -> Known:
        """Of the records of some sources."""
        prompts: set[int] = set()
        runs: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
        for source in sources:
            records = iter(source)
            while chunk := list(islice(records, CHUNK)):
                both = [parts(record) for record in chunk]
                prompts |= {_number(prompt.strip().lower()) for prompt, _ in both}
                words = [[hashed(w) for w in WORD.findall(" ".join([p, *a]).lower())] for p, a in both]
                runs.append(np.unique(windows(words, RUN, whole=True)[0]))
        every = np.unique(np.concatenate(runs))
        return cls(prompts, every[every != 0])

    def rows(self, texts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Which texts share a run of words."""
        hashes, starts = windows(texts, RUN, whole=True)
        place = np.searchsorted(self.runs, hashes).clip(max=len(self.runs) - 1)
        return np.flatnonzero(np.maximum.reduceat(self.runs[place] == hashes, starts))
