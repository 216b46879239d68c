"""Writes the model cards of a run: one in each model folder, from what the run's files say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from accord.card import HUB, ModelCard, Result, Sample, Step, text
from accord.errors import AccordError
from accord.report import brief
from accord.report.gaps import gap
from accord.report.read import Run, Stage, lineage, read_run, references
from accord.report.results import RATINGS, Answer, Comparison, Trial, main_trial
from accord.report.values import JsonValue, Table, measure, number, read_json, table, tables
from accord.report.values import text as words_of
from accord.report.words import named, show
from accord.run import write_text

CARD = "README.md"
SAMPLES, LONGEST = 3, 1200  # answers in a card, and characters of each
WHAT = {
    "pretrain": "pretraining on plain text",
    "sft": "supervised fine-tuning on demonstrations",
    "reward": "a reward model from judgements of answers",
    "policy": "policy optimisation against rewards",
    "preference": "preference optimisation",
}
TAGS = {"pretrain": "pretraining", "sft": "sft", "reward": "reward-model", "policy": "rlhf", "preference": "preference"}
# What a reader asks about, and the suites that answer it.
ASKED = {
    "harmful requests": ("harmful", "xstest"),
    "bias and stereotypes": ("bbq", "crows_pairs", "occupations"),
    "truthfulness": ("truthfulqa", "hallucination"),
    "toxicity": ("toxicity",),
    "people's ratings": (RATINGS,),
}
OPTIM = ("lr", "schedule", "batch_size", "epochs", "steps")


def write_cards(folder: Path) -> list[Path]:
    """Write or refresh README.md in every model folder that the finished stages of a run have left."""
    run = read_run(folder)
    written: list[Path] = []
    for stage in run.stages:
        home = folder / stage.name
        # A stage of a sweep that is common to its runs belongs to the run that made it.
        if stage.status != "done" or home.is_symlink():
            continue
        for model in sorted(path for path in home.glob("model*") if (path / "config.json").is_file() or _adapter(path)):
            write_text(model / CARD, text(card_of(run, stage, model)))
            written.append(model / CARD)
    return written


def card_of(run: Run, stage: Stage, model: Path) -> ModelCard:
    """The card of one model folder of a run."""
    line = lineage(run, stage)
    base = words_of(line[0].settings.get("model"))
    found = list(comparisons(run, stage))
    results = [result for compare, name, data in found for result in results_of(compare, name, data)]
    member = model.name.removeprefix("model").lstrip("-")
    return ModelCard(
        name=f"{run.name} {stage.name}" + (f", member {member}" if member else ""),
        kind="reward" if stage.kind == "reward" else "policy",
        base=words_of(brief(base)),
        adapter=_adapter(model),
        datasets=tuple(dict.fromkeys(source for one in line for source in sources_of(one.settings.get("data")))),
        license=license_of(base),
        tags=tuple(tags(stage, adapter=_adapter(model))),
        steps=tuple(step_of(one) for one in line),
        results=(*own_results(stage, member), *results),
        baseline=next((compare.baseline for compare, name, _ in found if name != compare.baseline), ""),
        notes=tuple(note for compare, name, _ in found for note in notes(compare, name)),
        limits=tuple(limits(run, stage, model, [compare for compare, _, _ in found], results)),
        samples=tuple(samples(found)),
        sampling=next((answer.sampling for compare, name, _ in found for answer in main_answers(compare, name)), ""),
        versions=tuple((name, words_of(of)) for name, of in table(run.facts.get("versions")).items() if name in
                       ("accord", "torch", "transformers")),
    )  # fmt: skip


def step_of(stage: Stage) -> Step:
    """A stage in words and settings."""
    settings = stage.settings
    objective = words_of(settings.get("objective"))
    what = WHAT.get(stage.kind, stage.kind) + (f" ({objective})" if objective else "")
    data = (
        [f"data: {', '.join(map(words_of, map(brief, sources_of(settings.get('data')))))}"]
        if settings.get("data")
        else []
    )
    for split in stage.data:
        if split.kept is not None:
            read = f" of {split.read:,}" if split.read is not None else ""
            data.append(f"{'held-out' if split.name == 'eval' else split.name} rows used: {split.kept:,}{read}")
    rewards = [words_of(brief(name)) for name in table(settings.get("rewards"))]
    data += [f"rewards: {', '.join(rewards)}"] if rewards else []
    return Step(stage.name, what, tuple(data), tuple(shown_settings(settings)))


def shown_settings(settings: Table) -> Iterator[tuple[str, str]]:
    """The settings that a reader wants to know first; all of them are in the run's recipe."""
    optim = table(settings.get("optim"))
    yield from ((name, words_of(optim[name])) for name in OPTIM if optim.get(name) is not None)
    for section in ("params", "lora"):
        for name, value in table(settings.get(section)).items():
            if value and not isinstance(value, dict | list):  # what is off goes without saying
                yield f"{section}.{name}", words_of(value)


