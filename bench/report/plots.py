"""The report's pictures: how each metric moves as the budget is spent, and what the models draw meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from bench.records import BASE, pictures
from bench.records.schema import MetricRecord
from bench.report import figure
from bench.report.looks import BASE_LOOK, looks
from bench.report.stats import Cell, make_cell, trainings_of
from bench.report.study import Evaluation, Row, Sample, StudiedJob, Study
from bench.report.tables import bounds, title
from bench.report.text import Grid, digits, percent


@dataclass(frozen=True)
class Point:
    """A metric of one row at one checkpoint. ``share`` of the budget is the mean over the row's seeds."""

    share: float
    fraction: float
    cell: Cell


Curves = Mapping[tuple[str, str, str], Sequence[Point]]
"""Points of each line, by subset, method and metric. Every line starts at the base, which spent nothing."""


def dynamics(study: Study) -> Curves:
    """The curve of each row in each metric. Of a part of the prompts, intervals are for the whole prompt list."""
    lines = {}
    known = {fraction: trainings_of(study, fraction) for fraction in study.fractions}
    for metric in study.metrics:
        of_start = known[study.fractions[-1]][metric.name]
        start = Point(0.0, 0.0, make_cell(study.start, 0.0, metric, of_start, listed=study.listed(metric)))
        for subset in study.subsets:
            for row in study.rows(subset):
                points = [
                    Point(
                        share_of(study, row, f),
                        f,
                        make_cell(row.jobs, f, metric, known[f][metric.name], listed=study.listed(metric)),
                    )
                    for f in study.fractions
                ]
                lines[subset, row.method, metric.name] = [start, *points]
    return lines


def share_of(study: Study, row: Row, fraction: float) -> float:
    """What a row has spent at a planned share of the budget: a share of it, and a mean over seeds."""
    shares = [study.share(evaluation.spent) for job in row.jobs if (evaluation := job.at(fraction))]
    return sum(shares) / len(shares) if shares else fraction


def dynamics_csv(study: Study, lines: Curves) -> str:
    """Every point with its interval; an incomplete one keeps its counts and leaves the numbers empty."""
    rows = []
    for (subset, method, metric), points in lines.items():
        for point in points:
            counts = [str(point.cell.n), str(point.cell.total)]
            rows.append(
                [
                    subset,
                    method,
                    metric,
                    repr(point.fraction),
                    digits(point.share),
                    *bounds(point.cell.estimate),
                    *counts,
                ]
            )
    headers = ["subset", "method", "metric", "fraction", "share_of_budget", "mean", "low", "high", "n", "N"]
    return Grid(headers, rows).csv()


def dynamics_figures(study: Study, lines: Curves) -> dict[str, bytes]:
    """Files of the figure."""
    return figure.rendered(lambda: _draw_dynamics(study, lines), "training_dynamics")


def _draw_dynamics(study: Study, lines: Curves) -> Figure:
    subsets = study.subsets or [""]
    crowded = max((len(study.rows(subset)) for subset in subsets), default=0) > figure.CROWD
    headings = [metric.heading for metric in study.metrics]
    drawn, grid = figure.panels(subsets, headings, figure.SPENT, study.methods, legend=crowded)
    for subset, axes in zip(subsets, grid, strict=True):
        for axis, metric in zip(axes, study.metrics, strict=True):
            _draw_panel(axis, study, subset, metric, lines, crowded)
    if crowded:
        figure.legend(drawn, [*looks(study.methods).items()])
    part = f" · the {study.part} prompts of every evaluation" if study.part else ""
    key = f"{figure.key(crowded)}{part} · grey and dashed: base · †: the method was trained on this metric"
    figure.label(drawn, f"{title(study)}, {study.experiment.budget} for each job", key, study.experiment.notice)
    return drawn


