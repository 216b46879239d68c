"""Writes a run folder's report: one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import median

import jinja2
from markupsafe import Markup

from accord.pitfalls import Finding
from accord.report.answers import Card, cards
from accord.report.case import Case, open_case
from accord.report.compared import COLUMNS, FitRow, draw_bending, draw_compared, fit_rows
from accord.report.comparison import Board, boards, versus, warnings
from accord.report.curves import label
from accord.report.figures import draw_stage
from accord.report.pitfalls import findings
from accord.report.read import Run, Stage, judged, read_run, references
from accord.report.svg import Drawing, finish, theme, tone
from accord.report.values import JsonValue, Measure, Table, measure, number, text
from accord.report.verdict import verdict
from accord.report.words import BETTER, named, show
from accord.run import write_file

__all__ = ["write_report"]

LAST = ("eval/loss", "eval/perplexity", "eval/accuracy", "eval/margin")
TITLES = {
    "pretrain": "Pretraining",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "policy": "Policy optimisation",
    "preference": "Preference optimisation",
    "select": "Best of n",
    "evaluate": "Comparison",
}
RESULTS = {
    "folds": "cross-validated accuracy",
    "step": "chosen step",
    "kl_budget": "KL budget",
    "agreement": "two annotators agree",
    "ceiling": "a perfect judge would reach",
    "select/reward": "reward of all answers",
    "select/reward_best": "reward of the best",
    "select/kept": "prompts kept",
    "select/prompts": "prompts",
    "select/n": "answers each",
    "select/kl": "KL at most",
    "ece": "calibration error",
}


@dataclass(frozen=True)
class Tile:
    """One number that sums a stage up."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """A stage as the page shows it."""

    stage: Stage
    anchor: str
    title: str
    uses: tuple[str, ...]  # what the stage starts from and what else it reads, in words
    share: float  # of the run's time
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    bending: tuple[Drawing, ...]  # of over-optimisation
    boards: tuple[Board, ...]
    versus: tuple[str, ...]
    warnings: tuple[str, ...]
    looks: tuple[Finding, ...]  # what detectors have found
    fits: tuple[FitRow, ...]
    cards: tuple[Card, ...]
    colours: dict[str, str]


def write_report(folder: Path) -> Path:
    """Write `<folder>/report.html` and return its path; an old report stays until the new is whole."""
    page = _render(read_run(folder)).encode("utf-8", "replace")
    return put(page, folder)


def put(page: bytes, folder: Path) -> Path:
    """Let a page take the place of `<folder>/report.html`."""
    target = folder / "report.html"
    write_file(target, lambda draft: draft.write_bytes(page))
    return target


def _render(run: Run) -> str:
    case = open_case(run)
    sections = [_section(run, case, stage, at) for at, stage in enumerate(run.stages, start=1)]
    page = templates().get_template("page.html")
    # The comparison answers what the page is opened for; how it came about follows in the order of the recipe.
    last = judged(run)
    ordered = sorted(sections, key=lambda section: section.stage is not last)
    return page.render(run=run, pipeline=sections, sections=ordered, verdict=verdict(run), columns=COLUMNS)


def templates() -> jinja2.Environment:
    """The pages beside this file."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    filters = {"brief": brief, "duration": duration, "flat": flat, "metric": metric_title, "svg": Markup}
    env.filters.update(filters)
    return env


