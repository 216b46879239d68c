"""The page of several runs: what stands on it, for a sweep and for a comparison alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from accord.report import templates
from accord.report.answers import Card
from accord.report.comparison import Board
from accord.report.svg import Drawing


@dataclass(frozen=True)
class Grid:
    """A table of words: a row for each key with a cell for each run."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str | None, ...]], ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What is shown, from the top down; what is empty is left out."""

    kind: str
    name: str
    said: str
    head: str = "model"  # of the first column of `boards`
    baseline: str = ""
    lines: tuple[str, ...] = ()  # in short
    grids: tuple[Grid, ...] = ()
    boards: tuple[Board, ...] = ()
    note: str = ""  # below the boards
    differences: tuple[Board, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    cards: tuple[Card, ...] = ()
    colours: dict[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()  # name, address


def render(page: Page) -> bytes:
    """The page as HTML."""
    return templates().get_template("several.html").render(page=page).encode("utf-8", "replace")
