"""The report's pictures: how each metric moves as the budget is spent, and what the models draw meanwhile."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image, ImageDraw, ImageFont

from bench.errors import BenchError
from bench.records import BASE
from bench.report.read import Evaluation, Job, Metric, Row, Sample, Study
from bench.report.stats import Cell, make_cell
from bench.report.tables import title
from bench.report.text import Grid, percent

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#5F5F5F")
"""Colours told apart with any colour vision (Okabe and Ito 2008, jfly.uni-koeln.de/color); two more for a crowd."""

MARKERS = "osD^vPXp"

STYLE: dict[Any, Any] = {
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.12,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 10,
    "axes.edgecolor": "#9aa0a6",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e8eaed",
    "text.color": "#202124",
    "text.parse_math": False,  # a name with $ in it is a name
    "svg.hashsalt": "bench",  # otherwise the ids in the file are random
    "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
}


@dataclass(frozen=True)
class Point:
    """A metric of one row at one checkpoint. ``share`` of the budget is the mean over the row's seeds."""

    share: float
    fraction: float
    cell: Cell


def dynamics(study: Study) -> dict[tuple[str, str, str], list[Point]]:
    """Points of each line, by subset, method and metric. Every line starts at the base, which spent nothing."""
    lines = {}
    for metric in study.metrics:
        start = Point(0.0, 0.0, make_cell(study.start, 0.0, metric))
        for subset in study.subsets:
            for row in study.rows(subset):
                points = [Point(_share(study, row, f), f, make_cell(row.jobs, f, metric)) for f in study.fractions]
                lines[subset, row.method, metric.name] = [start, *points]
    return lines


def _share(study: Study, row: Row, fraction: float) -> float:
    shares = [study.share(evaluation.spent) for job in row.jobs if (evaluation := job.at(fraction))]
    return sum(shares) / len(shares) if shares else fraction


def dynamics_csv(study: Study, lines: dict[tuple[str, str, str], list[Point]]) -> str:
    """Every point with its interval; an incomplete one keeps its counts and leaves the numbers empty."""
    rows = []
    for (subset, method, metric), points in lines.items():
        for point in points:
            e = point.cell.estimate
            numbers = [repr(e.mean), repr(e.low), repr(e.high)] if e else ["", "", ""]
            counts = [str(point.cell.n), str(point.cell.total)]
            rows.append([subset, method, metric, repr(point.fraction), repr(point.share), *numbers, *counts])
    headers = ["subset", "method", "metric", "fraction", "share_of_budget", "mean", "low", "high", "n", "N"]
    return Grid(headers, rows).csv()


def dynamics_figures(study: Study, lines: dict[tuple[str, str, str], list[Point]]) -> tuple[bytes, bytes]:
    """The figure as PNG and as SVG, without a date or a version in either: equal records give equal bytes."""
    with matplotlib.style.context(STYLE, after_reset=True):  # not the matplotlibrc of this machine
        figure = _draw_dynamics(study, lines)
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), svg.getvalue()