def _draw_panel(
    axis: Axes,
    study: Study,
    subset: str,
    metric: MetricRecord,
    lines: Curves,
    crowded: bool,
) -> None:
    base = next((points[0].cell.estimate for (*_, name), points in lines.items() if name == metric.name), None)
    if base:
        axis.axhline(base.mean, color=figure.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ends = []
    rows, drawn_as = study.rows(subset), looks(study.methods)
    for row, dodge in zip(rows, figure.dodges(len(rows), crowded), strict=True):
        how, points = drawn_as[row.method], lines[subset, row.method, metric.name]
        x, y = figure.line(axis, [p.share for p in points], [p.cell.estimate for p in points], how)
        own = points if dodge is None else points[1:]  # a band begins at the base, whose whisker is drawn once
        figure.intervals(axis, [p.share for p in own], [p.cell.estimate for p in own], how.colour, dodge)
        if x > 0:  # more than the base, which is point 0 of every line
            ends.append(figure.LineEnd(x, y, row.method, how, metric.name in row.trained_on))
    if base:
        axis.plot([0], [base.mean], color=BASE_LOOK.colour, marker="o", markersize=5, zorder=5)
    if base and crowded:
        axis.vlines([0], base.low, base.high, color=BASE_LOOK.colour, linewidth=0.9)
    figure.spent(axis, max((point.share for points in lines.values() for point in points), default=1.0))
    figure.name_ends(axis, ends, crowded=crowded)


REPEATS = 4
GAP = 4
DOUBLED = 128
"""Pictures up to this side are shown at twice their size where few lines share the sheet; others at their own. Ours."""
MOST_PIXELS = pictures.MAX_PIXELS // 2
"""Of all tiles of a sheet. Beyond it every tile is halved, since no viewer opens a sheet of any size. Ours."""
INK, GREY, PAPER, TILE_GREY = "#202124", "#6b7075", "#ffffff", "#e3e5e8"


@dataclass(frozen=True)
class Line:
    """A line of a block of samples: a name in its colour, and for each tile the evaluation and the repeat it shows."""

    name: str
    colour: str
    tiles: list[tuple[Evaluation | None, int]]


Part = tuple[list[Line], list[str], Sample]
"""A block of samples: its lines, the headings of its columns, and its prompt."""


def samples_parts(study: Study, subset: str) -> list[Part]:
    """The blocks of a sheet, one for each task; none while the study holds no picture at all.

    With jobs: same prompt and noise, a row per method (its first seed), a column per checkpoint. Where nothing was
    trained: a row per model, a column per repeat.
    """
    jobs = [row.jobs[0] for row in study.rows(subset)]
    return parts_of(
        [*study.start, *jobs] if jobs else study.untrained,
        lambda prompt: _checkpoints(study, jobs) if jobs else _repeats(study, prompt),
    )


def parts_of(jobs: Sequence[StudiedJob], lines_of: Callable[[Sample], tuple[list[Line], list[str]]]) -> list[Part]:
    """A block for each task that ``jobs`` drew, with the lines and headings of ``lines_of``."""
    return [(*lines_of(prompt), prompt) for prompt in _choose_prompts(jobs)]


def images_of(parts: Sequence[Part]) -> set[Path]:
    """Files of the images that a sheet shows, whether or not they are there."""
    return {
        path
        for lines, _, prompt in parts
        for line in lines
        for evaluation, repeat in line.tiles
        if (sample := _shown(evaluation, prompt, repeat)) and (path := sample.image)
    }


def sheet(study: Study, parts: Sequence[Part]) -> bytes | None:
    """Blocks of samples on one page; None without any."""
    if not parts:
        return None
    crowded = _crowded(parts)
    tile = tile_of(study, parts)
    blocks = [_block(*part, tile) for part in parts]
    across = min(len(blocks), 3 if crowded else 2)
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
    # Level 4 takes two thirds of the time of 6, which is usual, for 2 % more bytes (reports/reference).
    page.save(file, format="PNG", compress_level=4)
    return file.getvalue()


def tile_of(study: Study, parts: Sequence[Part]) -> int:
    """Pixels along a side of a sheet's tiles: of the pictures themselves or twice that, less where a sheet is huge."""
    tile = min(study.experiment.suite.sampler.resolution, pictures.LARGEST)
    if tile <= DOUBLED and not _crowded(parts):
        tile *= 2
    tiles = sum(len(lines) * len(columns) for lines, columns, _ in parts)
    while tiles * tile**2 > MOST_PIXELS:
        tile //= 2
    return tile


def _crowded(parts: Sequence[Part]) -> bool:
    return max(len(lines) for lines, _, _ in parts) > figure.CROWD


def _choose_prompts(jobs: Sequence[StudiedJob]) -> list[Sample]:
    """Of each group, the first prompt of which a picture is kept.

    A group that several prompt sets have is shown of the first of them.
    """
    first: dict[tuple[str, str], Sample] = {}
    owner: dict[str, str] = {}
    for sample in (s for job in jobs for evaluation in job.evaluations for s in evaluation.samples if s.repeat == 0):
        key = sample.prompt_set, sample.group
        if key in first or owner.get(sample.group, sample.prompt_set) != sample.prompt_set:
            continue  # before the disk is asked: a report has a hundred thousand samples
        if sample.image and pictures.is_kept(sample.image):
            owner[sample.group], first[key] = sample.prompt_set, sample
    sets = {name: number for number, (name, _) in reversed([*enumerate(first)])}
    return sorted(first.values(), key=lambda sample: sets[sample.prompt_set])


def _checkpoints(study: Study, jobs: Sequence[StudiedJob]) -> tuple[list[Line], list[str]]:
    base = study.base.at(0.0) if study.base else None
    lines, drawn_as = [], looks(study.methods)
    for job in jobs:
        lines.append(
            Line(job.method, drawn_as[job.method].colour, [(base, 0), *((job.at(f), 0) for f in study.fractions)])
        )
    return lines, [BASE, *(percent(fraction).replace(".0", "") for fraction in study.fractions)]


def _repeats(study: Study, prompt: Sample) -> tuple[list[Line], list[str]]:
    models = [(BASE if job is study.base else job.label, job.at(0.0)) for job in study.untrained]
    samples = [sample for _, evaluation in models if evaluation for sample in evaluation.samples]
    key = (prompt.prompt_set, prompt.prompt_id)
    repeats = sorted({s.repeat for s in samples if (s.prompt_set, s.prompt_id) == key})[:REPEATS]
    drawn_as = looks(name for name, _ in models)
    lines = [Line(name, drawn_as[name].colour, [(found, repeat) for repeat in repeats]) for name, found in models]
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


def _shown(evaluation: Evaluation | None, prompt: Sample, repeat: int) -> Sample | None:
    key = (prompt.prompt_set, prompt.prompt_id, repeat)
    samples = evaluation.samples if evaluation else []
    return next((s for s in samples if (s.prompt_set, s.prompt_id, s.repeat) == key), None)


def _tile(evaluation: Evaluation | None, prompt: Sample, repeat: int, size: int) -> Image.Image:
    """The evaluation's image of a prompt, or a grey tile that says in a word why there is none."""
    sample = _shown(evaluation, prompt, repeat)
    try:
        image = pictures.read_kept(sample.image, sample.sha256) if sample and sample.image else None
    except FileNotFoundError:
        image = None
    except pictures.AnotherPicture:
        return _placeholder("exchanged", size)
    except pictures.BadPicture:
        return _placeholder("damaged", size)
    if image is None:
        return _placeholder("missing", size)
    # Small images are shown pixel for pixel, twice as large; photographs are scaled down smoothly.
    small = image.width <= size
    return image.resize((size, size), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _placeholder(word: str, size: int) -> Image.Image:
    tile = Image.new("RGB", (size, size), TILE_GREY)
    ImageDraw.Draw(tile).text((size / 2, size / 2), word, GREY, _font(12), anchor="mm")
    return tile


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
