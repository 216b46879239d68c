"""How good a reward model is, on comparisons that it has not learned from: by category, best of n, calibration, length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from accord.data.dropped import Dropped
from accord.data.formats import recognise
from accord.data.records import Message, Pair, Ranking, Record, bucket, named
from accord.data.sources import check, columns_of, each_row, raw_rows
from accord.data.turns import BadRow
from accord.estimate import Estimate, mean
from accord.recipe import Source
from accord.stages.reward_quality import Row, calibration, to_json

TIES = "ties"  # the subset of RewardBench 2 whose rows have several right answers
CATEGORIES = ("subset", "category", "section")  # columns that name one
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Answers to one prompt and how good they are: rank 1 is best, equal ranks are ties."""

    prompt: list[Message]
    texts: list[str]
    ranks: list[int]
    cluster: int  # choices that grew from one question share it
    source: str = ""
    category: str = ""
    prob: float = 1.0  # P(the first is better), of a pair
    name: str = ""  # of the row

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """Every two answers that are not tied, the better first."""
        every = combinations(range(len(self.texts)), 2)
        return [(i, j) if self.ranks[i] < self.ranks[j] else (j, i) for i, j in every if self.ranks[i] != self.ranks[j]]

    @property
    def group(self) -> str:
        """The category, or else where the comparison is from."""
        return self.category or self.source


@dataclass(frozen=True)
class Scored:
    """A choice with the reward of each of its answers: as accord combines it, and raw by each member, [M][texts]."""

    choice: Choice
    values: list[float]
    members: list[list[float]] = field(default_factory=list)

    @property
    def hits(self) -> list[float]:
        """Whether each comparison is told right: 1, 0, or 1/2 for equal rewards."""
        return [verdict(self.values[i] - self.values[j]) for i, j in self.choice.comparisons]

    @property
    def best(self) -> float:
        """1 where every answer of rank 1 has a higher reward than every other one, else 0."""
        return float(self.margin > 0)

    @property
    def margin(self) -> float:
        """How far the worst answer of rank 1 is above the best of the others."""
        right, wrong = self.sides()
        return min(right) - max(wrong)

    def sides(self) -> tuple[list[float], list[float]]:
        """The rewards of the answers of rank 1, and those of the others."""
        both = list(zip(self.choice.ranks, self.values, strict=True))
        return [value for rank, value in both if rank == 1], [value for rank, value in both if rank != 1]


def verdict(margin: float) -> float:
    """1, 0, or 1/2 where nothing is preferred."""
    return 0.5 if margin == 0 else float(margin > 0)


# -------------------------------------------------------------------------------------------------------------- reading


def read_choices(source: Source, dropped: Dropped, where: str) -> Iterator[Choice]:
    """The choices of a source: pairs, rankings, and rows in RewardBench 2's form (`chosen` and `rejected` are lists).

    A column `subset`, `category` or `section` names the category.
    """
    check(source, where)
    yield from each_row(islice(raw_rows(source, where), source.limit), source, dropped, read_choice)


def read_choice(row: object, where: str) -> Choice:
    """One row of a source as a choice."""
    if isinstance(row, Record):
        return _of_record(row, where)
    fields = columns_of(row, where)
    category = next((str(fields[name]) for name in CATEGORIES if fields.get(name)), "")
    right, wrong = (_texts(fields.get(name)) for name in ("chosen", "rejected"))
    if not right and not wrong:
        return _of_record(recognise(fields, where), where, category)
    right, wrong = right or _texts([fields.get("chosen")]), wrong or _texts([fields.get("rejected")])
    if not right or not wrong:
        raise BadRow(where, "`chosen` and `rejected` are no lists of texts", "each is a text, or a list of one or more")
    pair = recognise({"prompt": fields.get("prompt"), "chosen": right[0], "rejected": wrong[0]}, where)
    ranks, name = [1] * len(right) + [2] * len(wrong), str(fields.get("id", ""))
    prompt = cast(Pair, pair).prompt
    return Choice(
        prompt, right + wrong, ranks, bucket(pair, 2**60), str(fields.get("source") or ""), category, name=name
    )


