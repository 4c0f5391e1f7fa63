"""Measured rows beside published ones, with their differences. Nothing here is ranked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.records import BASE, CONTEXT, EVALUATED
from bench.report import conditions
from bench.report.published import data
from bench.report.published.data import PublishedRow
from bench.report.study import Study
from bench.report.tables import TRAINED_ON, MainCell, MainRow, Section, bounds, cell_text, head
from bench.report.text import Grid, count, digits, listed, markdown

SUITES = ("paper", "drawbench")
"""Suites that follow the paper's protocol; no other suite's numbers are set beside the published ones."""

COLUMNS = {
    "geneval": "geneval",
    "ocr_rapid": "ocr",
    "ocr_paddle": "ocr",
    "pickscore": "pickscore",
    "clipscore": "clipscore",
    "clipscore_released": "clipscore",
    "hpsv2": "hpsv2_1",
    "aesthetic": "aesthetic",
    "imagereward": "imagereward",
}
"""Metrics that compute what a column of the paper holds."""

STEPS, GUIDANCE, RESOLUTION = 40, 4.5, 512
"""How the paper's SD3.5-M rows are sampled: section 3.1, and 40 steps in the release (HY-SOAR @ 59f0e02)."""

ABOUT = (
    "Measured minus published, for rows that are the same model or method. Published numbers are rounded to the digits "
    "shown and have neither an interval nor a seed; they are in no ranking."
)


@dataclass(frozen=True)
class Value:
    """A measured cell and the published number beside it, where there is one."""

    measured: MainCell
    published: str

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        estimate = self.measured.cell.estimate
        return estimate.mean - float(self.published) if estimate and self.published else None

    @property
    def apart(self) -> bool:
        """Whether no number that rounds to the published one lies in the measured interval."""
        estimate = self.measured.cell.estimate
        if estimate is None or not self.published:
            return False
        half = 0.5 * 10.0 ** -len(self.published.partition(".")[2])
        return not estimate.low - half <= float(self.published) <= estimate.high + half


@dataclass(frozen=True)
class Pair:
    """A measured row and its published counterpart. ``updates`` are those of its seeds' trainings."""

    measured: MainRow
    published: PublishedRow
    values: list[Value]
    updates: tuple[int, ...]

    @property
    def name(self) -> str:
        """The measured row, with what it was trained on."""
        return f"{self.measured.method} on {self.measured.subset}" if self.measured.subset else self.measured.method


@dataclass(frozen=True)
class Comparison:
    """What a report says of the published numbers; without ``pairs`` it only says why there are none."""

    about: str
    pairs: list[Pair]
    notes: list[str]

    @property
    def grids(self) -> list[Grid]:
        """The pairs as one table of three lines each, or none."""
        if not self.pairs:
            return []
        headers = ["Row", "", *(value.measured.metric.label for value in self.pairs[0].values)]
        return [Grid(headers, [line for pair in self.pairs for line in _lines(pair)])]


def compare(study: Study, sections: Sequence[Section]) -> Comparison:
    """Set the rows of the main table beside their published counterparts."""
    suite = study.experiment.suite
    if suite.name not in SUITES:
        about = (
            f"The suite {suite.name} has prompts and metrics of its own: none of its numbers compares with a published "
            "one, so none is shown."
        )
        return Comparison(about, [], [])
    rows: dict[tuple[str, str], MainRow] = {}
    for row in (row for section in sections for row in section.rows):
        rows.setdefault((row.method, row.subset), row)  # the base and the rows beside it stand in every section
    paired = [(row, _counterpart(study, row)) for row in rows.values()]
    pairs = [Pair(row, match, _values(row, match), _updates(study, row)) for row, match in paired if match]
    alone = [row.method for row, match in paired if not match]
    if not any(value.published for pair in pairs for value in pair.values):
        about = "No row of this report is one of the paper's, which post-trained SD3.5-Medium: nothing is compared."
        return Comparison(about, [], [])
    return Comparison(ABOUT, pairs, list(_notes(study, pairs, alone)))


def comparison_markdown(study: Study, comparison: Comparison) -> str:
    """The comparison with its notes and what the measured numbers were measured under."""
    parts = [head(study, "Beside the published numbers"), f"{comparison.about}\n"]
    parts += [f"\n{grid.markdown()}" for grid in comparison.grids]
    parts += ["\n" + "\n".join(f"- {markdown(note)}" for note in comparison.notes) + "\n"] if comparison.notes else []
    return "".join([*parts, "\n## Conditions\n\n", conditions.grid(study).markdown()])


def comparison_csv(comparison: Comparison) -> str:
    """One line per measured row and metric that has a published number. What was measured has seven digits."""
    headers = ["kind", "method", "subset", "metric", "version", "measured", "low", "high", "n", "N", "published"]
    headers += ["measured_minus_published", "apart", "source", "published_row", "published_iterations"]
    lines = []
    for pair in comparison.pairs:
        row, published = pair.measured, pair.published
        for value in (value for value in pair.values if value.published):
            metric, cell = value.measured.metric, value.measured.cell
            difference = value.difference
            line = [row.kind, row.method, row.subset, metric.name, str(metric.version), *bounds(cell.estimate)]
            line += [str(cell.n), str(cell.total), value.published]
            line += ["", ""] if difference is None else [digits(difference), str(int(value.apart))]
            iterations = "" if published.iterations is None else str(published.iterations)
            lines.append([*line, published.source, published.name, iterations])
    return Grid(headers, lines).csv()


