"""Writes a run folder's report: one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import jinja2
from markupsafe import Markup

from accord.report.figures import MINUS, Drawing, draw, label, main_sampling, tone
from accord.report.read import (
    Answer,
    Comparison,
    JsonValue,
    Measure,
    Message,
    Run,
    Stage,
    Table,
    measure,
    number,
    read_run,
)

__all__ = ["write_report"]

PROMPTS = 12  # cards of answers side by side
ORDER = ("reward", "win_rate", "kl", "perplexity", "length", "finished")
BETTER = {"reward": 1, "win_rate": 1, "accuracy": 1, "finished": 1, "perplexity": -1, "loss": -1}
PERCENT = {"win_rate", "finished", "accuracy", "folds"}
CLEAR = 2.0  # standard errors from the baseline that count as a difference
LAST = ("eval/loss", "eval/perplexity", "eval/accuracy", "eval/margin")
TITLES = {
    "pretrain": "Pretraining",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "policy": "Policy optimisation",
    "preference": "Preference optimisation",
    "evaluate": "Comparison",
}
RESULTS = {"folds": "cross-validated accuracy", "step": "chosen step", "kl_budget": "KL budget"}


@dataclass(frozen=True)
class Tile:
    """One number that sums a stage up."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Cell:
    """One entry of the comparison table."""

    text: str
    best: bool
    n: int | None


@dataclass(frozen=True)
class Board:
    """The comparison table of one set of prompts."""

    title: str
    metrics: tuple[str, ...]
    sizes: tuple[int | None, ...]  # answers behind a column, where its models agree
    rows: dict[str, tuple[Cell | None, ...]]


@dataclass(frozen=True)
class Card:
    """One prompt with every model's answers to it, the main sampling first."""

    prompt: tuple[Message, ...]
    answers: dict[str, tuple[Answer, ...]]
    top: float | None


@dataclass(frozen=True)
class Section:
    """A stage as the page shows it."""

    stage: Stage
    anchor: str
    title: str
    uses: tuple[str, ...]
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    boards: tuple[Board, ...]
    cards: tuple[Card, ...]
    colours: dict[str, str]


def write_report(folder: Path) -> Path:
    """Write `<folder>/report.html` and return its path; an old report stays until the new is whole."""
    page = _render(read_run(folder)).encode("utf-8", "replace")
    target, part = folder / "report.html", folder / f".report.html.{os.getpid()}"
    try:
        part.write_bytes(page)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _render(run: Run) -> str:
    sections = [_section(stage, at) for at, stage in enumerate(run.stages, start=1)]
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters.update(duration=_duration, flat=_flat, metric=_metric_title, svg=Markup)
    page = env.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    compared = [s for s in sections if s.stage.comparison and s.stage.comparison.models]
    verdict = _verdict(compared[-1].stage.comparison) if compared else None
    return page.render(run=run, sections=sections, verdict=verdict, compared=compared)


def _section(stage: Stage, at: int) -> Section:
    compared = stage.comparison
    return Section(
        stage=stage,
        anchor=f"stage-{at}",
        title=TITLES.get(stage.kind, stage.kind),
        uses=tuple(dict.fromkeys(_references(stage.settings))),
        tiles=tuple(_tiles(stage)),
        notes=tuple(text for text in stage.result.values() if isinstance(text, str)),
        drawings=draw(stage, f"s{at}"),
        boards=tuple(_boards(compared)) if compared else (),
        cards=tuple(_cards(compared)) if compared else (),
        colours={name: tone(at) for at, name in enumerate(compared.models)} if compared else {},
    )


def _references(value: JsonValue) -> Iterator[str]:
    """Find the earlier stages (`@name`) that a stage's settings speak of."""
    if isinstance(value, str) and value.startswith("@"):
        yield value[1:]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _references(key)
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _tiles(stage: Stage) -> Iterator[Tile]:
    for name, value in stage.result.items():
        found = None if isinstance(value, str) else measure(value)
        # The objective's only term is the loss once more.
        repeats = name != "loss" and value == stage.result.get("loss")
        if found and not repeats and not name.endswith("_stderr"):
            error = found.stderr or number(stage.result.get(f"{name}_stderr"))
            detail = f"n = {found.n:,}" if found.n else ""
            words = RESULTS.get(name) or label(f"eval/{name}")
            yield Tile(words, _show(name, Measure(found.value, error)), detail)
    # An ensemble's last row is one member's, so a reward stage has no value of its own here.
    for key in LAST if stage.kind in ("pretrain", "sft", "preference") else ():
        values = [row[key] for row in stage.metrics if key in row]
        if values and values[-1] is not None and key.removeprefix("eval/") not in stage.result:
            yield Tile(label(key), _show(key, Measure(values[-1])), "at the last evaluation")
    speeds = [row.get("tokens_per_second") for row in stage.metrics]
    if measured := [speed for speed in speeds if speed is not None]:
        yield Tile("tokens per second", f"{median(measured):,.0f}", "median")


def _boards(compared: Comparison) -> Iterator[Board]:
    """Make one table for each set of prompts and way of sampling."""
    keys = dict.fromkeys(key for found in compared.models.values() for key in found)
    names = [compared.baseline, *compared.models]
    models = [name for name in dict.fromkeys(names) if name in compared.models]
    for group in dict.fromkeys(key.rpartition("/")[0] for key in keys):
        metrics = [key.rpartition("/")[2] for key in keys if key.rpartition("/")[0] == group]
        metrics.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
        columns = [_column(compared, models, group, metric) for metric in metrics]
        counts = [{cell.n for cell in column if cell} for column in columns]
        sizes = tuple(found.pop() if len(found) == 1 else None for found in counts)
        rows = dict(zip(models, zip(*columns, strict=True), strict=True))
        suite, _, how = group.rpartition("@") if "@" in group else (group, "", "sampled")
        title = f"{suite.rpartition('/')[2]}, {how}"
        yield Board(title, tuple(metrics), sizes, rows)