def _texts(value: object) -> list[str]:
    """A list of texts; nothing where it is anything else."""
    many = cast(list[object], value) if isinstance(value, list) else []
    return [text for text in many if isinstance(text, str)] if all(isinstance(text, str) for text in many) else []


def _of_record(record: Record, where: str, category: str = "") -> Choice:
    cluster = bucket(record, 2**60)
    if isinstance(record, Pair):
        texts, ranks = [record.chosen, record.rejected], [1, 2]
        return Choice(record.prompt, texts, ranks, cluster, record.source, category, record.prob)
    if isinstance(record, Ranking):
        lowest = min(record.ranks)
        return Choice(
            record.prompt, record.responses, [rank - lowest + 1 for rank in record.ranks], cluster, "", category
        )
    raise BadRow(where, f"{named(record)} compares nothing", "give pairs, rankings, or rows with lists of answers")


def score_choices(
    choices: Iterator[Choice],
    rewards: Callable[[Sequence[Choice]], tuple[list[float], list[list[float]]]],
    *,
    at_once: int,
) -> Iterator[Scored]:
    """Choices with their rewards. `rewards` gives those of all answers of some choices in order: combined, and by member."""
    while chunk := list(islice(choices, at_once)):
        values, members = rewards(chunk)
        start = 0
        for choice in chunk:
            end = start + len(choice.texts)
            yield Scored(choice, values[start:end], [of[start:end] for of in members])
            start = end


# -------------------------------------------------------------------------------------------------------------- numbers


def bench(scored: Sequence[Scored]) -> dict[str, Estimate]:
    """What the rewards show, by name as results.json holds it behind `reward/`; what cannot be measured is absent."""
    plain = [one for one in scored if one.choice.category.lower() != TIES]
    found: dict[str, Estimate | None] = {"accuracy": accuracy(plain)}
    sizes = sorted({len(one.choice.texts) for one in plain if _is_best_of(one)})
    for n in sizes:
        found[f"best_of_{n}"] = best([one for one in plain if _is_best_of(one) and len(one.choice.texts) == n])
    of_groups = groups(plain)
    for name, members in of_groups.items():
        found[f"category/{name}"] = accuracy(members)
        found[f"best/{name}"] = best([one for one in members if _is_best_of(one)])
    tied = ties([one for one in scored if one.choice.category.lower() == TIES])
    found |= tied
    of_best = [value for name, value in found.items() if name.startswith("best/") and value]
    found["categories_mean"] = macro([*of_best, *filter(None, tied.values())])
    return {name: value for name, value in (found | by_length(plain) | agreement(plain)).items() if value}


def _is_best_of(one: Scored) -> bool:
    """Whether a choice has one right answer among three or more."""
    return len(one.choice.texts) > 2 and one.choice.ranks.count(1) == 1


def accuracy(scored: Sequence[Scored]) -> Estimate | None:
    """The share of comparisons whose better answer has the higher reward, equal rewards counting half."""
    hits = [(hit, one.choice.cluster) for one in scored for hit in one.hits]
    return mean([hit for hit, _ in hits], [cluster for _, cluster in hits]) if hits else None


def best(scored: Sequence[Scored]) -> Estimate | None:
    """The share of choices whose best answer is above all others (Malik et al. 2025, section 3, arXiv 2506.01937).

    Strictly above. The authors' code takes the first of the highest, and the right answer stands first, so that rewards that
    are all equal would be right every time; they differ from this where the highest reward is given twice.
    """
    return mean([one.best for one in scored], [one.choice.cluster for one in scored]) if scored else None