def _section(run: Run, case: Case | None, stage: Stage, at: int) -> Section:
    compared, total = stage.comparison, sum(s.seconds or 0.0 for s in run.stages)
    best = case.best if case and case.stage is stage else (compared.models[-1] if compared and compared.models else "")
    with theme():
        sheets = draw_compared(stage) if stage.kind == "evaluate" else draw_stage(stage)
        drawings = tuple(finish(sheet, f"s{at}f{i}") for i, sheet in enumerate(sheets))
        bending = tuple(finish(sheet, f"s{at}o{i}") for i, sheet in enumerate(draw_bending(stage)))
    return Section(
        stage=stage,
        anchor=f"stage-{at}",
        title=TITLES.get(stage.kind, stage.kind),
        uses=tuple(_uses(stage)),
        share=(stage.seconds or 0.0) / total if total else 0.0,
        tiles=tuple(_tiles(stage)),
        notes=tuple(said for name, said in stage.result.items() if isinstance(said, str) and name != "warning"),
        drawings=drawings,
        bending=bending,
        boards=tuple(boards(compared)) if compared else (),
        versus=tuple(versus(compared)) if compared else (),
        warnings=tuple(warnings(compared)) if compared else tuple(filter(None, [text(stage.result.get("warning"))])),
        looks=tuple(findings(run, stage)),
        fits=tuple(fit_rows(stage)),
        cards=cards(compared, best) if compared else (),
        colours={name: tone(at) for at, name in enumerate(compared.models)} if compared else {},
    )


def _uses(stage: Stage) -> Iterator[str]:
    """Say which stage this one starts from, and which others it reads."""
    settings = stage.settings
    start = list(dict.fromkeys(references(settings.get("model"))))
    models = list(dict.fromkeys(references(settings.get("models"))))
    others = [name for name in dict.fromkeys(references(settings)) if name not in (*start, *models)]
    if start:
        yield f"from {', '.join(start)}"
    if models:
        yield f"of {', '.join(models)}"
    if others:
        yield f"with {', '.join(others)}"


def _tiles(stage: Stage) -> Iterator[Tile]:
    for name, value in stage.result.items():
        found = None if isinstance(value, str) else measure(value)
        # The objective's only term is the loss once more.
        repeats = name != "loss" and value == stage.result.get("loss")
        if found and not repeats and not name.endswith("_stderr"):
            error = found.stderr or number(stage.result.get(f"{name}_stderr"))
            detail = f"n = {found.n:,}" if found.n else ""
            words = RESULTS.get(f"{stage.kind}/{name}") or RESULTS.get(name) or label(f"eval/{name}")
            yield Tile(words, show(name, Measure(found.value, error)), detail)
    # An ensemble's last row is one member's, so a reward stage has no value of its own here.
    for key in LAST if stage.kind in ("pretrain", "sft", "preference") else ():
        values = [row[key] for row in stage.metrics if key in row]
        if values and values[-1] is not None and key.removeprefix("eval/") not in stage.result:
            yield Tile(label(key), show(key, Measure(values[-1])), "at the last evaluation")
    speeds = [row.get("tokens_per_second") for row in stage.metrics]
    if measured := [speed for speed in speeds if speed is not None]:
        yield Tile("tokens per second", f"{median(measured):,.0f}", "median")


def metric_title(name: str) -> str:
    """Name a metric at the head of a column, with an arrow to where it is better."""
    return named(name) + {1: " ↑", -1: " ↓"}.get(BETTER.get(name, 0), "")


def duration(seconds: float) -> str:
    """Write seconds as a person would."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(seconds // 60)
    if seconds < 3600:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def flat(settings: Table, under: str = "") -> list[tuple[str, str]]:
    """Spell nested settings out as dotted keys."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        key, value = f"{under}{brief(name)}", brief(value)
        if isinstance(value, dict) and value:
            rows += flat(value, f"{key}.")
        else:
            rows.append((key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def brief(value: JsonValue) -> JsonValue:
    """Cut absolute paths that texts begin with: `/a/b/c/d.jsonl:7: is empty` -> `…/c/d.jsonl:7: is empty`."""
    if isinstance(value, list):
        return [brief(item) for item in value]
    if isinstance(value, dict):
        return {key: brief(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    path, colon, rest = value.partition(":")
    parts = PurePath(path).parts
    shorter = PurePath(path).is_absolute() and len(parts) > 3 and "\n" not in path
    return f"…/{'/'.join(parts[-2:])}{colon}{rest}" if shorter else value