def _draw_dynamics(study: Study, lines: dict[tuple[str, str, str], list[Point]]) -> Figure:
    subsets, metrics = study.subsets or [""], study.metrics
    # Every subset begins a row. Panels are wrapped, a lone subset's few sooner, so that they stay large enough to read.
    columns = min(len(metrics), 4 if len(subsets) > 1 or len(metrics) > 4 else 2)
    each = -(-len(metrics) // columns)
    figure = Figure(figsize=(4.9 * columns, 3.3 * each * len(subsets) + 0.9), layout="constrained")
    axes = figure.subplots(each * len(subsets), columns, squeeze=False).reshape(len(subsets), -1)
    for subset, panels in zip(subsets, axes, strict=True):
        for axis, metric in zip(panels, metrics, strict=False):
            _draw_panel(axis, study, subset, metric, lines)
            axis.set_title(metric.heading if len(subsets) == 1 else f"{metric.heading}   {subset}")
        for axis in panels[len(metrics) :]:
            axis.set_visible(False)
    for axis in axes[-1, len(metrics) - columns : len(metrics)]:
        axis.set_xlabel("share of budget spent")
    key = "bands: 95 % intervals · dashed: base · †: the method was trained on this metric"
    figure.suptitle(
        f"{title(study)}, {study.experiment.budget} for each job", x=0.01, ha="left", weight="bold", fontsize=13
    )
    figure.supxlabel(f"{key}\n{study.experiment.notice}", x=0.01, ha="left", fontsize=8.5, color="#5f6368")
    return figure


def _draw_panel(
    axis: Axes, study: Study, subset: str, metric: Metric, lines: dict[tuple[str, str, str], list[Point]]
) -> None:
    base = make_cell(study.start, 0.0, metric).estimate
    if base:
        axis.axhline(base.mean, color="#80868b", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ends = []
    for row in study.rows(subset):
        number = study.methods.index(row.method)
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        points = lines[subset, row.method, metric.name]
        x = np.array([point.share for point in points])
        # NaN breaks the line where a checkpoint is incomplete, instead of drawing through it.
        mean, low, high = np.array([_bounds(point.cell) for point in points]).T
        axis.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
        axis.plot(x, mean, color=colour, marker=marker, markersize=5, linewidth=1.8, markeredgecolor="white")
        there = np.flatnonzero(np.isfinite(mean))
        if there.any():  # more than the base, which is point 0 of every line
            label = row.method + (" †" if row.trained_on == metric.name else "")
            ends.append((float(x[there[-1]]), float(mean[there[-1]]), label, colour))
    if base:
        axis.plot([0], [base.mean], color="#3c4043", marker="o", markersize=5, zorder=5)
    axis.set_xlim(-0.02, max(1.0, *(point.share for points in lines.values() for point in points), 1.0) + 0.02)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xticks(np.linspace(0, 1, 5))
    axis.margins(y=0.08)
    _label_ends(axis, ends)


def _bounds(cell: Cell) -> tuple[float, float, float]:
    e = cell.estimate
    return (e.mean, e.low, e.high) if e else (np.nan, np.nan, np.nan)


def _label_ends(axis: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names to the right of the panel, at the height of their lines but never on top of each other."""
    if not ends:
        return
    bottom, top = axis.get_ylim()
    gap = 0.075
    heights: list[float] = []
    ends = sorted(ends, key=lambda end: end[1])
    for _, y, _, _ in ends:
        wanted = (y - bottom) / (top - bottom)
        heights.append(max(wanted, heights[-1] + gap) if heights else wanted)
    surplus = max(0.0, heights[-1] - 1)
    right = axis.get_xlim()[1]
    for (x, y, label, colour), height in zip(ends, heights, strict=True):
        spot = (right + 0.03, bottom + (height - surplus) * (top - bottom))
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0, "shrinkB": 4}
        axis.annotate(
            label, (x, y), spot, color=colour, va="center", fontsize=9.5, arrowprops=line, annotation_clip=False
        )


PROMPTS, REPEATS = 6, 4
GAP = 4
INK, GREY, PAPER, TILE_GREY = "#202124", "#6b7075", "#ffffff", "#e3e5e8"


@dataclass(frozen=True)
class Line:
    """A line of a block of samples: a name in its colour, and for each tile the evaluation and the repeat it shows."""

    name: str
    colour: str
    tiles: list[tuple[Evaluation | None, int]]


def samples_image(study: Study, subset: str) -> bytes | None:
    """A block for each of a few prompts. None while the study holds no sample at all.

    With jobs: same prompt and noise, a row per method (its first seed), a column per checkpoint. Where nothing was
    trained: a row per model, a column per repeat.
    """
    jobs = [row.jobs[0] for row in study.rows(subset)]
    prompts = _choose_prompts([*study.start, *jobs] if jobs else study.untrained)
    if not prompts:
        return None
    tile = 128 if study.experiment.suite.sampler.resolution <= 128 else 192
    blocks = []
    for prompt in prompts:
        lines, columns = _checkpoints(study, jobs) if jobs else _repeats(study, prompt)
        blocks.append(_block(lines, columns, prompt, tile))
    across = min(len(blocks), 2)
    width, height, margin, space = max(block.width for block in blocks), blocks[0].height, 24, 28
    rows = -(-len(blocks) // across)
    page = Image.new(
        "RGB",
        (2 * margin + across * width + (across - 1) * space, 2 * margin + 20 + rows * (height + space)),
        PAPER,
    )
    for i, block in enumerate(blocks):
        page.paste(block, (margin + i % across * (width + space), margin + i // across * (height + space)))
    pen = ImageDraw.Draw(page)
    notice = _fit(study.experiment.notice, page.width - 2 * margin, 12)
    pen.text((margin, page.height - margin - 14), notice, GREY, _font(12))
    file = io.BytesIO()
    page.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _choose_prompts(jobs: Sequence[Job]) -> list[Sample]:
    """The first prompt of each group, prompt sets taking turns, so that none is crowded out by a larger one."""
    first: dict[str, dict[str, Sample]] = {}
    for sample in (s for job in jobs for evaluation in job.evaluations for s in evaluation.samples):
        if sample.repeat == 0:
            first.setdefault(sample.prompt_set, {}).setdefault(sample.group, sample)
    turns = sorted((turn, i) for i, groups in enumerate(first.values()) for turn in range(len(groups)))
    chosen = sorted((i, turn) for turn, i in turns[:PROMPTS])
    by_set = [list(groups.values()) for groups in first.values()]
    return [by_set[i][turn] for i, turn in chosen]


def _checkpoints(study: Study, jobs: Sequence[Job]) -> tuple[list[Line], list[str]]:
    base = study.base.at(0.0) if study.base else None
    lines = []
    for job in jobs:
        colour = PALETTE[study.methods.index(job.method) % len(PALETTE)]
        lines.append(Line(job.method, colour, [(base, 0), *((job.at(f), 0) for f in study.fractions)]))
    return lines, [BASE, *(percent(fraction).replace(".0", "") for fraction in study.fractions)]


def _repeats(study: Study, prompt: Sample) -> tuple[list[Line], list[str]]:
    models = [(BASE if job is study.base else job.label, job.at(0.0)) for job in study.untrained]
    samples = [sample for _, evaluation in models if evaluation for sample in evaluation.samples]
    key = (prompt.prompt_set, prompt.prompt_id)
    repeats = sorted({s.repeat for s in samples if (s.prompt_set, s.prompt_id) == key})[:REPEATS]
    colours = [GREY if name == BASE else PALETTE[i % len(PALETTE)] for i, (name, _) in enumerate(models)]
    lines = [Line(n, c, [(e, repeat) for repeat in repeats]) for (n, e), c in zip(models, colours, strict=True)]
    return lines, [f"image {repeat + 1}" for repeat in repeats]


def _block(lines: Sequence[Line], columns: Sequence[str], prompt: Sample, tile: int) -> Image.Image:
    left = max(int(_font(13, bold=True).getlength(line.name)) for line in lines) + 12
    left, top = min(left, 150), 46
    width = left + len(columns) * (tile + GAP) - GAP
    block = Image.new("RGB", (width, top + len(lines) * (tile + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(block)
    pen.text((0, 0), _fit(prompt.prompt, width, 15, bold=True), INK, _font(15, bold=True))
    for column, label in enumerate(columns):
        pen.text((left + column * (tile + GAP) + tile / 2, 36), label, GREY, _font(12), anchor="mm")
    for number, line in enumerate(lines):
        y = top + number * (tile + GAP)
        name = _fit(line.name, left - 10, 13, bold=True)
        pen.text((0, y + tile / 2), name, line.colour, _font(13, bold=True), anchor="lm")
        for column, (evaluation, repeat) in enumerate(line.tiles):
            block.paste(_tile(evaluation, prompt, repeat, tile), (left + column * (tile + GAP), y))
    return block


def _tile(evaluation: Evaluation | None, prompt: Sample, repeat: int, size: int) -> Image.Image:
    """The evaluation's image of a prompt, or a grey tile that says it is missing."""
    key = (prompt.prompt_set, prompt.prompt_id, repeat)
    samples = evaluation.samples if evaluation else []
    path = next((s.image for s in samples if (s.prompt_set, s.prompt_id, s.repeat) == key), None)
    if path is None or not path.exists():
        tile = Image.new("RGB", (size, size), TILE_GREY)
        ImageDraw.Draw(tile).text((size / 2, size / 2), "missing", GREY, _font(12), anchor="mm")
        return tile
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise BenchError(f"{path} is not a readable image ({error}); delete its evaluation and run again") from error
    # Small images are shown pixel for pixel, twice as large; photographs are scaled down smoothly.
    small = image.width <= size
    return image.resize((size, size), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own DejaVu Sans, so that the picture needs no font of the machine's."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf", name)), size)


def _fit(text: str, width: float, size: int, bold: bool = False) -> str:
    """One line of ``text`` that is at most ``width`` pixels long."""
    text, font = " ".join(text.split()), _font(size, bold)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