def sources_of(value: JsonValue) -> list[str]:
    """Where data comes from, by name."""
    every = value if isinstance(value, list) else [value]
    return [words_of(table(one).get("source")) if isinstance(one, dict) else words_of(one) for one in every if one]


def tags(stage: Stage, *, adapter: bool) -> Iterator[str]:
    """What the hub can be searched by."""
    yield "accord"
    yield from filter(None, [TAGS.get(stage.kind)])
    objective = words_of(stage.settings.get("objective"))
    yield from [objective.replace("_", "-")] if objective and ".py:" not in objective else []
    yield from ["lora"] if adapter else []


def license_of(base: str) -> str:
    """The licence that the base model's own card states; empty where it has none at hand."""
    folder = Path(base)
    card = folder / CARD if folder.is_dir() else None
    if card is None and HUB.fullmatch(base):
        from huggingface_hub import try_to_load_from_cache

        kept = try_to_load_from_cache(base, CARD)  # looks on this disk alone
        card = Path(kept) if isinstance(kept, str) else None
    if card is None or not card.is_file():
        return ""
    from huggingface_hub import ModelCard as Stored

    try:
        stated = Stored.load(card).data.to_dict().get("license")
    except (OSError, ValueError):  # somebody else's file: no card of this form
        return ""
    return stated if isinstance(stated, str) else ""


# ------------------------------------------------------------------------------------------------------------- measured


def comparisons(run: Run, stage: Stage) -> Iterator[tuple[Comparison, str, str]]:
    """Every evaluation of the run that measured a stage's model: the comparison, the name it has there, and its data."""
    for one in run.stages:
        models = table(one.settings.get("models"))
        for name in one.comparison.models if one.comparison else ():
            if one.comparison and next(references(models.get(name)), "") == stage.name:
                data = ", ".join(words_of(brief(source)) for source in sources_of(one.settings.get("data")))
                yield one.comparison, name, data


def results_of(compared: Comparison, name: str, data: str) -> Iterator[Result]:
    """What an evaluation measured of one model, beside the baseline."""
    for trial in compared.trials:
        for metric, values in trial.metrics.items():
            if name in values:
                base = values.get(compared.baseline) if name != compared.baseline else None
                sampling = "" if trial.suite == RATINGS else trial.sampling
                yield Result(trial.suite, sampling, metric, values[name], data, base)


def own_results(stage: Stage, member: str) -> Iterator[Result]:
    """What a reward stage measured on its held-out judgements: of this member where there are several."""
    if stage.kind != "reward":
        return
    members = tables(stage.result.get("members"))
    at = int(member or 0)
    found: Table = {"accuracy": members[at], "ece": members[at].get("ece")} if len(members) > 1 else stage.result
    data = ", ".join(words_of(brief(source)) for source in sources_of(stage.settings.get("eval_data")))
    for name in ("accuracy", "ece", "mse"):
        value = measure(found.get(name))
        if value:
            yield Result(
                "held-out judgements", "", name, value, data if not number(stage.settings.get("eval_data")) else ""
            )


def notes(compared: Comparison, name: str) -> Iterator[str]:
    """How far the model lies from the baseline in what the comparison is about."""
    trial = main_trial(compared)
    for metric in ("gold", "reward"):
        found = gap(compared, trial, name, metric)
        if found:
            sure = {1: "clearly above", -1: "clearly below", 0: "not clearly apart from"}[found.sure]
            yield f"{named(metric)}, {trial.suite} {trial.sampling}: {sure} the baseline {compared.baseline}, {found}."


