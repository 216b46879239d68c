"""The look of the figures, and how one becomes inline SVG whose colours are CSS variables of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from accord.report.words import MINUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib needs real colours; these stand for CSS variables, which the browser then chooses by
# light, dark or print.
TONES = ["ink", "muted", "grid", "good", "bad", *[f"series-{i}" for i in range(1, 7)]]
RAMP = [f"ramp-{i}" for i in range(1, 7)]
HEX = {name: f"#0a0b{at:02x}" for at, name in enumerate([*TONES, *RAMP], start=1)}
VARIABLES = {colour: f"var(--{name})" for name, colour in HEX.items()}

WIDTH, HEIGHT = 420, 262  # in SVG units; text of 11 units is then about 13 px on a desktop page
ROUND = [1, 2, 2.5, 5, 10]  # steps between ticks
STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "accord",
    "text.parse_math": False,  # a model may be called "$x"
    "text.color": HEX["ink"],
    "font.size": 11,
    "figure.facecolor": "none",
    "lines.linewidth": 1.9,
    "lines.markersize": 4.5,
    "path.simplify_threshold": 0.3,
    "grid.color": HEX["grid"],
    "axes.facecolor": "none",
    "axes.edgecolor": HEX["grid"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlecolor": HEX["muted"],
    "axes.labelcolor": HEX["muted"],
    "xtick.color": HEX["grid"],
    "ytick.color": HEX["grid"],
    "xtick.labelcolor": HEX["muted"],
    "ytick.labelcolor": HEX["muted"],
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Key:
    """One legend entry; the legend is HTML, so that it wraps on a phone and covers no data."""

    label: str
    colour: str
    mark: str = "line"  # line, dash, faint, fill, dot or ring


@dataclass(frozen=True)
class Drawing:
    """A finished figure, ready to be put into the page."""

    title: str
    svg: str
    legend: tuple[Key, ...]
    note: str


@dataclass
class Sheet:
    """A figure while it is drawn, with the legend and the notes it collects."""

    title: str
    height: int = HEIGHT
    figure: Figure = field(init=False)
    legend: list[Key] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH / 72, self.height / 72), layout="constrained")


@contextmanager
def theme() -> Iterator[None]:
    """Within it, figures are made and finished in the look of the page."""
    from matplotlib import style

    with style.context(["default", STYLE]), warnings.catch_warnings():
        # The browser's fonts show what matplotlib's own cannot measure.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def tone(at: int) -> str:
    """Name the colour of the series at this place."""
    return f"series-{at % 6 + 1}"


def number_axis(ax: Axes, name: str, *, whole: bool = True, ticks: bool = True, values: bool = True) -> None:
    """Name the x axis and, with `ticks`, set round ones on it; with `values`, on every panel's y axis too."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(name)
    if ticks:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole, steps=ROUND))
        ax.xaxis.set_major_formatter(_short)
    for panel in ax.figure.axes if values else ():
        if panel.get_yscale() == "linear":
            panel.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
            panel.yaxis.set_major_formatter(_short)


def log_values(ax: Axes) -> None:
    """Put a panel's values on a logarithmic axis, with ticks at 1, 2 and 5 times each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    ax.yaxis.set_major_formatter(_short)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def percent(value: float, _at: float = 0) -> str:
    """Write a share as a tick's percentage."""
    return f"{100 * value:.3g} %"


def _short(value: float, _at: float = 0) -> str:
    text = f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.3e}".partition("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return text.replace("-", MINUS)


def finish(sheet: Sheet, prefix: str) -> Drawing:
    """Write the figure as SVG for a page: variables for colours, the page's font, its own ids."""
    text = io.StringIO()
    undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    sheet.figure.savefig(text, format="svg", metadata=undated)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    # Only inside tags: the text between them belongs to the user.
    svg = re.sub(r"<[^>]+>", lambda tag: _restyle(tag[0], prefix), svg)
    size = f'viewBox="0 0 {WIDTH} {sheet.height}"'
    root = f'<svg {size} role="img" aria-label="{escape(sheet.title)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: root, svg, count=1)
    return Drawing(sheet.title, svg, tuple(sheet.legend), " ".join(sheet.notes))


def _restyle(tag: str, prefix: str) -> str:
    # Groups are never referred to; markers and clip paths are, and must not meet another figure's.
    tag = re.sub(r'<g id="[^"]*"', "<g", tag.replace("xlink:href=", "href=").replace("\n", ""))
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)
    tag = re.sub(r'font-family: [^;"]*;? ?', "", tag)
    tag = re.sub(r'font: ([\d.]+px)[^;"]*', r"font-size: \1", tag)
    return re.sub(r"#0a0b[0-9a-f]{2}", lambda colour: VARIABLES[colour[0]], tag)
