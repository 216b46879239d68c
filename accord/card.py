"""Model cards: README.md of a model folder, as the Hugging Face hub reads it, from what was measured and nothing else.

Front matter with model-index: https://huggingface.co/docs/hub/model-cards. What is not known or was not measured is absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accord.report.values import Measure
from accord.report.words import listed, named, show

HUB = re.compile(r"[\w.-]+/[\w.-]+")  # an id that the hub knows; folders and embedded names are none
FENCE = "```"
LOAD = {
    ("policy", False): """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = AutoModelForCausalLM.from_pretrained("MODEL")
chat = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))""",
    ("policy", True): """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = AutoPeftModelForCausalLM.from_pretrained("MODEL")  # the base and the adapter on it""",
    ("reward", False): """from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = AutoModelForSequenceClassification.from_pretrained("MODEL")
chat = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]
inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
reward = model(**inputs).logits[0, 0]  # raw: (reward - reward_mean) / reward_std of config.json is what accord uses""",
    ("reward", True): """from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = AutoPeftModelForSequenceClassification.from_pretrained("MODEL", num_labels=1)""",
}


@dataclass(frozen=True)
class Result:
    """A number that was measured of the model, and of the baseline that it is held against."""

    suite: str
    sampling: str  # "sampled", "greedy", or empty where nothing is sampled
    metric: str
    value: Measure
    dataset: str  # where the prompts come from
    baseline: Measure | None = None


@dataclass(frozen=True)
class Step:
    """A stage of the training, in order: what it did, on how many rows of what, with which settings."""

    name: str
    what: str
    data: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sample:
    """A prompt and the model's answer."""

    prompt: tuple[tuple[str, str], ...]  # role, content
    response: str


@dataclass(frozen=True)
class ModelCard:
    """All that a card says."""

    name: str
    kind: str  # "policy" or "reward"
    base: str  # the model that the first step began from
    adapter: bool = False
    datasets: tuple[str, ...] = ()
    license: str = ""
    tags: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    results: tuple[Result, ...] = ()
    baseline: str = ""
    notes: tuple[str, ...] = ()  # on the results
    limits: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    sampling: str = ""  # of the samples
    versions: tuple[tuple[str, str], ...] = ()
    stale: str = ""  # why the results are of other weights than those in the folder; they are then not in the metadata


def text(card: ModelCard) -> str:
    """README.md: front matter, then the card in words."""
    return f"---\n{front_matter(card)}\n---\n\n" + "\n".join(_body(card)) + "\n"


def front_matter(card: ModelCard) -> str:
    """The metadata in YAML, without the lines that fence it."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "text-generation" if card.kind == "policy" else "text-classification"
    results = [
        EvalResult(
            task_type=task, dataset_type=result.dataset or result.suite, dataset_name=_place(result),
            dataset_config=_place(result),  # results of one data set are told apart by it, not by their name
            metric_type=result.metric, metric_name=named(result.metric), metric_value=_round(result.value.value),
            metric_args=_error(result.value),
        )
        for result in card.results
    ]  # fmt: skip
    data = ModelCardData(
        base_model=card.base if HUB.fullmatch(card.base) else None,
        datasets=[name for name in card.datasets if HUB.fullmatch(name)] or None,
        license=card.license or None,
        library_name="peft" if card.adapter else "transformers",
        pipeline_tag=task,
        tags=list(card.tags) or None,
        model_name=card.name,
        eval_results=None if card.stale or not results else results,
    )
    return data.to_yaml().strip()


def _error(value: Measure) -> dict[str, float] | None:
    found = {"stderr": None if value.stderr is None else _round(value.stderr), "n": value.n}
    return {name: number for name, number in found.items() if number is not None} or None


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def _place(result: Result) -> str:
    return f"{result.suite}, {result.sampling}" if result.sampling else result.suite


# ---------------------------------------------------------------------------------------------------------------- words


def _body(card: ModelCard) -> Iterator[str]:
    yield f"# {card.name}\n"
    what = "A language model" if card.kind == "policy" else "A reward model: a language model with a scalar head"
    made = f", as an adapter on `{card.base}`" if card.adapter else f", from `{card.base}`" if card.base else ""
    yield f"{what}, trained with accord{made}. Made from the files of its run; what is not here was not measured.\n"
    yield "## How to load it\n"
    folder = "this folder or its id on the hub"
    yield f"{FENCE}python\n# MODEL: {folder}\n{LOAD[card.kind, card.adapter]}\n{FENCE}\n"
    if card.steps:
        yield "## Training\n"
        yield from _steps(card.steps)
    yield "## Results\n"
    yield from _results(card)
    if card.samples:
        yield "## Samples\n"
        how = f" ({card.sampling})" if card.sampling else ""
        yield f"The first prompts of the evaluation and the answers to them{how}, not selected.\n"
        for sample in card.samples:
            yield from _sample(sample)
    yield "## Limits\n"
    yield from (f"- {line}" for line in card.limits)
    if card.versions:
        yield f"\nMade with {listed([f'{name} {version}' for name, version in card.versions])}."


def _steps(steps: Sequence[Step]) -> Iterator[str]:
    for at, step in enumerate(steps, 1):
        yield f"{at}. **{_plain(step.name)}**: {_plain(step.what)}"
        for line in step.data:
            yield f"   - {_plain(line)}"
        if step.settings:
            yield f"   - {', '.join(f'`{name} = {value}`' for name, value in step.settings)}"
    yield ""


def _results(card: ModelCard) -> Iterator[str]:
    if not card.results:
        yield "No evaluation measured this model.\n"
        return
    if card.stale:
        yield f"{card.stale}\n"
    other = any(result.baseline for result in card.results)
    for place in dict.fromkeys((result.suite, result.sampling, result.dataset) for result in card.results):
        rows = [result for result in card.results if (result.suite, result.sampling, result.dataset) == place]
        yield f"**{_plain(_place(rows[0]))}**{f', prompts: `{rows[0].dataset}`' if rows[0].dataset else ''}\n"
        yield "| metric | value |" + (f" {_plain(card.baseline)} (baseline) |" if other else "") + " n |"
        yield "| --- | --- |" + (" --- |" if other else "") + " --- |"
        for row in rows:
            base = f" {show(row.metric, row.baseline) if row.baseline else ''} |" if other else ""
            yield f"| {_plain(named(row.metric))} | {show(row.metric, row.value)} |{base} {row.value.n or ''} |"
        yield ""
    yield "± is one standard error, clustered by the question that a prompt grew from.\n"
    yield from (f"- {_plain(note)}" for note in card.notes)
    if card.notes:
        yield ""


def _sample(sample: Sample) -> Iterator[str]:
    turns = "\n".join(f"{role or 'prompt'}: {content}" for role, content in sample.prompt)
    said = f"{turns}\nassistant: {sample.response or '(empty answer)'}"
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", said)), 3)
    yield f"{fence}text\n{said}\n{fence}\n"


def _plain(words: str) -> str:
    """Words that Markdown takes as they are, on one line of a table."""
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", " ".join(words.split()))
