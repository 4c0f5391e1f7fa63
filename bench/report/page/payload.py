"""What the page's scripts draw from: numbers of every row, metric, pair and checkpoint, as one JSON document.

Numbers are rounded to five significant digits; the csv files hold them in full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.schema import MetricRecord
from bench.report.looks import looks
from bench.report.page import verdicts
from bench.report.plots import Point
from bench.report.stats import Cell, Interval, difference
from bench.report.study import StudiedJob, Study
from bench.report.tables import MainRow, Section

Lines = Mapping[tuple[str, str, str], Sequence[Point]]
"""What ``plots.dynamics`` returns."""


def payload(study: Study, sections: Sequence[Section], lines: Lines, browser: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the scripts know of a study. The order of rows and metrics is that of the tables."""
    names = dict.fromkeys(row.method for section in sections for row in section.rows)
    return {
        "budget": study.experiment.budget,
        "currency": study.budget.currency if study.jobs else "",
        "metrics": [_metric(metric) for metric in study.metrics],
        "looks": {name: {"symbol": look.symbol, "number": i} for i, (name, look) in enumerate(looks(names).items())},
        "subsets": [_subset(study, section, lines) for section in sections],
        "browser": browser,
    }


def text(value: Mapping[str, Any]) -> str:
    """JSON that may stand in a page's script: no ``<`` ends it."""
    document = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return document.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def rounded(value: float, digits: int = 5) -> float:
    """A number with so many significant digits; a whole one without a point."""
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def _metric(metric: MetricRecord) -> dict[str, Any]:
    better = (1 if metric.higher_is_better else -1) if metric.ranked else 0
    return {
        "name": metric.name, "label": metric.label, "heading": metric.heading, "format": metric.format,
        "better": better, "grouped": metric.grouped, "set": metric.prompt_set,
    }  # fmt: skip


def _subset(study: Study, section: Section, lines: Lines) -> dict[str, Any]:
    rows = [row for row in section.rows if row.cells]
    asked = verdicts.questions(study, section)
    return {
        "name": section.subset,
        "target": verdicts.target(study, section).name,
        "reference": verdicts.reference(study, section),
        "rows": [_row(study, row) for row in rows],
        "pairs": _pairs([[c.cell for c in row.cells] for row in rows]),
        "verdicts": [[q.row, q.against, q.target.badge, q.target.word, q.text, q.cost] for q in asked],
        "dynamics": _dynamics(study, section, rows, lines) if study.jobs else None,
    }


def _row(study: Study, row: MainRow) -> dict[str, Any]:
    jobs, fraction = jobs_of(study, row)
    spent = [job.spent for job in jobs] if row.kind == "method" else []
    return {
        "name": row.method,
        "kind": row.kind,
        "seeds": [job.seed for job in jobs] if row.kind == "method" else [],
        "spent": [rounded(sum(values) / len(spent)) for values in _amounts(spent)] if spent else [0, 0, 0],
        "share": row.share_text,
        "cells": [
            {
                "at": _interval(c.cell.estimate),
                "n": c.cell.counts,
                "trained": c.trained_on,
                "best": c.best,
                "seeds": _seeds(jobs, fraction, c.metric) if c.cell.estimate else [],
                "tasks": _tasks(jobs, fraction, c.metric) if c.cell.estimate and c.metric.grouped else {},
            }
            for c in row.cells
        ],
    }


def jobs_of(study: Study, row: MainRow) -> tuple[list[StudiedJob], float]:
    """The jobs of a row of the main table, and the share of the budget that the table shows."""
    if row.kind == "method":
        return [job for r in study.rows(row.subset) if r.method == row.method for job in r.jobs], study.fractions[-1]
    if row.kind == "base":
        return [*study.start], 0.0
    return [job for job in (*study.context, *study.evaluated) if job.label == row.method], 0.0


def _amounts(spent: Sequence[Any]) -> list[list[float]]:
    return [[m.flops for m in spent], [m.updates for m in spent], [m.seconds for m in spent]]


def _interval(interval: Interval | None) -> list[float] | None:
    return [rounded(value) for value in (interval.mean, interval.low, interval.high)] if interval else None


def _by_task(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> dict[str, list[float]]:
    """Scores of a metric by task."""
    found: dict[str, list[float]] = {}
    for job in jobs:
        evaluation = job.at(fraction)
        for sample in evaluation.samples if evaluation else ():
            score = sample.scores.get(metric.name)
            if sample.prompt_set == metric.prompt_set and score is not None and score.score is not None:
                found.setdefault(sample.group, []).append(score.score)
    return found


def _seeds(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> list[float]:
    """The metric of each seed alone: the mean of the tasks' means where it has tasks."""
    means = []
    for job in jobs:
        tasks = _by_task([job], fraction, metric)
        groups = [*tasks.values()] if metric.grouped else [[score for scores in tasks.values() for score in scores]]
        means.append(rounded(sum(sum(scores) / len(scores) for scores in groups) / len(groups)))
    return means


def _tasks(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> dict[str, list[float]]:
    """By task: the mean over all seeds, and how many pictures that is."""
    found = _by_task(jobs, fraction, metric)
    return {task: [rounded(sum(scores) / len(scores)), len(scores)] for task, scores in sorted(found.items())}


def _pairs(rows: Sequence[Sequence[Cell]]) -> dict[str, list[list[float] | None]]:
    """``"i,j"`` with i > j to the differences of row i and row j, one for each metric."""
    found = {}
    for i, one in enumerate(rows):
        for j, other in enumerate(rows[:i]):
            found[f"{i},{j}"] = [
                _interval(difference(a.estimate, b.estimate)) if a.estimate and b.estimate else None
                for a, b in zip(one, other, strict=True)
            ]
    return found


def _dynamics(study: Study, section: Section, rows: Sequence[MainRow], lines: Lines) -> dict[str, Any]:
    """By row: what was spent at each checkpoint, and each metric there. The base is a point that spent nothing."""
    spent, values = [], []
    cells: list[list[list[Cell]]] = []
    for row in rows:
        points = [lines.get((section.subset, row.method, metric.name), ()) for metric in study.metrics]
        if row.kind != "method":
            points = [[Point(0.0, 0.0, c.cell)] for c in row.cells]
        spent.append([_spent(study, row, point.fraction) for point in points[0]])
        values.append([[_interval(point.cell.estimate) for point in of] for of in points])
        cells.append([[point.cell for point in of] for of in points])
    return {"spent": spent, "values": values, "pairs": _paired(rows, cells)}


def _paired(rows: Sequence[MainRow], cells: Sequence[Sequence[Sequence[Cell]]]) -> dict[str, Any]:
    """As ``_pairs``, at each checkpoint; a row that has one point is held against every checkpoint of the other."""
    found = {}
    for i, one in enumerate(cells):
        for j, other in enumerate(cells[:i]):
            if rows[i].kind != "method":
                continue  # what was not trained has no checkpoints of its own
            found[f"{i},{j}"] = [
                [
                    _interval(difference(a.estimate, b.estimate)) if a.estimate and b.estimate else None
                    for a, b in zip(ours, theirs if len(theirs) > 1 else [*theirs] * len(ours), strict=True)
                ]
                for ours, theirs in zip(one, other, strict=True)
            ]
    return found


def _spent(study: Study, row: MainRow, fraction: float) -> list[float]:
    jobs, _ = jobs_of(study, row)
    at = [evaluation.spent for job in jobs if (evaluation := job.at(fraction))]
    return [rounded(sum(of) / len(at)) for of in _amounts(at)] if at and fraction else [0, 0, 0]
