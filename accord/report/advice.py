"""What to change next: plain rules over a run's numbers, the most pressing first; one of them speaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from accord.estimate import CLEAR
from accord.report.case import Case, at_start, chosen, kl_budget, maker, rewards_of, series_of, setting
from accord.report.comparison import hacked
from accord.report.gaps import Gap, gap
from accord.report.overoptimisation import fit_gold
from accord.report.pitfalls import findings
from accord.report.read import Run, Stage
from accord.report.values import Measure, measure, number, table
from accord.report.words import NO_BREAK, PARTS, brief, listed, named, show, signed

REFUSED, OVER_REFUSED = 0.8, 0.1  # fewer refusals of unsafe requests, or more of harmless ones, are a fault
CHANCE, NEAR = 0.5, 0.55  # accuracy of a coin, and what is hardly more
ROOM = 0.05  # accuracy, or a part of gold, that is worth going after


def advise(run: Run, case: Case | None) -> str:
    """Give the first advice that a rule has, as one sentence."""
    broken = _unfinished(run)
    if broken or case is None:
        return broken or _compare(run)
    found = (rule(run, case) for rule in RULES)
    return next((text for text in found if text), _next_gain(run, case))


def _unfinished(run: Run) -> str:
    for stage in run.stages:
        if stage.status == "failed":
            return f"Next, mend what made {stage.name} fail and run the recipe again, which goes on where it stopped."
        if stage.status in ("interrupted", "running"):
            return f"Next, let {stage.name} finish: the same command goes on where it stopped."
    return ""


def _compare(run: Run) -> str:
    made = [stage.name for stage in run.stages if stage.kind in ("pretrain", "sft", "policy", "preference")]
    if any(stage.kind == "evaluate" for stage in run.stages):
        return "Next, run the evaluate stage, since training curves do not tell whether answers got better."
    which = f" of {listed(made)}" if len(made) > 1 else ""
    why = "training curves do not tell whether answers got better"
    return f"Next, add an evaluate stage with a comparison{which}, since {why}."


# ------------------------------------------------------------------------------------------------ what went wrong


def _hacking(run: Run, case: Case) -> str:
    """Reward rose and gold did not: the proxy is worth less than the pressure put on it."""
    order = [case.best, *(name for name in case.rivals if name != case.best)]
    for model in order:
        trial = next((t for t in case.trials.values() if hacked(case.compared, t, model)), None)
        reward, gold = (gap(case.compared, trial, model, m) if trial else None for m in ("reward", "gold"))
        if not trial or not reward or not gold:
            continue
        fell = f"gold {'fell' if gold.sure < 0 else 'did not rise'} ({_by(gold)})"
        cause = f"{model}'s reward rose ({_by(reward)}) while its {fell}"
        made = maker(run, case.stage, model)
        return f"Next, {_rein(made)} and {_labels(run, made)}, because {cause}{_peak(case)}."
    return ""


def _over_budget(run: Run, case: Case) -> str:
    made, kl = case.made, case.main.metrics.get("kl", {}).get(case.best)
    budget = kl_budget(made) if made else None
    if not made or not kl or budget is None or not _over(kl, budget):
        return ""
    far = f"{case.best} lies {show('kl', kl)} nats from {case.baseline}"
    return f"Next, {_rein(made)}, because {far}, over the budget of {budget:g}."


def _greedy_lost(run: Run, case: Case) -> str:
    lost = case.gaps.get("greedy")
    if not lost or lost.sure >= 0:
        return ""
    return (
        f"Next, {_rein(case.made)} or keep an earlier checkpoint, because decoded greedily {case.best} has lost "
        f"{named(case.metric)} ({_by(lost)})."
    )


def _refusals(run: Run, case: Case) -> str:
    ours = case.main.metrics.get("refusal", {}).get(case.best)
    lost = gap(case.compared, case.main, case.best, "refusal")
    if ours and (_under(ours, REFUSED) or (lost and lost.sure < 0)):
        share = f"{case.best} refuses {100 * ours.value:.0f}{NO_BREAK}% of the requests that it should refuse"
        return f"Next, add demonstrations and comparisons of refusals, because {share}."
    over = case.main.metrics.get("over_refusal", {}).get(case.best)
    more = gap(case.compared, case.main, case.best, "over_refusal")
    if over and (_over(over, OVER_REFUSED) or (more and more.sure > 0)):
        share = f"{case.best} refuses {100 * over.value:.0f}{NO_BREAK}% of the harmless requests"
        return f"Next, add harmless requests that look unsafe to the demonstrations and comparisons, because {share}."
    return ""


def _pitfall(run: Run, case: Case) -> str:
    """What a detector has seen while the best model was trained."""
    found = findings(run, case.made) if case.made else []
    return f"Next, {found[0].advice}, because in {case.made.name} {found[0].evidence}." if case.made and found else ""


def _weak_reward(run: Run, case: Case) -> str:
    for stage in rewards_of(run, case.made) if case.made else ():
        accuracy = _accuracy(stage)
        if accuracy and (accuracy.value < NEAR or _unsure(accuracy)):
            right = f"{stage.name} puts only {show('accuracy', accuracy)} of held-out pairs in the right order"
            return f"Next, collect more labels for the reward model, because {right}, where chance is 50 %."
    return ""


def _lost_part(run: Run, case: Case) -> str:
    """A part of gold that the gain was paid with."""
    for part in PARTS[:3]:
        lost = gap(case.compared, case.main, case.best, part)
        if lost and lost.sure < 0:
            why = f"{named(part)} fell ({_by(lost)})"
            return f"Next, collect comparisons whose answers differ in {named(part)}, or {_rein(case.made)}, because {why}."
    return ""


def _no_gain(run: Run, case: Case) -> str:
    """The best model is worse, or its gain is within noise: more pressure, or more prompts to see it by."""
    found, made = case.lead, case.made
    if not found:
        return f"Next, score the answers of {case.best} and {case.baseline}, by gold or by a reward model new to both."
    if found.stderr is None:
        return "Next, compare on more prompts, because without standard errors no difference can be believed."
    if found.sure > 0:
        return ""
    if found.sure < 0:
        fell = f"{named(case.metric)} fell with no other cause in sight"
        return f"Next, {_rein(made)} and lower the learning rate, because {fell}."
    kl = case.main.metrics.get("kl", {}).get(case.best)
    if kl and kl.value < 0.5:
        return f"Next, train longer or {_loosen(made)}, because {case.best} has hardly moved ({show('kl', kl)} nats)."
    n = case.main.metrics[case.metric][case.best].n
    if n and found.value > 0:
        # The error shrinks with the root of the number of prompts.
        need = math.ceil(n * (CLEAR * found.stderr / found.value) ** 2 / 10) * 10
        if need <= 20 * n:
            return f"Next, compare on about {need:,} prompts instead of {n:,}, because the gain is within its noise."
    return f"Next, train longer or {_loosen(made)}, because there is no gain that the comparison could see."


RULES: tuple[Callable[[Run, Case], str], ...] = (
    _hacking, _over_budget, _greedy_lost, _refusals, _pitfall, _weak_reward, _lost_part, _no_gain,
)  # fmt: skip


# ------------------------------------------------------------------------------------- nothing wrong: the next gain


def _next_gain(run: Run, case: Case) -> str:
    return next(_gains(run, case), "Nothing that was measured went wrong, so repeat the run with another seed next.")


def _gains(run: Run, case: Case) -> Iterator[str]:
    fine = "Nothing that was measured went wrong"
    made = case.made
    if made and made.kind == "policy" and _rising(made):
        yield f"{fine}, and the held-out reward of {made.name} still rose at its last step, so give it more steps next."
    for stage in rewards_of(run, made) if made else ():
        accuracy, ceiling = _accuracy(stage), measure(stage.result.get("ceiling"))
        if accuracy and ceiling and ceiling.value - accuracy.value > ROOM:
            right, most = brief("accuracy", accuracy.value), brief("ceiling", ceiling.value)
            room = f"{stage.name} puts {right} of pairs in the right order where {most} can be reached"
            yield f"{fine}, and the most to gain is in the reward model: {room}, so collect more labels next."
    rooms = {part: room for part in PARTS if (room := _room(case, part)) is not None}
    part = max(rooms, key=lambda name: rooms[name], default="")
    if part and rooms[part] > ROOM:
        level = brief("", case.main.metrics[part][case.best].value)
        room = f"the largest room is in {named(part)} ({level})"
        yield f"{fine}, and {room}, so collect comparisons whose answers differ in that next."
    if case.metric != "gold":
        yield f"{fine}, but nothing measured the truth, so let people or an exact judge compare a sample of the answers next."


def _rising(stage: Stage) -> bool:
    """Whether the chosen checkpoint is the last, with room in the KL budget."""
    rows, row = series_of(stage, "eval/reward"), chosen(stage, "eval/reward")
    first, budget = at_start(stage, "eval/reward"), kl_budget(stage)
    if not row or row is not rows[-1] or row is first:
        return False
    return budget is None or (row.get("eval/kl") or 0.0) < 0.8 * budget


def _room(case: Case, part: str) -> float | None:
    found = case.main.metrics.get(part, {}).get(case.best)
    if not found:
        return None
    return found.value if part == "over_refusal" else 1 - found.value


# ----------------------------------------------------------------------------------------------------------- words


def _by(found: Gap) -> str:
    return signed("", found.measure)


def _rein(stage: Stage | None) -> str:
    """How this kind of training is held closer to where it started."""
    name = _held_by(stage)
    if not stage or not name:
        return "train for fewer epochs" if stage and stage.kind == "sft" else "train less"
    now = setting(stage, name)
    return f"raise {name} in {stage.name}" + ("" if now is None else f" (now {now:g})")


def _loosen(stage: Stage | None) -> str:
    name = _held_by(stage)
    return f"lower {name}" if name else "raise the learning rate"


def _held_by(stage: Stage | None) -> str | None:
    """The parameter that holds what a stage trains to its reference, if it has one."""
    if not stage or stage.settings.get("objective") in ("simpo", "orpo"):
        return None
    free = table(stage.settings.get("params")).get("reference_free")
    return None if free else {"policy": "kl", "preference": "beta"}.get(stage.kind)


def _labels(run: Run, made: Stage | None) -> str:
    if not made or made.kind != "policy":
        return "collect more labels"
    members = [number(stage.settings.get("ensemble")) or 1 for stage in rewards_of(run, made)]
    if members and max(members) > 1:
        return "train the reward model on more labels"
    return "train the reward model on more labels or as an ensemble"


def _peak(case: Case) -> str:
    """Where the fits put the end of the gains."""
    for series in case.stage.series:
        fit = fit_gold(series) if series.kind == "rl" else None
        if fit and fit.peak is not None and fit.inside:
            return f"; in {series.name}, gold peaks near {brief('', fit.peak**2)} nats"
    return ""


def _accuracy(stage: Stage) -> Measure | None:
    return measure(stage.result.get("accuracy")) or measure(stage.result.get("folds"))


def _unsure(accuracy: Measure) -> bool:
    return accuracy.stderr is not None and accuracy.value - CLEAR * accuracy.stderr <= CHANCE


def _under(found: Measure, bar: float) -> bool:
    return found.value + CLEAR * (found.stderr or 0.0) < bar


def _over(found: Measure, bar: float) -> bool:
    return found.value - CLEAR * (found.stderr or 0.0) > bar
