"""How methods differ from each other: paired, on the same prompts and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.records.schema import MetricRecord
from bench.report.stats import Interval, difference, make_cell
from bench.report.study import Study
from bench.report.tables import MainCell, MainRow, Section, difference_text, head
from bench.report.text import Grid, listed


@dataclass(frozen=True)
class Differences:
    """What a report says of how methods differ.

    Attributes:
        grids: for each subset, every method minus the first one: a row for each, a column for each metric.
        notes: how to read them, how many there are, and what the seeds of one method say of luck.
    """

    grids: list[tuple[str, Grid]]
    notes: list[str]


def differences(study: Study, sections: Sequence[Section]) -> Differences | None:
    """None with fewer than two methods. ▲ better, ▼ worse where the interval excludes zero; † as in the main table.

    A difference to a row of one seed gets neither.
    """
    grids = [(section.subset, _grid(study, *_methods(section))) for section in sections if len(_methods(section)) > 1]
    return Differences(grids, _notes(study, sections)) if grids else None


def _grid(study: Study, first: MainRow, *others: MainRow) -> Grid:
    headers = [f"Minus {first.method}", *(metric.heading for metric in study.metrics)]
    return Grid(headers, [[row.method, *map(_text, row.cells, first.cells)] for row in others])


def _notes(study: Study, sections: Sequence[Section]) -> list[str]:
    pairs = sum(1 for _ in _pairs(sections))
    alone = dict.fromkeys(row.name for section in sections for row in _methods(section) if not row.seeds_known)
    judged = any(one.seeds_known and other.seeds_known for _, one, other in _pairs(sections))
    unknown = (
        f"Seed variance unknown for {listed([*alone])}, of one seed: no difference to it is called better or worse."
    )
    return [
        "The paired difference of two methods on the same prompts and noise, with its 95 % interval"
        + ("; ▲ better, ▼ worse, where that interval excludes zero." if judged else "."),
        *([unknown] if alone else []),
        f"differences.csv has {'the one pair' if pairs == 1 else f'all {pairs} pairs'} of methods. One in twenty such "
        "intervals excludes zero by chance alone.",
        *_luck(distinct_seeds(study)),
    ]


def _luck(counts: dict[str, tuple[int, int]]) -> list[str]:
    shares = [f"{label} {distinct} of {count}" for label, (distinct, count) in counts.items() if count]
    if not shares:
        return []
    return [
        "Two seeds of one method differ by luck alone. This many of their differences exclude zero where intervals are "
        f"over prompts, as in a table of one seed: {', '.join(shares)}."
    ]


def distinct_seeds(study: Study) -> dict[str, tuple[int, int]]:
    """By metric, differences of two seeds of one row, with intervals of one seed: how many exclude zero, of all."""
    verdicts: dict[str, list[bool]] = {metric.label: [] for metric in study.metrics}
    for metric in study.metrics:
        for row in (row for subset in study.subsets for row in study.rows(subset)):
            seeds = [make_cell([job], study.fractions[-1], metric).estimate for job in row.jobs]
            pairs = combinations([estimate for estimate in seeds if estimate], 2)
            verdicts[metric.label] += [difference(one, other).excludes_zero for one, other in pairs]
    return {label: (sum(of_metric), len(of_metric)) for label, of_metric in verdicts.items()}


def markdown(study: Study, made: Differences) -> str:
    """The tables of every subset, with their notes."""
    parts = [f"## Subset: {subset}\n\n{grid.markdown()}\n" for subset, grid in made.grids]
    return "".join([head(study, "Differences"), *parts, *(f"- {note}\n" for note in made.notes)])


def csv(study: Study, sections: Sequence[Section]) -> str:
    """Every pair of methods and every metric, in full precision; empty where a cell is incomplete."""
    rows = []
    for section, one, other in _pairs(sections):
        for a, b in zip(one.cells, other.cells, strict=True):
            interval = _difference(a, b)
            values = ["", "", "", ""]
            if interval is not None:
                numbers = (interval.mean, interval.low, interval.high)
                values = [*map(repr, numbers), str(int(interval.excludes_zero))]
            rows.append([section.subset, one.method, other.method, a.metric.name, *values])
    return Grid(["subset", "method", "minus", "metric", "difference", "low", "high", "excludes_zero"], rows).csv()


def _methods(section: Section) -> list[MainRow]:
    return [row for row in section.rows if row.kind == "method"]


def _pairs(sections: Sequence[Section]) -> Iterator[tuple[Section, MainRow, MainRow]]:
    """The later row of each pair first, so that a difference says what it adds to the earlier."""
    for section in sections:
        for earlier, later in combinations(_methods(section), 2):
            yield section, later, earlier


def _difference(one: MainCell, other: MainCell) -> Interval | None:
    if one.cell.estimate is None or other.cell.estimate is None:
        return None
    return difference(one.cell.estimate, other.cell.estimate)


def _text(one: MainCell, other: MainCell) -> str:
    interval = _difference(one, other)
    mark = " †" if one.trained_on or other.trained_on else ""
    if interval is None:
        return "–" + mark
    verdict = _verdict(one.metric, interval) if one.judged and other.judged else ""
    return f"{difference_text(one.metric, interval)}{mark or verdict}"


def _verdict(metric: MetricRecord, interval: Interval) -> str:
    if not (metric.ranked and interval.excludes_zero):
        return ""
    return " ▲" if (interval.mean > 0) == metric.higher_is_better else " ▼"