def _column(compared: Comparison, models: list[str], group: str, metric: str) -> tuple[Cell | None, ...]:
    key = f"{group}/{metric}" if group else metric
    found = {name: compared.models[name].get(key) for name in models}
    sign = BETTER.get(metric, 0)
    ranked = {name: sign * cell.value for name, cell in found.items() if cell}
    first = max(ranked, key=lambda name: ranked[name], default="")
    gap = _gap(compared, first, key)
    best = first if gap is not None and sign * gap > CLEAR else ""
    return tuple(Cell(_show(metric, cell), name == best, cell.n) if cell else None for name, cell in found.items())


def _gap(compared: Comparison, model: str, key: str) -> float | None:
    """How many standard errors a model lies above the baseline; None where that is not known."""
    ours = compared.models.get(model, {}).get(key)
    base = compared.models.get(compared.baseline, {}).get(key)
    if key.endswith("win_rate"):
        base = Measure(0.5, 0.0)  # what a model equal to the baseline would get
    if not ours or not base or ours.stderr is None or base.stderr is None:
        return None
    if model == compared.baseline:
        return None
    # As if the two were independent; on the same prompts the true error is smaller, if anything.
    error = math.hypot(ours.stderr, base.stderr)
    return (ours.value - base.value) / error if error else None


def _verdict(compared: Comparison | None) -> list[str]:
    """Say what the comparison shows: per model the reward against the baseline, best first."""
    if not compared:
        return []
    keys = [key for found in compared.models.values() for key in found]
    rewards = [key for key in keys if key.rpartition("/")[2] == "reward"]
    key = min(rewards, key=lambda name: "@" in name, default="")
    values = {name: found[key] for name, found in compared.models.items() if key in found}
    base = values.get(compared.baseline)
    order = sorted(values, key=lambda name: -values[name].value)
    if not base or len(order) < 2:
        return ["The comparison has no reward for the baseline and another model."]
    against = f"{compared.baseline}'s {_show('reward', base)}"
    lead = order[0]
    gap = _gap(compared, lead, key)
    if lead == compared.baseline:
        said = [f"No model has a higher mean reward than the baseline, {against}."]
    elif gap is None:
        said = [f"{lead} has the highest mean reward; without standard errors that says little."]
    elif gap > CLEAR:
        said = [f"{lead} leads on reward: {_show('reward', values[lead])} against {against}."]
    else:
        said = [f"No model is clearly ahead of {compared.baseline} on reward."]
    return said + [_versus(compared, name, key) for name in order if name != compared.baseline]


def _versus(compared: Comparison, model: str, key: str) -> str:
    found, base = compared.models[model], compared.models[compared.baseline]
    gap = _gap(compared, model, key)
    far = found[key].value - base[key].value
    parts = [f"reward {f'{far:+.3g}'.replace('-', MINUS)} against {compared.baseline}"]
    if gap is not None:
        parts[0] += f" ({abs(gap):.1f} standard errors {'above' if gap > 0 else 'below'})"
    group = key.removesuffix("reward")
    for name, words in (("win_rate", "win rate"), ("kl", "KL")):
        if f"{group}{name}" in found:
            parts.append(f"{words} {_show(name, found[f'{group}{name}'])}")
    return f"{model}: {', '.join(parts)}."


def _cards(compared: Comparison) -> Iterator[Card]:
    """Pair up the answers to the first prompts; of repeated samples the first is shown."""
    main = main_sampling(compared)
    prompts: dict[tuple[Message, ...], dict[tuple[str, str], Answer]] = {}
    for answer in compared.answers:
        place = prompts.setdefault(answer.prompt, {})
        place.setdefault((answer.model, answer.sampling), answer)
    for prompt, found in list(prompts.items())[:PROMPTS]:
        answers: dict[str, tuple[Answer, ...]] = {}
        names = dict.fromkeys([compared.baseline, *(model for model, _ in found)])
        for name in names:
            own = [answer for answer in found.values() if answer.model == name]
            if own:
                answers[name] = tuple(sorted(own, key=lambda answer: answer.sampling != main))
        rewards = [own[0].reward for own in answers.values() if own[0].reward is not None]
        yield Card(prompt, answers, max(rewards) if len(rewards) > 1 else None)


def _show(name: str, found: Measure) -> str:
    """Write a value with its error, both to the error's second digit; shares as percentages."""
    share = name.rpartition("/")[2] in PERCENT
    value, error = found.value * (100 if share else 1), found.stderr
    if error:
        error *= 100 if share else 1
        digits = min(max(1 - math.floor(math.log10(error)), 0), 4)
        text = f"{value:,.{digits}f} ± {error:,.{digits}f}"
    elif value.is_integer() and abs(value) < 1e9:
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    # No line break inside a value.
    return (text.replace("-", MINUS) + (" %" if share else "")).replace(" ", "\u00a0")


def _metric_title(name: str) -> str:
    arrow = {1: " ↑", -1: " ↓"}.get(BETTER.get(name, 0), "")
    return ("KL" if name == "kl" else name.replace("_", " ")) + arrow


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(seconds // 60)
    if seconds < 3600:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _flat(settings: Table, under: str = "") -> list[tuple[str, str]]:
    """Spell nested settings out as dotted keys."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{under}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((under + key, text))
    return rows
