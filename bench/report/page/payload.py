"""What the page's scripts draw from: numbers of every row, metric, pair and checkpoint, as one JSON document.

Numbers are rounded to five significant digits; the csv files hold seven.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.records import BASE
from bench.records.schema import MetricRecord
from bench.report.intervals import Interval
from bench.report.looks import looks
from bench.report.page import verdicts
from bench.report.page.power_curve import PowerCurve
from bench.report.pairs import Pairs
from bench.report.plots import Curves, Point
from bench.report.stats import Difference, Estimate, family, make_cell
from bench.report.study import StudiedJob, Study
from bench.report.tables import MainRow, Section


def payload(
    study: Study,
    sections: Sequence[Section],
    paired: Sequence[Pairs],
    lines: Curves,
    powers: Sequence[PowerCurve],
    browser: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the scripts know of a study. The order of rows and metrics is that of the tables.

    Args:
        paired: the ``pairs`` of each section.
    """
    names = dict.fromkeys(row.method for section in sections for row in section.rows)
    return {
        "budget": study.experiment.budget,
        "currency": study.budget.currency if study.jobs else "",
        "metrics": [_metric(metric) for metric in study.metrics],
        "looks": {name: {"symbol": look.symbol, "number": i} for i, (name, look) in enumerate(looks(names).items())},
        "subsets": [_subset(study, *of, lines) for of in zip(sections, paired, strict=True)],
        "power": [_power(curve) for curve in powers],
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


def _power(curve: PowerCurve) -> dict[str, Any]:
    lines = {str(seeds): [rounded(power, 3) for power in of] for seeds, of in curve.powers.items()}
    return {"metric": curve.metric.name, "at": [rounded(at) for at in curve.differences], "lines": lines}


def _subset(study: Study, section: Section, paired: Pairs, lines: Curves) -> dict[str, Any]:
    rows = section.rows
    asked = verdicts.questions(study, section, paired)
    return {
        "name": section.subset,
        "target": verdicts.target(study, section).name,
        "reference": verdicts.reference(study, section),
        "rows": [_row(study, row) for row in rows],
        "pairs": _pairs(paired),
        "verdicts": [[q.row, q.against, q.target.badge, q.target.word, q.text, q.cost] for q in asked],
        "dynamics": _dynamics(study, section, paired, lines) if study.jobs else None,
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


def _interval(interval: Interval | None) -> list[float | None] | None:
    """Mean, low and high; of one picture in all nothing says how far it may be off, and its bounds are None."""
    if interval is None:
        return None
    return [None if math.isnan(value) else rounded(value) for value in (interval.mean, interval.low, interval.high)]


def _by_task(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> dict[str, list[float]]:
    """Scores of a metric by task; all together of one without tasks."""
    found: dict[str, list[float]] = {}
    for job in jobs:
        evaluation = job.at(fraction)
        for (task, _), scores in evaluation.tally(metric).scores.items() if evaluation else ():
            found.setdefault(task, []).extend(scores)
    return found


def _seeds(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> list[float]:
    """The metric of each seed alone: the mean of the tasks' means where it has tasks."""
    means = []
    for job in jobs:
        groups = [*_by_task([job], fraction, metric).values()]
        means.append(rounded(sum(sum(scores) / len(scores) for scores in groups) / len(groups)))
    return means


def _tasks(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> dict[str, list[float]]:
    """By task: the mean over all seeds, and how many pictures that is."""
    found = _by_task(jobs, fraction, metric)
    return {task: [rounded(sum(scores) / len(scores)), len(scores)] for task, scores in sorted(found.items())}


def _pairs(paired: Pairs) -> dict[str, list[list[float | None] | None]]:
    """``"i,j"`` to the differences of row i minus row j, one for each metric, in the family of all rows minus j."""
    return {f"{i},{j}": [_interval(found) for found in of_metrics] for (i, j), of_metrics in paired.items()}


def _dynamics(study: Study, section: Section, paired: Pairs, lines: Curves) -> dict[str, Any]:
    """By row: what was spent at each checkpoint, and each metric there. The base is a point that spent nothing.

    Where evaluations on the way draw a part of the prompts, every row is narrowed to that part, as ``lines`` are. Where
    they draw all, the differences at the last checkpoint are those of the main table.
    """
    rows, curves = section.rows, study.of_every_evaluation()
    spent, values = [], []
    estimates: list[list[list[Estimate | None]]] = []
    methods = [row.method for row in rows if row.kind == "method"]
    for row in rows:
        points = [lines.get((section.subset, row.method, metric.name), ()) for metric in study.metrics]
        if row.kind == BASE and methods:
            points = [lines[section.subset, methods[0], metric.name][:1] for metric in study.metrics]
        elif row.kind != "method":
            jobs, fraction = jobs_of(curves, row)
            cells = [c.cell for c in row.cells]
            if curves.part:
                cells = [make_cell(jobs, fraction, of, listed=curves.listed(of)) for of in curves.metrics]
            points = [[Point(0.0, 0.0, cell)] for cell in cells]
        spent.append([_spent(study, row, point.fraction) for point in points[0]])
        estimates.append([[point.cell.estimate for point in of] for of in points])
        values.append([[_interval(estimate) for estimate in of] for of in estimates[-1]])
    return {"spent": spent, "values": values, "pairs": _paired(rows, estimates, None if curves.part else paired)}


def _paired(
    rows: Sequence[MainRow], estimates: Sequence[Sequence[Sequence[Estimate | None]]], last: Pairs | None
) -> dict[str, Any]:
    """As ``_pairs`` at each checkpoint, of methods alone: what was not trained has no checkpoints of its own.

    A row that has one point is held against every checkpoint of the others.

    Args:
        last: the differences at the last checkpoint, where they are known.
    """
    found: dict[str, Any] = {}
    for j, controls in enumerate(estimates):
        others = [i for i, row in enumerate(rows) if row.kind == "method" and i != j]
        if not others:
            continue
        for m, control in enumerate(controls):
            known = [last[i, j][m] for i in others] if last else None
            of_rows = _over_training(control, [estimates[i][m] for i in others], known)
            for i, of_row in zip(others, of_rows, strict=True):
                found.setdefault(f"{i},{j}", []).append(of_row)
    return found


def _over_training(
    control: Sequence[Estimate | None],
    others: Sequence[Sequence[Estimate | None]],
    last: Sequence[Difference | None] | None,
) -> list[list[list[float | None] | None]]:
    """One metric of every other row minus ``control``, by row and checkpoint. Each checkpoint has its own family."""
    starts = control if len(control) > 1 else [*control] * len(others[0])
    points = [*zip(starts, zip(*others, strict=True), strict=True)]
    found = [_at_once(start, at) for start, at in (points[:-1] if last else points)]
    return [[_interval(at) for at in of_row] for of_row in zip(*found, *([last] if last else []), strict=True)]


def _at_once(control: Estimate | None, others: Sequence[Estimate | None]) -> Sequence[Interval | None]:
    """A ``family``. What all have in common, as methods have their start, differs by nothing."""
    if control is not None and all(other is control for other in others):
        return [Interval(0.0, 0.0, 0.0)] * len(others)
    return family(control, others)


def _spent(study: Study, row: MainRow, fraction: float) -> list[float]:
    jobs, _ = jobs_of(study, row)
    at = [evaluation.spent for job in jobs if (evaluation := job.at(fraction))]
    return [rounded(sum(of) / len(at)) for of in _amounts(at)] if at and fraction else [0, 0, 0]