def groups(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Choices by category, or else by source, where there are several."""
    found: dict[str, list[Scored]] = {}
    for one in scored:
        found.setdefault(one.choice.group.replace("/", "-"), []).append(one)
    return {name: found[name] for name in sorted(found) if name} if len(found) > 1 else {}


def macro(estimates: Sequence[Estimate]) -> Estimate | None:
    """The unweighted mean over categories, which is RewardBench 2's score; None with fewer than two."""
    if len(estimates) < 2:
        return None
    k = len(estimates)
    stderr = math.sqrt(sum(one.stderr**2 for one in estimates)) / k
    return Estimate(sum(one.value for one in estimates) / k, stderr, sum(one.n for one in estimates))


def ties(scored: Sequence[Scored]) -> dict[str, Estimate | None]:
    """RewardBench 2's subset Ties: questions with many right answers, asked once with all (`id` "tied:7") and once with one
    of them ("ref:7"). Right answers have to be above wrong ones, and closer to each other than to those.

    0.3 (accuracy tied + accuracy ref) + 0.2 (preferred + preferred hard) + 0.01 margin, as process_single_model of
    github.com/allenai/reward-bench (scripts/run_v2.py) has it. Its standard error is a jackknife over questions.
    """
    sides: dict[str, dict[str, Scored]] = {"tied": {}, "ref": {}}
    for one in scored:
        kind, _, question = one.choice.name.partition(":")
        if kind in sides:
            sides[kind][question] = one
    questions = sorted(set(sides["tied"]) | set(sides["ref"]))
    if not set(sides["tied"]) & set(sides["ref"]):
        return {}

    def score(asked: Sequence[str]) -> float:
        return ties_score(*({q: side[q] for q in asked if q in side} for side in (sides["tied"], sides["ref"])))

    without = np.array([score([q for q in questions if q != left]) for left in questions])
    n = len(questions)
    stderr = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())) if n > 2 else math.nan
    return {"ties": Estimate(score(questions), stderr, n)}


def ties_score(tied: Mapping[str, Scored], ref: Mapping[str, Scored]) -> float:
    """The score of `ties` from the rows of either kind, by question."""
    both = sorted(set(tied) & set(ref))
    right = [tied[q].sides()[0] for q in both]
    spread = np.array([max(values) - min(values) for values in right])
    above, hard = np.array([tied[q].margin for q in both]), np.array([ref[q].margin for q in both])
    hard = np.minimum(above, hard)
    with np.errstate(divide="ignore", invalid="ignore"):
        close = np.nan_to_num(np.tanh(hard / spread - 1))
    accurate = [float(np.mean([one.best for one in side.values()])) if side else 0.0 for side in (tied, ref)]
    shared = 0.2 * (above > spread).mean() + 0.2 * (hard > spread).mean() + 0.01 * close.mean() if both else 0.0
    return 0.3 * sum(accurate) + float(shared)


def by_length(scored: Sequence[Scored]) -> dict[str, Estimate | None]:
    """How rewards go with length in words: correlation over all answers, and the accuracy by which answer is the longer."""
    words = [[len(text.split()) for text in one.choice.texts] for one in scored]
    hits: dict[str, list[tuple[float, int]]] = {"accuracy_chosen_longer": [], "accuracy_chosen_shorter": []}
    for one, counts in zip(scored, words, strict=True):
        for hit, (i, j) in zip(one.hits, one.choice.comparisons, strict=True):
            if counts[i] != counts[j]:
                side = "accuracy_chosen_longer" if counts[i] > counts[j] else "accuracy_chosen_shorter"
                hits[side].append((hit, one.choice.cluster))
    clusters = [one.choice.cluster for one in scored for _ in one.choice.texts]
    values = np.array([value for one in scored for value in one.values], dtype=float)
    lengths = np.array([count for counts in words for count in counts], dtype=float)
    found: dict[str, Estimate | None] = {"length_correlation": correlation(values, lengths, clusters)}
    return found | {name: mean([h for h, _ in told], [c for _, c in told]) for name, told in hits.items() if told}


