"""What the plots have in common: panels, lines with intervals, names that stay apart, file formats."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import ScaledTranslation

from bench.report.intervals import Interval
from bench.report.looks import Look

CROWD = 6
"""Most lines of a panel that carry their names; more are named once, beside the panels."""

FAINT = "#80868b"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 10,
    "axes.edgecolor": "#9aa0a6",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # where it stands anyway; matplotlib would measure the ticks of every panel first
    "grid.color": "#e8eaed",
    "text.color": "#202124",
    "text.parse_math": False,  # a name with $ in it is a name
    "svg.hashsalt": "bench",  # otherwise the ids in the file are random
    "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
}


PANEL = (3.4, 2.5)
"""Width and height of a panel, in inches, as everything down to ``EDGE``."""
LEFT, RIGHT, ABOVE, BELOW = 0.9, 0.2, 0.42, 0.35
"""Around a panel: tick labels and a y label, a gap, its heading, tick labels."""
LINE, HANDLE = 0.18, 0.9
"""A further line of a heading, and what stands before a name in a legend."""
TOP, FOOT, EDGE = 0.4, 0.75, 0.12
"""Of a figure: its title, its key and notice below the label of the x axis, and what is left free around these."""
HEADING, TICKS = 46, 5
"""Most characters of a line of a heading, and most steps of a y axis."""

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
}

DPI, WIDEST = 150, 2000
"""Of a PNG: its resolution, and most pixels across, which is less resolution for a wide figure. A screen shows no more,
and four times the pixels take as long again to draw. Ours."""


def rendered(draw: Callable[[], Figure], name: str, formats: Sequence[str] = ("png", "svg")) -> dict[str, bytes]:
    """Files of a figure, by ``name`` and format, without a date or a version: equal records give equal bytes."""
    files = {}
    with matplotlib.style.context(STYLE, after_reset=True):  # not the matplotlibrc of this machine
        figure = draw()
        for kind in formats:
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=min(DPI, WIDEST / figure.get_figwidth()), **FORMATS[kind])
            files[f"{name}.{kind}"] = file.getvalue()
    return files


def panels(
    subsets: Sequence[str], headings: Sequence[str], x_label: str, names: Iterable[str], *, legend: bool
) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure with a panel for each subset and heading.

    Every subset begins a row. Panels are wrapped, a lone subset's few sooner, so that they stay large enough to read.
    Every place is a number of inches. A layout that measures all text first takes a third of the time to draw.

    Args:
        names: of the lines, for which there is room: right of all panels in a ``legend``, or right of each.
    """
    columns = min(len(headings), 4 if len(subsets) > 1 or len(headings) > 4 else 2)
    each = -(-len(headings) // columns)
    headings = [textwrap.fill(heading, HEADING) for heading in headings]
    above = ABOVE + LINE * (max(heading.count("\n") for heading in headings) + (len(subsets) > 1))
    room = max((_width(f"{name} †", 10) for name in names), default=0.0) + (HANDLE if legend else 0.15)
    right, beside = (RIGHT, room) if legend else (RIGHT + room, 0.0)
    width = columns * (LEFT + PANEL[0] + right) + beside
    height = TOP + each * len(subsets) * (above + PANEL[1] + BELOW) + FOOT
    figure = Figure(figsize=(width, height))
    places = {
        "left": LEFT / width,
        "right": 1 - (right + beside) / width,
        "top": 1 - (TOP + above) / height,
        "bottom": (FOOT + BELOW) / height,
        "wspace": (LEFT + right) / PANEL[0],
        "hspace": (above + BELOW) / PANEL[1],
    }
    grid = figure.subplots(each * len(subsets), columns, squeeze=False, gridspec_kw=places).reshape(len(subsets), -1)
    for subset, axes in zip(subsets, grid, strict=True):
        for axis, heading in zip(axes, headings, strict=False):
            axis.set_title(heading if len(subsets) == 1 else f"{heading}\n{subset}")
            axis.margins(y=0.08)
            axis.locator_params(axis="y", nbins=TICKS)
        for axis in axes[: max(0, len(headings) - columns)]:  # the panel below has the same axis
            axis.tick_params(labelbottom=False)
        for axis in axes[len(headings) :]:
            axis.set_visible(False)
    for axis in grid[-1, len(headings) - columns : len(headings)]:
        axis.set_xlabel(x_label)
    return figure, [list(axes[: len(headings)]) for axes in grid]


def _width(text: str, size: float) -> float:
    """Inches of a text in the style's font."""
    font = FontProperties(family=STYLE["font.family"], size=size)
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]) / 72


SPENT = "share of budget spent"


def spent(axis: Axes, most: float) -> None:
    """Make the x axis one of shares of the budget, up to ``most`` or to all of it."""
    axis.set_xlim(-0.02, max(1.0, most) + 0.02)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xticks(np.linspace(0, 1, 5))


