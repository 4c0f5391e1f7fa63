"""Wins, ties and losses: each row against the reference row, image by image, on the same prompt and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.records import BASE
from bench.records.schema import MetricRecord
from bench.report.study import StudiedJob, Study
from bench.report.tables import Section, head
from bench.report.text import Grid, markdown

Key = tuple[str, str, int]
"""An image of a prompt set: group (empty where the metric has none), prompt, repeat."""


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
        reference, *others = study.rows(section.subset)
        final = study.fractions[-1]
        rows = [(BASE, study.start, 0.0)] if study.start else []
        rows += [(row.method, row.jobs, final) for row in others]
        trained = {row.method: {c.metric.name for c in row.cells if c.trained_on} for row in section.rows}
        for name, jobs, fraction in rows:
            tallies = {
                metric.name: tally(jobs, fraction, reference.jobs, final, metric)
                for metric in study.metrics
                if metric.ranked
            }
            marked = frozenset(trained.get(name, set()) | trained.get(reference.method, set()))
            found.append(Record(section.subset, name, reference.method, tallies, marked))
    return found


def tally(
    jobs: Sequence[StudiedJob],
    fraction: float,
    reference: Sequence[StudiedJob],
    reference_fraction: float,
    metric: MetricRecord,
) -> Tally | None:
    """Compare the images of two rows, each at one planned share of its budget. None where a score is missing.

    A grouped metric's share is the mean of its groups' shares, as the metric itself is the mean of its groups' means.
    So for a metric of 0 and 1, wins minus losses are the difference of the two cells.

    Raises:
        BenchError: the two rows hold different images.
    """
    ours, theirs = _scores(jobs, fraction, metric), _scores(reference, reference_fraction, metric)
    if ours is None or theirs is None:
        return None
    (keys, one), (other_keys, other) = ours, theirs
    if keys != other_keys:
        raise BenchError("two evaluations of this suite hold different prompts; evaluate them with the same suite")
    sign = 1 if metric.higher_is_better else -1
    gaps = sign * (one[:, None, :] - other[None, :, :])  # (seeds, seeds of the reference, images)
    sizes = [len(list(group)) for _, group in groupby(keys, key=lambda key: key[0])]
    starts = np.cumsum([0, *sizes[:-1]])
    win, loss = (float((np.add.reduceat(each.mean((0, 1)), starts) / sizes).mean()) for each in (gaps > 0, gaps < 0))
    return Tally(win, max(0.0, 1 - win - loss), loss, gaps.size)


def _scores(
    jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord
) -> tuple[list[Key], NDArray[np.float64]] | None:
    """The images in order, and their scores (seeds, images); None where one is missing."""
    seeds = []
    for job in jobs:
        evaluation = job.at(fraction)
        own: dict[Key, float] = {}
        for sample, score in evaluation.scores(metric) if evaluation else ():
            own[sample.group if metric.grouped else "", sample.prompt_id, sample.repeat] = score
        if len(own) != metric.images:
            return None
        seeds.append(own)
    keys = sorted(seeds[0]) if seeds else []
    if not keys:
        return None
    if any(own.keys() != seeds[0].keys() for own in seeds):
        raise BenchError("two evaluations of this suite hold different prompts; evaluate them with the same suite")
    return keys, np.array([[own[key] for key in keys] for own in seeds], dtype=np.float64)


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
    return f"{100 * found.win:.0f} / {100 * found.tie:.0f} / {100 * found.loss:.0f}{mark}" if found else f"–{mark}"


def wins_csv(records: Sequence[Record]) -> str:
    """Every row and ranked metric, in full precision; empty where a cell is incomplete."""
    lines = []
    for record in records:
        for metric, found in record.tallies.items():
            numbers = [repr(found.win), repr(found.tie), repr(found.loss), str(found.pairs)] if found else [""] * 4
            trained = str(int(metric in record.trained_on))
            lines.append([record.subset, record.row, record.reference, metric, *numbers, trained])
    return Grid(["subset", "method", "reference", "metric", "win", "tie", "loss", "pairs", "trained_on"], lines).csv()