def correlation(x: Floats, y: Floats, clusters: Sequence[int]) -> Estimate | None:
    """Spearman's rank correlation, its standard error from the influence of each observation on Pearson's r of the ranks,
    x y - r (x² + y²) / 2 in standard units (Devlin, Gnanadesikan & Kettenring 1975), summed over clusters."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    a, b = standardised(ranked(x)), standardised(ranked(y))
    r = float((a * b).mean())
    influence = mean((a * b - r * (a**2 + b**2) / 2).tolist(), list(clusters))
    return Estimate(r, influence.stderr if influence else math.nan, len(x))


def ranked(values: Floats) -> Floats:
    """Ranks from 0, those of equal values their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[place]


def standardised(values: Floats) -> Floats:
    """Values with mean 0 and variance 1."""
    return (values - values.mean()) / values.std()


def agreement(scored: Sequence[Scored]) -> dict[str, Estimate | None]:
    """How often two members of an ensemble prefer the same answer, and how right they are where all of them do."""
    size = min((len(one.members) for one in scored), default=0)
    if size < 2:
        return {}
    told: list[tuple[float, float, float, int]] = []  # share of agreeing pairs of members, all agree, right, cluster
    for one in scored:
        for hit, (i, j) in zip(one.hits, one.choice.comparisons, strict=True):
            sides = [verdict(member[i] - member[j]) for member in one.members]
            same = float(np.mean([a == b for a, b in combinations(sides, 2)]))
            told.append((same, float(same == 1), hit, one.choice.cluster))
    clusters = [cluster for *_, cluster in told]
    agreed = [(hit, cluster) for _, unanimous, hit, cluster in told if unanimous]
    each = {
        f"accuracy_member_{k}": accuracy([Scored(one.choice, one.members[k]) for one in scored]) for k in range(size)
    }
    return {
        "agreement": mean([same for same, *_ in told], clusters) if told else None,
        "unanimous": mean([unanimous for _, unanimous, *_ in told], clusters) if told else None,
        "accuracy_unanimous": mean([hit for hit, _ in agreed], [cluster for _, cluster in agreed]) if agreed else None,
    } | each


def calibrated(scored: Sequence[Scored]) -> dict[str, object]:
    """`ece` and `reliability` as `reward_quality.calibration` has them, of the members' mean raw reward, whose differences
    are log-odds where the model was trained by Bradley and Terry's loss."""
    rows = score_rows([Scored(one.choice, np.mean(one.members or [one.values], axis=0).tolist()) for one in scored])
    return calibration(rows) if rows else {}


def score_rows(scored: Sequence[Scored]) -> list[Row]:
    """A row for each comparison, as a reward stage leaves them in scores.jsonl."""
    rows: list[Row] = []
    for one in scored:
        about: dict[str, JsonValue] = {"cluster": one.choice.cluster, "source": one.choice.group}
        prob = {"prob": one.choice.prob} if len(one.choice.texts) == 2 else {}
        rows += [
            {"chosen": one.values[i], "rejected": one.values[j], **prob, **about} for i, j in one.choice.comparisons
        ]
    return rows


def answer_rows(scored: Sequence[Scored], model: str) -> list[dict[str, object]]:
    """A row of answers.jsonl for each choice: the answer that has the highest reward, and all that is needed to recount."""
    rows: list[dict[str, object]] = []
    for one in scored:
        scores = {"accuracy": float(np.mean(one.hits))} if one.hits else {}
        scores |= {f"best_of_{len(one.values)}": one.best} if _is_best_of(one) else {}
        of = one.choice
        rows.append({
            "model": model, "suite": "reward", "prompt": of.prompt, "response": of.texts[int(np.argmax(one.values))],
            "finish": "stop", "sampling": {}, "scores": scores, "why": "", "category": of.group,
            "responses": of.texts, "ranks": of.ranks, "rewards": one.values, "members": one.members,
        })  # fmt: skip
    return rows


def results(found: Mapping[str, Estimate], calibration: Mapping[str, object], model: str) -> dict[str, object]:
    """results.json of one reward model."""
    metrics: dict[str, object] = {f"reward/{name}": to_json(value) for name, value in found.items()}
    metrics |= {"reward/ece": calibration["ece"]} if "ece" in calibration else {}
    return {"baseline": model, "models": {model: metrics}}
