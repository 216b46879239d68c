"""AlpacaEval's win rate and its length-controlled win rate, from ready judgements and without the hub.

Dubois et al. 2024 (https://arxiv.org/abs/2404.04475) fit, for each model against a baseline,

    logit P(model wins on x) = theta + phi tanh(d_x / sd(d)) + psi gamma_x,       d_x = len(model's answer) - len(baseline's)

and report the mean of the probability with d_x = 0. Their difficulty gamma_x of an instruction comes from all the models of
their leaderboard and is not to be had for prompts of one's own. Here two things that go with it stand in its place: the log
length of the baseline's answer and that of the instruction. They matter because both lengths and chances depend on the
instruction: without them phi takes what is due to it (docs/evaluation/comparison.md has the figures).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accord.compare.constant import repeated
from accord.compare.logistic import Array, fit, sigmoid
from accord.errors import DataError
from accord.estimate import Estimate, mean

# One file cannot tell the judge's taste for length from the instructions that want long answers, so phi has a prior: mean and
# standard deviation of the published phi of 172 models under AlpacaEval's GPT-4 judge (weights of length_controlled_v1 in
# tatsu-lab/alpaca_eval @ 01f3cb2), without those that docs/evaluation/comparison.md reports on and two that game the judge.
LENGTH_EFFECT = (1.52, 0.33)
# Weakly informative, so that a fit exists where one side wins everything (Gelman et al. 2008, doi 10.1214/08-AOAS191).
LEVEL_SD, SLOPE_SD = 10.0, 2.5


@dataclass(frozen=True)
class Judgement:
    """One judged pair: the chance that the model's answer is the better one, and lengths in characters where known."""

    instruction: str
    preference: float  # in 0 to 1; NaN where the judge said nothing that could be read
    ours: float | None = None
    theirs: float | None = None


def from_annotations(
    rows: Iterable[Mapping[str, object]],
    baselines: Iterable[Mapping[str, object]] = (),
    *,
    length_effect: tuple[float, float] = LENGTH_EFFECT,
) -> dict[str, Estimate]:
    """Shares in 0 to 1 of one model's judgements: `win_rate`, `win`, `tie`, `lose` and, where lengths are known,
    `length_controlled`; `repeated`, where one text answers most of the instructions (accord.compare.constant).

    Rows are AlpacaEval's: `instruction`, `preference` (1 baseline, 2 model, 0 or 1.5 a tie, anything between in version 2,
    none where unparsed), the model's answer in `output_2` or `output`, the baseline's in `output_1` or in the `output` of
    that instruction's row in `baselines`; `length_2` and `length_1` (characters) do without the texts.
    """
    rows = list(rows)
    if len(names := {str(row["generator"]) for row in rows if "generator" in row}) > 1:
        said = f"judgements of {len(names)} models ({', '.join(sorted(names)[:3])}, ...)"
        raise DataError("annotations", said, "a win rate is of one model", "give one file for each model")
    known = {str(row.get("instruction")): row.get("output") for row in baselines}
    found = [judgement(row, known, f"annotations row {i}") for i, row in enumerate(rows, 1)]
    texts = [text for row in rows if isinstance(text := row.get("output_2", row.get("output")), str)]
    constant = repeated(texts, [j.instruction for j in found]) if len(texts) == len(found) else {}
    return rates(found, length_effect=length_effect) | constant


def judgement(row: Mapping[str, object], baselines: Mapping[str, object], where: str) -> Judgement:
    """A row of AlpacaEval's, either version. DataError where it is none."""
    instruction = row.get("instruction")
    if not isinstance(instruction, str):
        raise DataError(where, "no instruction", "rows have instruction, output_2 (or output) and preference")
    ours = _length(row, "length_2", ("output_2", "output"))
    theirs = _length(row, "length_1", ("output_1",))
    if theirs is None and isinstance(text := baselines.get(instruction), str):
        theirs = float(len(text))
    return Judgement(instruction, _preference(row, where), ours, theirs)


def _preference(row: Mapping[str, object], where: str) -> float:
    """The preference of a row as a chance; NaN where there is none."""
    if "preference" not in row:
        raise DataError(where, "no preference", "1 is the baseline, 2 the model, 0 or 1.5 a tie, null not judged")
    said = row["preference"]
    try:
        value = math.nan if said is None or said == "" else float(str(said))
    except ValueError:
        raise DataError(where, f"preference {said!r} is no number", "1 to 2, 0 for a tie, null") from None
    if value == 0:
        return 0.5
    if not (math.isnan(value) or 1 <= value <= 2):
        raise DataError(where, f"preference {value:g} is not in AlpacaEval's form", "1 to 2, 0 for a tie, null")
    return value - 1


def _length(row: Mapping[str, object], count: str, texts: Sequence[str]) -> float | None:
    for name in texts:
        if isinstance(text := row.get(name), str):
            return float(len(text))
    said = row.get(count)
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else None


def rates(
    judged: Sequence[Judgement], *, length_effect: tuple[float, float] = LENGTH_EFFECT,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """Win rate, its parts and the length-controlled win rate of judged pairs; clustered by instruction unless told."""
    groups = [j.instruction for j in judged] if clusters is None else list(clusters)
    values = [j.preference for j in judged]
    parts: dict[str, list[float]] = {"win_rate": values}
    for name, sign in (("win", 1.0), ("tie", 0.0), ("lose", -1.0)):
        parts[name] = [math.nan if math.isnan(v) else float(np.sign(v - 0.5) == sign) for v in values]
    found = {name: estimate for name, each in parts.items() if (estimate := mean(each, groups))}
    controlled = length_controlled(judged, groups, length_effect=length_effect)
    return found | ({"length_controlled": controlled} if controlled else {})


def length_controlled(
    judged: Sequence[Judgement], clusters: Sequence[Hashable], *, length_effect: tuple[float, float] = LENGTH_EFFECT
) -> Estimate | None:
    """The win rate if both answers were equally long; None where no pair has a verdict and both lengths."""
    kept = [
        i for i, j in enumerate(judged)
        if not math.isnan(j.preference) and j.ours is not None and j.theirs is not None
    ]  # fmt: skip
    if not kept:
        return None
    chosen = [judged[i] for i in kept]
    features = design(chosen)
    others = features.shape[1] - 2
    model = fit(
        features, np.array([j.preference for j in chosen]),
        mean=np.array([0.0, length_effect[0], *[0.0] * others]),
        precision=np.array([LEVEL_SD, length_effect[1], *[SLOPE_SD] * others]) ** -2.0,
    )  # fmt: skip
    equal = features.copy()
    equal[:, 1] = 0
    chance = sigmoid(equal @ model.weights)
    gradient = (equal * (chance * (1 - chance))[:, None]).mean(0)
    return Estimate(float(chance.mean()), model.error_of(chance, gradient, [clusters[i] for i in kept]), len(kept))


def design(judged: Sequence[Judgement]) -> Array:
    """[N, 4]: one, tanh of the length difference in its standard deviations, and the two log lengths, standardised."""
    ours, theirs = (np.array([j.ours for j in judged], float), np.array([j.theirs for j in judged], float))
    asked = np.array([len(j.instruction) for j in judged], float)
    difference = ours - theirs
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    # Where all differ by the same, length cannot be told from the model itself.
    longer = np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)
    return np.column_stack(
        [np.ones(len(judged)), longer, _standard(np.log1p(theirs)), _standard(np.log1p(asked))]
    )  # fmt: skip


def _standard(values: Array) -> Array:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros_like(values)