def _values(row: MainRow, match: PublishedRow) -> list[Value]:
    cells = [cell for cell in row.cells if cell.metric.name in COLUMNS]
    return [Value(cell, match.values.get(COLUMNS[cell.metric.name], "")) for cell in cells]


def _updates(study: Study, row: MainRow) -> tuple[int, ...]:
    jobs = [job for job in study.jobs if (row.kind, job.method, job.subset) == ("method", row.method, row.subset)]
    return tuple(sorted({job.spent.updates for job in jobs}))


def _lines(pair: Pair) -> list[list[str]]:
    """What was measured, what is published, and the difference."""
    measured, published, differences = [], [], []
    for value in pair.values:
        metric, difference = value.measured.metric, value.difference
        # A page keeps the line break, which leaves room for seven metrics; Markdown has none in a cell.
        measured.append(cell_text(replace(value.measured, best=False)).replace(" [", "\n[", 1))
        published.append(value.published or "–")
        text = "–" if difference is None else metric.text(difference, "+")
        differences.append(f"{text} ≠" if value.apart else text)
    return [
        [pair.name, "measured", *measured],
        [pair.published.name, f"published, {pair.published.source}", *published],
        ["", "difference", *differences],
    ]


def _counterpart(study: Study, row: MainRow) -> PublishedRow | None:
    """The published row that a measured one repeats. Its end point, where several checkpoints are published."""
    published = [match for table in data.tables() for match in table.rows]
    # The latest checkpoint first; of rows that stand in two tables, the one of the first table.
    published.sort(key=lambda match: -(match.iterations or 0))
    ours = _is_sd35_medium(study.experiment.backbone)
    if row.kind == BASE:
        wanted = [match for match in published if match.measured_as == BASE and not match.subset and ours]
    elif row.kind == CONTEXT:
        wanted = [match for match in published if not match.subset and _plain(match.measured_as) == _plain(row.method)]
    elif row.kind == EVALUATED:
        records_of_row = (job.record.evaluated for job in study.evaluated if job.label == row.method and job.record)
        made: Mapping[str, Any] | None = next(records_of_row, None)
        tuned = made is not None and made.get("kind") in ("transformer", "lora")
        base = (made or {}).get("backbone") or study.experiment.backbone  # its own, where the record says it
        named = [match for match in published if _plain(row.method) in _names(match)]
        wanted = named if not tuned or _is_sd35_medium(base) else []
    else:
        wanted = [
            match for match in published if (match.measured_as, match.subset) == (row.method, row.subset) and ours
        ]
    return wanted[0] if wanted else None


def _names(match: PublishedRow) -> set[str]:
    """What an evaluated row may be called to be set beside this one: ``soar``, ``sft high_aesthetic``, ``SD3.5-L``."""
    subset = "" if match.subset == "all" else match.subset
    known = "stable-diffusion-3.5-medium" if match.measured_as == BASE else match.measured_as
    return {_plain(name + subset) for name in (match.name, known)}


def _is_sd35_medium(backbone: str) -> bool:
    return _plain(backbone).endswith(("stablediffusion35medium", "sd35medium", "sd35m"))


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _notes(study: Study, pairs: Sequence[Pair], alone: Sequence[str]) -> Iterator[str]:
    sampler = study.experiment.suite.sampler
    yield f"Published: {data.PAPER}."
    if any(value.measured.trained_on for pair in pairs for value in pair.values):
        yield TRAINED_ON
    if any(value.apart for pair in pairs for value in pair.values):
        yield "≠ No number that rounds to the published one lies in the measured 95 % interval."
    yield (
        f"The paper's SD3.5-M rows are sampled with {STEPS} steps, CFG {GUIDANCE} and {RESOLUTION} px; SD-XL and "
        "SD3.5-L are at 1024 px, and of FLUX.1-Dev it does not say."
    )
    if (sampler.steps, sampler.guidance_scale, sampler.resolution) != (STEPS, GUIDANCE, RESOLUTION):
        here = f"{sampler.steps} steps, CFG {sampler.guidance_scale:g} and {sampler.resolution} px"
        yield f"This suite samples with {here}, and the differences contain that."
    for pair in pairs:
        if pair.updates and pair.published.iterations:
            here = "–".join(count(updates) for updates in dict.fromkeys((pair.updates[0], pair.updates[-1])))
            yield f"{pair.name}: {here} updates here, {count(pair.published.iterations)} published."
    settings = {pair.measured.method: pair.measured.settings for pair in pairs if pair.measured.settings}
    for name, text in settings.items():
        yield f"{name}: {text}."
    if any(value.measured.metric.name == "ocr_rapid" for pair in pairs for value in pair.values):
        yield "OCR: the engine differs. RapidOCR reads here, PaddleOCR 2.9.1 in the paper's protocol."
    if alone:
        yield f"Without a published counterpart: {listed(list(dict.fromkeys(alone)))}."
