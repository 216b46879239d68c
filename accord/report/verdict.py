"""The verdict on a run in three sentences: whether a model got better, at what price, and what to change next."""

from __future__ import annotations

from dataclasses import dataclass

from accord.report.advice import advise
from accord.report.case import Case, at_start, chosen, open_case
from accord.report.gaps import Gap, gap
from accord.report.read import Run, Stage, judged
from accord.report.results import Trial
from accord.report.values import Measure, Row, measure, number
from accord.report.words import BETTER, NO_BREAK, PARTS, brief, listed, named, show, signed

SAME_LENGTH, SAME_PERPLEXITY = 0.03, 0.02  # relative changes that are called none
FELL = ("gold", *PARTS, "reward", "finished")


@dataclass(frozen=True)
class Verdict:
    """Three sentences; `sure` is 1 for clearly better, -1 for clearly worse, 0 for anything less certain."""

    better: str
    price: str
    advice: str
    sure: int


def verdict(run: Run) -> Verdict:
    """Judge a run by its last comparison, or else by what its training stages measured."""
    case, alone = open_case(run), judged(run)
    if case is None and alone and alone.comparison and len(alone.comparison.models) == 1:
        measured = f"{alone.comparison.models[0]} was measured, and no other model that it could be compared with."
        return Verdict(
            measured, "A price can only be told beside a baseline.", "Next, measure a baseline on the same prompts.", 0
        )
    if case is None:
        stage = next((s for s in reversed(run.stages) if s.metrics or s.result), None)
        return Verdict(_trained(stage), _spent(run, stage), advise(run, None), 0)
    # Colour is for what holds however the models are sampled.
    sure = case.lead.sure if case.lead and len({found.sure for found in case.gaps.values()}) == 1 else 0
    return Verdict(_better(case), _price(case), advise(run, case), sure)


# ------------------------------------------------------------------------------------------------ with a comparison


def _better(case: Case) -> str:
    """Say whether the best trained model beats the baseline, by every way of sampling that was measured."""
    if not case.lead:
        return f"Whether {case.best} is better than {case.baseline} was not measured."
    noises = {_noise(found) for found in case.gaps.values()}
    alike = len(noises) == 1 and len(case.gaps) > 1
    judged = (
        f"{_claim(case, case.lead)}: {_named(case)}{' and '.join(_evidence(case, way, not alike) for way in case.gaps)}"
    )
    if alike and "" not in noises:
        judged += f", {'both' if len(case.gaps) == 2 else 'all'} {noises.pop()} two standard errors"
    wins = case.main.metrics.get("win_rate", {}).get(case.best)
    if wins and case.metric == "reward":
        judged += f", with a win rate of {show('win_rate', wins)}"
    return f"{judged}."


def _claim(case: Case, main: Gap) -> str:
    best, baseline = case.best, case.baseline
    greedy = next((found for way, found in case.gaps.items() if way == "greedy" and found is not main), None)
    if main.stderr is None:
        much = "higher" if main.value > 0 else "no higher"
        return f"{best} has {much} {named(case.metric)} than {baseline}, which without standard errors says little"
    several = len(case.rivals) > 1
    if main.sure < 0:
        return (
            f"No trained model is better than {baseline}, and the best of them, {best}, is worse"
            if several
            else (f"{best} is worse than {baseline}")
        )
    if main.sure > 0:
        split = " when sampled but worse when decoded greedily" if greedy and greedy.sure < 0 else ""
        return f"{best} is better than {baseline}{split}"
    if greedy and greedy.sure:
        sense = "better" if greedy.sure > 0 else "worse"
        return f"{best} is {sense} than {baseline} when decoded greedily and not clearly different when sampled"
    if several:
        return f"No trained model is clearly better than {baseline}, and the best of them is {best}"
    return f"{best} is not clearly better than {baseline}"


def _named(case: Case) -> str:
    return "it wins " if case.metric == "win_rate" else f"{named(case.metric)} "


def _evidence(case: Case, way: str, judged: bool) -> str:
    values, found = case.trials[way].metrics[case.metric], case.gaps[way]
    how = {"sampled": "when sampled", "greedy": "when greedy"}.get(way, way)
    noise = f"{_noise(found)} two standard errors" if judged and _noise(found) else ""
    if case.metric == "win_rate":
        return (
            f"{show('win_rate', values[case.best])} of the comparisons {how}{f' ({noise} from 50 %)' if noise else ''}"
        )
    ours, base = (_rounded(values[name], found) for name in (case.best, case.baseline))
    return f"{ours} against {base} {how} ({signed(case.metric, found.measure)}{f', {noise}' if noise else ''})"


def _noise(found: Gap) -> str:
    return "" if found.stderr is None else "beyond" if found.sure else "within"


def _rounded(value: Measure, found: Gap) -> str:
    """Write a level as exactly as the difference it is read for."""
    return (
        show("", Measure(value.value, found.stderr)).partition("\u00a0")[0] if found.stderr else brief("", value.value)
    )


