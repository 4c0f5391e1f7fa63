"""Wins, ties and losses: each row against the reference row, image by image, on the same prompt and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from bench.errors import BenchError
from bench.records.schema import MetricRecord
from bench.report.stats import DIFFERENT_PROMPTS, Estimate
from bench.report.study import Study
from bench.report.tables import MainRow, Section, head
from bench.report.text import Grid, digits, markdown, whole_percent


@dataclass(frozen=True)
class Tally:
    """How often a row's image scores better than the reference row's, the same, and worse: shares that add up to 1.

    ``pairs`` of images were compared: every seed of the row with every seed of the reference row, image by image.
    """

    win: float
    tie: float
    loss: float
    pairs: int


@dataclass(frozen=True)
class Record:
    """One row against the ``reference``, by ranked metric. None where either has no complete cell.

    ``trained_on`` names the metrics that one of the two was trained on.
    """

    subset: str
    row: str
    reference: str
    tallies: dict[str, Tally | None]
    trained_on: frozenset[str]


def wins(study: Study, sections: Sequence[Section]) -> list[Record]:
    """The base and every method but the first of a subset, against the first: the reference row."""
    found = []
    for section in sections:
        reference, *others = [row for row in section.rows if row.kind == "method"]
        marked = _trained_on(reference)
        for row in (*(row for row in section.rows if row.kind == "base"), *others):
            tallies = {
                one.metric.name: tally(one.cell.estimate, other.cell.estimate, one.metric)
                for one, other in zip(row.cells, reference.cells, strict=True)
                if one.metric.ranked
            }
            found.append(Record(section.subset, row.method, reference.method, tallies, marked | _trained_on(row)))
    return found


def _trained_on(row: MainRow) -> frozenset[str]:
    return frozenset(cell.metric.name for cell in row.cells if cell.trained_on)


def tally(row: Estimate | None, reference: Estimate | None, metric: MetricRecord) -> Tally | None:
    """Compare the images of two rows. None where a score is missing.

    A grouped metric's share is the mean of its groups' shares, as the metric itself is the mean of its groups' means.
    So for a metric of 0 and 1, wins minus losses are the difference of the two cells.

    Raises:
        BenchError: the two rows hold different images.
    """
    if row is None or reference is None:
        return None
    ours, theirs = row.scores.values, reference.scores.values
    alike = row.prompts == reference.prompts and ours.shape[1:] == theirs.shape[1:]
    if not alike or (np.isnan(ours[0]) != np.isnan(theirs[0])).any():
        raise BenchError(DIFFERENT_PROMPTS)
    sign = 1 if metric.higher_is_better else -1
    gaps = sign * (ours[:, None] - theirs[None])  # (seeds, seeds of the reference, prompts, repeats)
    pairs = (~np.isnan(gaps)).sum((0, 1, 3))
    outcomes = (gaps > 0, gaps == 0, gaps < 0)
    win, tie, loss = (float(row.scores.weights @ (each.sum((0, 1, 3)) / pairs)) for each in outcomes)
    return Tally(win, tie, loss, int(pairs.sum()))


NOTES = (
    "Each cell: win / tie / loss in percent of the compared images, which have the same prompt and noise. Every seed "
    "of a row is compared with every seed of the reference row.",
    "A tie is an equal score. Groups count alike where the metric is a mean of groups.",
    "The shares have no interval. Which rows differ is said in differences.md.",
    "† One of the two rows was trained on this metric.",
)


def wins_markdown(study: Study, records: Sequence[Record]) -> str:
    """A table for each subset: a row for each row, a column for each ranked metric."""
    metrics = [metric for metric in study.metrics if metric.ranked]
    parts = []
    for subset, group in groupby(records, key=lambda record: record.subset):
        own = list(group)
        lines = [[record.row, *(_text(record, metric) for metric in metrics)] for record in own]
        grid = Grid([f"Against {own[0].reference}", *(metric.label for metric in metrics)], lines)
        parts.append(f"## Subset: {markdown(subset)}\n\n{grid.markdown()}\n")
    notes = NOTES if any(record.trained_on for record in records) else NOTES[:-1]
    return "".join([head(study, "Wins, ties and losses"), *parts, *(f"- {note}\n" for note in notes)])


def _text(record: Record, metric: MetricRecord) -> str:
    found = record.tallies[metric.name]
    mark = " †" if metric.name in record.trained_on else ""
    shares = map(whole_percent, (found.win, found.tie, found.loss)) if found else ("–",)
    return " / ".join(shares) + mark


def wins_csv(records: Sequence[Record]) -> str:
    """Every row and ranked metric, in seven digits; empty where a cell is incomplete."""
    lines = []
    for record in records:
        for metric, found in record.tallies.items():
            numbers = [*map(digits, (found.win, found.tie, found.loss)), str(found.pairs)] if found else [""] * 4
            trained = str(int(metric in record.trained_on))
            lines.append([record.subset, record.row, record.reference, metric, *numbers, trained])
    return Grid(["subset", "method", "reference", "metric", "win", "tie", "loss", "pairs", "trained_on"], lines).csv()
