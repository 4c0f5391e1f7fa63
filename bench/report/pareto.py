"""Pareto fronts of two metrics: the rows that no other row beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

from bench.records.schema import MetricRecord
from bench.report.intervals import Interval
from bench.report.study import Study
from bench.report.tables import MainRow, Section, head
from bench.report.text import Grid, digits, listed, markdown


@dataclass(frozen=True)
class Place:
    """A row in the plane of two metrics.

    Attributes:
        competes: false where the row was trained on one of the two metrics, or used less of its budget than others.
            Such a row beats none and is on no front.
        beaten_by: rows that compete and are at least as good in both metrics, and better in one.
        overlaps: rows that compete and whose intervals overlap with this row's in both metrics.
    """

    row: str
    kind: str
    x: Interval
    y: Interval
    competes: bool
    beaten_by: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()

    @property
    def on_front(self) -> bool:
        """Whether no other row beats it, by point estimates."""
        return self.competes and not self.beaten_by


@dataclass(frozen=True)
class Front:
    """All rows of a subset with both metrics complete, in the order of the main table."""

    subset: str
    x: MetricRecord
    y: MetricRecord
    places: tuple[Place, ...]


def fronts(study: Study, sections: Sequence[Section]) -> list[Front]:
    """Every two ranked metrics of each subset. The base and the methods take part; other models spent no budget."""
    ranked = [number for number, metric in enumerate(study.metrics) if metric.ranked]
    found = []
    for section in sections:
        rows = [row for row in section.rows if row.kind in ("base", "method")]
        for i, j in combinations(ranked, 2):
            x, y = study.metrics[i], study.metrics[j]
            places = front(
                [place for row in rows if (place := _place(row, i, j))], x.higher_is_better, y.higher_is_better
            )
            found.append(Front(section.subset, x, y, tuple(places)))
    return found


def _place(row: MainRow, i: int, j: int) -> Place | None:
    """Where a row stands, or None where a cell is incomplete."""
    x, y = row.cells[i], row.cells[j]
    if x.cell.estimate is None or y.cell.estimate is None:
        return None
    competes = not (x.trained_on or y.trained_on or row.short)
    return Place(row.method, row.kind, x.cell.estimate, y.cell.estimate, competes)


def front(places: Sequence[Place], x_higher: bool, y_higher: bool) -> list[Place]:
    """The same places, with the rows that beat each and those that it is not told apart from."""
    signs = 1 if x_higher else -1, 1 if y_higher else -1

    def beats(one: Place, other: Place) -> bool:
        gains = signs[0] * (one.x.mean - other.x.mean), signs[1] * (one.y.mean - other.y.mean)
        return min(gains) >= 0 and max(gains) > 0

    made = []
    for place in places:
        rivals = [other for other in places if other.competes and other is not place]
        beaten = tuple(other.row for other in rivals if beats(other, place))
        close = tuple(o.row for o in rivals if _overlap(o.x, place.x) and _overlap(o.y, place.y))
        made.append(replace(place, beaten_by=beaten, overlaps=close))
    return made


def _overlap(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


NOTES = (
    "On the front: no other row is at least as good in both metrics and better in one, by point estimates.",
    "In brackets: rows whose 95 % intervals overlap with it in both metrics. The front does not tell these apart.",
    "A row that was trained on one of the two metrics (†), or that used less of its budget (‡), takes no part.",
)


def pareto_markdown(study: Study, made: Sequence[Front]) -> str:
    """A table for each subset: a line for each two metrics."""
    parts = []
    for subset, group in groupby(made, key=lambda front: front.subset):
        lines = [[f"{front.x.label} and {front.y.label}", _names(front)] for front in group]
        parts.append(f"## Subset: {markdown(subset)}\n\n{Grid(['Metrics', 'On the front'], lines).markdown()}\n")
    return "".join([head(study, "Pareto fronts"), *parts, *(f"- {note}\n" for note in NOTES)])


def _names(front: Front) -> str:
    names = [
        place.row + (f" [{', '.join(place.overlaps)}]" if place.overlaps else "")
        for place in front.places
        if place.on_front
    ]
    return listed(names) or "–"


def pareto_csv(made: Sequence[Front]) -> str:
    """Every row of every front in seven digits; several names in one cell have ``; `` between them."""
    headers = ["subset", "metric_x", "metric_y", "kind", "method", "x", "y", "competes", "on_front"]
    headers += ["beaten_by", "overlaps"]
    lines = [
        [
            *(front.subset, front.x.name, front.y.name, place.kind, place.row),
            *(digits(place.x.mean), digits(place.y.mean)),
            *(str(int(place.competes)), str(int(place.on_front))),
            *("; ".join(place.beaten_by), "; ".join(place.overlaps)),
        ]
        for front in made
        for place in front.places
    ]
    return Grid(headers, lines).csv()
