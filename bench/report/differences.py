"""How methods differ from each other: paired, on the same prompts and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from bench.report.read import Metric, Study
from bench.report.stats import Interval, difference
from bench.report.tables import MainCell, MainRow, Section, difference_text, head
from bench.report.text import Grid


def grids(study: Study, sections: Sequence[Section]) -> list[tuple[str, Grid]]:
    """For each subset, every method minus the first one: a row for each, a column for each metric.

    ▲ better and ▼ worse where the interval excludes zero; † as in the main table. Empty with fewer than two methods.
    """
    found = []
    for section in sections:
        methods = _methods(section)
        if len(methods) > 1:
            first = methods[0]
            headers = [f"Minus {first.method}", *(metric.heading for metric in study.metrics)]
            rows = [[row.method, *map(_text, row.cells, first.cells)] for row in methods[1:]]
            found.append((section.subset, Grid(headers, rows)))
    return found


def notes(sections: Sequence[Section]) -> list[str]:
    """How to read them, and how many there are."""
    pairs = sum(1 for _ in _pairs(sections))
    return [
        "The paired difference of two methods on the same prompts and noise, with its 95 % interval; ▲ better, ▼ "
        "worse, where that interval excludes zero.",
        f"All {pairs} pairs are in differences.csv. Of so many intervals, one in twenty excludes zero by chance alone.",
    ]


def markdown(study: Study, sections: Sequence[Section]) -> str:
    """The tables of every subset, with their notes."""
    parts = [head(study, "Differences")]
    for subset, grid in grids(study, sections):
        parts.append(f"## Subset: {subset}\n\n{grid.markdown()}\n")
    return "".join([*parts, *(f"- {note}\n" for note in notes(sections))])


def csv(study: Study, sections: Sequence[Section]) -> str:
    """Every pair of methods and every metric, in full precision; empty where a cell is incomplete."""
    rows = []
    for section, one, other in _pairs(sections):
        for a, b in zip(one.cells, other.cells, strict=True):
            found = _difference(a, b)
            values = ["", "", ""] if found is None else [repr(v) for v in (found.mean, found.low, found.high)]
            told = "" if found is None else str(int(found.excludes_zero))
            rows.append([section.subset, one.method, other.method, a.metric.name, *values, told])
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
    found = _difference(one, other)
    mark = " †" if one.trained_on or other.trained_on else ""
    if found is None:
        return "–" + mark
    return f"{difference_text(one.metric, found)}{mark or _verdict(one.metric, found)}"


def _verdict(metric: Metric, found: Interval) -> str:
    if not (metric.ranked and found.excludes_zero):
        return ""
    return " ▲" if (found.mean > 0) == metric.higher_is_better else " ▼"