def _price(case: Case) -> str:
    trial, found = case.main, [_kl(case), _length(case), _perplexity(case), _over_refusal(case)]
    items = [item for item in found if item]
    fell = [
        f"{named(name)} lower by {show(name, Measure(abs(lost.value), lost.stderr))}"
        for name in FELL
        if name not in (case.metric, "over_refusal") and (lost := gap(case.compared, trial, case.best, name))
        if lost.sure * BETTER[name] < 0
    ]
    if not items and not fell:
        return "What that cost was not measured: there is no KL, length or perplexity of both models."
    others = any(
        gap(case.compared, trial, case.best, name) for name in FELL if name not in (case.metric, "over_refusal")
    )
    rest = ", while nothing else that was measured clearly fell" if others and not fell else ""
    return f"The price is {listed([*items, *fell])}{rest}."


def _pair(trial: Trial, case: Case, metric: str) -> tuple[Measure, Measure] | None:
    values = trial.metrics.get(metric, {})
    ours, base = values.get(case.best), values.get(case.baseline)
    return (base, ours) if ours and base else None


def _kl(case: Case) -> str:
    found = case.main.metrics.get("kl", {}).get(case.best)
    return f"{show('kl', found)} nats of KL per answer" if found else ""


def _length(case: Case) -> str:
    pair = _pair(case.main, case, "length")
    if not pair or not pair[0].value:
        return ""
    base, ours = (value.value for value in pair)
    change = ours / base - 1
    if abs(change) < SAME_LENGTH:
        return f"answers as long as before ({brief('', ours)} tokens)"
    way = "longer" if change > 0 else "shorter"
    return f"answers {100 * abs(change):.0f}{NO_BREAK}% {way} ({brief('', base)} to {brief('', ours)} tokens)"


def _perplexity(case: Case) -> str:
    pair = _pair(case.main, case, "perplexity") or _pair(case.trials.get("sampled", case.main), case, "perplexity")
    if not pair or not pair[0].value:
        return ""
    base, ours = (value.value for value in pair)
    change = ours / base - 1
    if abs(change) < SAME_PERPLEXITY:
        return f"perplexity as before ({brief('', ours)})"
    way = "up" if change > 0 else "down"
    return f"perplexity {way} {100 * abs(change):.0f}{NO_BREAK}% ({brief('', base)} to {brief('', ours)})"


def _over_refusal(case: Case) -> str:
    pair = _pair(case.main, case, "over_refusal")
    if not pair:
        return ""
    base, ours = (f"{100 * value.value:.1f}{NO_BREAK}%" for value in pair)
    return f"over-refusal as before ({ours})" if base == ours else f"{ours} over-refusal (from {base})"


# --------------------------------------------------------------------------------------------- without a comparison


def _trained(stage: Stage | None) -> str:
    """Say what the last stage that measured anything shows, and that this does not compare models."""
    if stage is None:
        return "The run has no results yet."
    accuracy = measure(stage.result.get("accuracy"))
    if stage.kind == "reward" and accuracy:
        right = f"the reward model {stage.name} puts {show('accuracy', accuracy)} of held-out pairs in the right order"
        return f"No comparison says yet whether a model got better, but {right}."
    key = "eval/reward" if stage.kind == "policy" else "eval/loss"
    first, last = at_start(stage, key), chosen(stage, key)
    if first is None or last is None or first is last:
        return f"No comparison says yet whether a model got better, and {stage.name} measured nothing held out."
    word = "held-out reward" if stage.kind == "policy" else "held-out loss"
    went = f"the {word} of {stage.name} went from {_of(first, key)} to {_of(last, key)}"
    return f"No comparison says yet whether a model got better, but {went}."


def _of(row: Row, key: str) -> str:
    return show("", Measure(row[key] or 0.0, row.get(f"{key}_stderr")))


def _spent(run: Run, stage: Stage | None) -> str:
    """State the price that training itself knows: KL and length of a policy, perplexity, or time alone."""
    seconds = run.seconds or sum(s.seconds or 0.0 for s in run.stages)
    items = [f"{seconds / 60:.1f} minutes of training" if seconds >= 60 else f"{seconds:.0f} seconds of training"]
    if stage is None or not seconds:
        items = []
    if stage and stage.kind == "policy":
        kl, first, last = chosen(stage, "eval/kl"), at_start(stage, "eval/length"), chosen(stage, "eval/length")
        if kl:
            items.append(f"{brief('', kl['eval/kl'] or 0.0)} nats of KL on held-out prompts")
        if first and last:
            before, after = (number(row.get("eval/length")) for row in (first, last))
            items.append(f"answers of {brief('', after or 0.0)} tokens instead of {brief('', before or 0.0)}")
    if not items:
        return "What it costs is not known yet."
    return f"The price so far is {listed(items)}, and what became of other abilities was not measured."