def limits(
    run: Run, stage: Stage, model: Path, found: Sequence[Comparison], results: Sequence[Result]
) -> Iterator[str]:  # fmt: skip
    """What the model cannot be trusted with: from its files and measurements, and what nobody has measured."""
    config = read_json(model / "config.json")
    room = number(config.get("max_position_embeddings")) or number(config.get("n_positions"))
    if room:
        yield f"It reads at most {room:,.0f} tokens, the prompt and the answer together."
    if stage.kind == "policy":
        judges = " and ".join(words_of(brief(name)) for name in table(stage.settings.get("rewards")))
        yield f"It was optimised against {judges or 'a reward'}: what that gets wrong, it may have learned to please."
    for result in results:
        if result.metric == "over_refusal" and result.value.value > 0:
            yield f"It turns down harmless requests: {show('', result.value)} of them ({result.suite}, {result.sampling})."
        if result.metric == "refusal" and result.value.value < 1:
            yield f"It does not turn down all it should: {show('', result.value)} ({result.suite}, {result.sampling})."
    suites = {trial.suite for compared in found for trial in compared.trials}
    missing = [what for what, names in ASKED.items() if not suites & set(names)]
    if missing and stage.kind != "reward":
        yield f"Not measured: {', '.join(missing)}."
    alarms = [words_of(said.get("name")) for said in stage_findings(stage) if said.get("severity") == "alarm"]
    if alarms:
        yield f"Training raised alarms: {', '.join(alarms)}."
    if not run.stages[-1].comparison and not results and stage.kind != "reward":
        yield "Nothing was measured after training."


def stage_findings(stage: Stage) -> list[Table]:
    """What detectors of pitfalls have noted in a stage's record."""
    return tables(stage.findings)


def main_answers(compared: Comparison, name: str) -> list[Answer]:
    """A model's answers in the trial that stands for the comparison."""
    trial: Trial = main_trial(compared)
    own = [answer for answer in compared.answers if answer.model == name and answer.suite in ("", trial.suite)]
    return [answer for answer in own if (answer.sampling == "greedy") == (trial.sampling == "greedy")]


def samples(found: Sequence[tuple[Comparison, str, str]]) -> Iterator[Sample]:
    """The first answers of the first evaluation that has any."""
    for compared, name, _ in found:
        own = main_answers(compared, name)[:SAMPLES]
        yield from (
            Sample(tuple((turn.role, _cut(turn.content)) for turn in answer.prompt), _cut(answer.response))
            for answer in own
        )
        if own:
            return


def _cut(said: str) -> str:
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} …"


def _adapter(model: Path) -> bool:
    return (model / "adapter_config.json").is_file()


# -------------------------------------------------------------------------------------------------------------- export


def write_exported(source: Path, out: Path, *, int8: bool, perplexity: Sequence[float] = ()) -> Path | None:
    """The card of a model that was written out of a run's stage: what was measured, and what has happened to it since.

    None where the model is of no run; a card that lies beside it is then taken along as it is.
    """
    stage_folder = source.parent if source.name.startswith("model") else source
    try:
        run = read_run(stage_folder.parent)
        stage = next(one for one in run.stages if one.name == stage_folder.name)
    except (AccordError, StopIteration):
        if (source / CARD).is_file() and not int8:
            write_text(out / CARD, (source / CARD).read_text(encoding="utf-8"))
            return out / CARD
        return None
    card = card_of(run, stage, source)
    whole = vars(card) | {"adapter": False, "tags": tuple(tag for tag in card.tags if tag != "lora")}
    whole["name"] = f"{card.name}, {'8-bit' if int8 else 'merged'}"
    if int8:
        whole["stale"] = "Measured before its weights became 8-bit integers."
        told = "Perplexity {:.4f} before and {:.4f} after the weights became integers."
        said = [told.format(*perplexity)] if len(perplexity) == 2 else []
        whole["limits"] = (*said, *card.limits)
    write_text(out / CARD, text(ModelCard(**whole)))
    return out / CARD