def label(figure: Figure, title: str, key: str, notice: str) -> None:
    """A title above the panels, and below them the key and the notice."""
    width, height = figure.get_size_inches()
    figure.text(EDGE / width, 1 - EDGE / height, title, va="top", weight="bold", fontsize=13)
    figure.text(EDGE / width, EDGE / height, f"{key}\n{notice}", va="bottom", fontsize=8.5, color="#5f6368")


def line(axis: Axes, x: Sequence[float], estimates: Sequence[Interval | None], how: Look) -> tuple[float, float]:
    """Draw a line through the means; returns its last point, NaN where it has none.

    A point without an estimate breaks the line, instead of drawing through it.
    """
    mean, _, _ = _bounds(estimates)
    axis.plot(
        x,
        mean,
        color=how.colour,
        marker=how.marker,
        linestyle=how.dashes,
        markersize=5,
        linewidth=1.8,
        markeredgecolor="white",
    )
    there = np.flatnonzero(np.isfinite(mean))
    return (float(x[there[-1]]), float(mean[there[-1]])) if len(there) else (np.nan, np.nan)


def intervals(
    axis: Axes, x: Sequence[float], estimates: Sequence[Interval | None], colour: str, dodge: float | None
) -> None:
    """Draw the intervals of a line as a band.

    Args:
        dodge: in a crowd, where bands would cover each other, they are whiskers this far (in points) to the right.
    """
    _, low, high = _bounds(estimates)
    if dodge is None:
        axis.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
        return
    assert axis.figure is not None
    beside = axis.transData + ScaledTranslation(dodge / 72, 0, axis.figure.dpi_scale_trans)
    ends = np.array([[x, low], [x, high]]).transpose(2, 0, 1)  # (points, ends, 2)
    whiskers = LineCollection([*ends], colors=colour, linewidths=0.9, alpha=0.55, transform=beside, clip_on=False)
    axis.add_collection(whiskers, autolim=False)  # their place is not that of data
    axis.update_datalim(ends.reshape(-1, 2))


def _bounds(estimates: Sequence[Interval | None]) -> np.ndarray:
    """(mean, low, high) by point; NaN where there is no estimate."""
    return np.array([(e.mean, e.low, e.high) if e else (np.nan, np.nan, np.nan) for e in estimates]).T


def dodges(number: int, crowded: bool) -> list[float] | list[None]:
    """``dodge`` of each of so many lines of a panel; ``crowded`` is that of the figure's key."""
    return [1.7 * (i - (number - 1) / 2) for i in range(number)] if crowded else [None] * number


def key(crowded: bool) -> str:
    """How a plot's key begins."""
    return f"{'whiskers' if crowded else 'bands'}: 95 % intervals"


@dataclass(frozen=True)
class LineEnd:
    """The last point of a line and its name; ``marked`` where the method was trained on the panel's metric."""

    x: float
    y: float
    name: str
    how: Look
    marked: bool = False


def name_ends(axis: Axes, ends: Sequence[LineEnd], *, crowded: bool) -> None:
    """Names to the right of the panel, at the height of their lines but never on top of each other.

    In a crowd only what is marked gets a † there; the names stand in the legend.
    """
    right = axis.get_xlim()[1]
    if crowded:
        for end in (end for end in ends if end.marked):
            axis.annotate("†", (end.x, end.y), (13, 0), textcoords="offset points", color=end.how.colour, va="center")
        return
    if not ends:
        return
    bottom, top = axis.get_ylim()
    span, gap = axis.get_xlim()[1] - axis.get_xlim()[0], 0.075
    heights: list[float] = []
    ends = sorted(ends, key=lambda end: end.y)
    for end in ends:
        wanted = (end.y - bottom) / (top - bottom)
        heights.append(max(wanted, heights[-1] + gap) if heights else wanted)
    surplus = max(0.0, heights[-1] - 1)
    for end, height in zip(ends, heights, strict=True):
        spot = (right + 0.029 * span, bottom + (height - surplus) * (top - bottom))
        line = {"arrowstyle": "-", "color": end.how.colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0, "shrinkB": 4}
        axis.annotate(
            end.name + (" †" if end.marked else ""), (end.x, end.y), spot,
            color=end.how.colour, va="center", fontsize=9.5, arrowprops=line, annotation_clip=False,
        )  # fmt: skip


def legend(figure: Figure, names: Sequence[tuple[str, Look]]) -> None:
    """Names of a crowd of lines, once, to the right of all panels."""
    handles = [
        Line2D(
            [], [], color=how.colour, marker=how.marker, linestyle=how.dashes,
            markersize=6, linewidth=1.8, markeredgecolor="white", label=name,
        )
        for name, how in names
    ]  # fmt: skip
    width, height = figure.get_size_inches()
    beside = (max(axis.get_position().x1 for axis in figure.axes) + RIGHT / width, 1 - TOP / height)
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=beside, frameon=False, handlelength=3.5, fontsize=10
    )
