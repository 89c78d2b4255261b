"""A page of results in one self-contained HTML file: sections in, file out.

The plots are inline SVG whose colours are the page's, so that they follow a dark or light screen.
Nothing is loaded from elsewhere. Needs the extra `report`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bothways.errors import MissingExtraError
from bothways.files import write_text
from bothways.training.template import PAGE


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by an empty line."""

    title: str
    body: str


@dataclass(frozen=True)
class Facts:
    """Short labelled figures side by side."""

    title: str
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Columns that hold numbers are set flush right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Code:
    """Preformatted text, folded away unless `folded` is False."""

    title: str
    body: str
    folded: bool = True


@dataclass(frozen=True)
class Series:
    """One curve. `faint` is for raw values behind a smoothed line of the same colour; a name of "" keeps it out of the legend."""

    name: str
    x: Sequence[int | float]
    y: Sequence[int | float]
    style: Literal["line", "faint", "points"] = "line"
    colour: int = 0


@dataclass(frozen=True)
class Lines:
    """A plot; `height` against a width of 7.6. `marks` are places on the x axis where something begins, and what it is."""

    title: str
    series: Sequence[Series]
    xlabel: str
    ylabel: str
    note: str = ""
    height: float = 2.4
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Stack:
    """One part of every bar, and its colour."""

    name: str
    values: Sequence[int | float]
    colour: int = 0


@dataclass(frozen=True)
class Bars:
    """A lying bar for each name, the first on top, made of parts that follow one another."""

    title: str
    names: Sequence[str]
    parts: Sequence[Stack]
    xlabel: str
    note: str = ""


Section: TypeAlias = Text | Facts | Table | Code | Lines | Bars

INK, GRID, BACK = "#010203", "#040506", "#070809"
# Stand-ins; the page gives the real colours as CSS variables
COLOURS = ("#0a0b0c", "#0d0e0f", "#101112", "#131415", "#161718", "#191a1b", "#1c1d1e", "#1f2021")
_VARIABLES = {INK: "var(--muted)", GRID: "var(--rule)", BACK: "var(--back)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS)
}


def render(title: str, sections: Sequence[Section], path: Path, subtitle: str = "") -> Path:
    """Write the page.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        InputError: the file cannot be written.
    """
    try:
        import jinja2
        import matplotlib as _  # noqa: F401
    except ImportError:
        raise MissingExtraError("the HTML report", "report") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    parts = [_part(section, number) for number, section in enumerate(sections)]
    write_text(path, environment.from_string(PAGE).render(title=title, subtitle=subtitle, parts=parts))
    return path


def _part(section: Section, number: int) -> dict[str, Any]:
    """What the template needs of a section."""
    common = {"kind": type(section).__name__.lower(), "title": section.title, "section": section}
    match section:
        case Text():
            return common | {"paragraphs": [part.strip() for part in section.body.split("\n\n") if part.strip()]}
        case Table():
            rows = [["-" if cell is None else str(cell) for cell in row] for row in section.rows]
            columns = list(zip(*rows, strict=True)) or [()] * len(section.columns)
            numeric = [any(column) and all(_number(cell) for cell in column) for column in columns]
            return common | {"rows": rows, "numeric": numeric}
        case Lines() | Bars():
            return common | {"svg": _svg(section, prefix=f"plot{number}-")}
        case Facts() | Code():
            return common


def _number(cell: str) -> bool:
    return bool(re.fullmatch(r"|-|[+-]?[\d.,]+(e[+-]?\d+)?\s?(%|[a-zA-Z]{0,3}|s)", cell.strip()))


def _svg(plot: Lines | Bars, prefix: str) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bothways", "font.size": 10, "axes.unicode_minus": True}):
        height = plot.height if isinstance(plot, Lines) else 0.8 + 0.3 * len(plot.names)
        figure = Figure(figsize=(7.6, height), layout="constrained")
        axes = figure.subplots()
        if isinstance(plot, Lines):
            for series in plot.series:
                _draw(axes, series)
            _dress(axes, plot)
        else:
            _draw_bars(axes, plot)
        figure.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), prefix, plot.title)


def _draw(axes: Any, series: Series) -> None:
    colour = COLOURS[series.colour % len(COLOURS)]
    label = series.name or "_"
    if series.style == "points" or (series.style == "line" and len(series.x) == 1):  # a line of one point shows nothing
        axes.plot(
            series.x, series.y, "o", markersize=5, color=colour, label=label, markeredgecolor=BACK, markeredgewidth=1, zorder=4
        )
    elif series.style == "faint":
        axes.plot(series.x, series.y, color=colour, linewidth=1, alpha=0.28, label=label, zorder=2)
    else:
        axes.plot(series.x, series.y, color=colour, linewidth=1.8, label=label, zorder=3, solid_joinstyle="round")


def _draw_bars(axes: Any, plot: Bars) -> None:
    from matplotlib.ticker import EngFormatter

    begins = [0.0] * len(plot.names)
    for part in plot.parts:
        colour = COLOURS[part.colour % len(COLOURS)]
        axes.barh(range(len(plot.names)), part.values, left=begins, height=0.62, color=colour, label=part.name, linewidth=0)
        begins = [begin + value for begin, value in zip(begins, part.values, strict=True)]
    axes.set_yticks(range(len(plot.names)), plot.names)
    axes.invert_yaxis()
    _frame(axes, plot.xlabel, "x")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(axes, [part.name for part in plot.parts])


def _dress(axes: Any, plot: Lines) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_ylabel(plot.ylabel, color=INK)
    _frame(axes, plot.xlabel, "y")
    axes.margins(x=0.01)
    if max((x for series in plot.series for x in series.x), default=0) >= 1000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for place, name in plot.marks:
        axes.axvline(place, color=GRID, linewidth=1, zorder=1)
        axes.annotate(
            name, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            va="bottom", color=INK, fontsize=9,
        )  # fmt: skip
    _legend(axes, [series.name for series in plot.series], apart=1.7 if plot.marks else 0.2)


def _frame(axes: Any, xlabel: str, grid: Literal["x", "y"]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor("none")
    axes.set_xlabel(xlabel, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.tick_params(colors=INK, length=0, pad=6)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _legend(axes: Any, names: Sequence[str], apart: float = 0.2) -> None:
    if sum(map(bool, names)) > 1:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": apart}
        axes.legend(**place, frameon=False, labelcolor=INK, ncols=min(4, _columns(names)), handlelength=1.4)


def _columns(names: Sequence[str]) -> int:
    """How many of the names stand side by side in some hundred characters."""
    return max(1, 100 // (8 + max(map(len, names))))


def _inline(svg: str, prefix: str, title: str) -> str:
    """An SVG fit to stand inside a page: no prolog, no addresses, its own ids, the page's colours, a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", svg)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{label}">', svg, count=1)
