"""The objective of a search: which of two trials is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from bench.errors import BenchError
from bench.records.schema import MetricRecord
from bench.report.stats import Cell, make_cell
from bench.report.study import StudiedJob, Study, read_job

MEAN = "mean over the ranked columns"
"""The default objective.

One metric alone would choose the settings that push it at the cost of the others, which is reward hacking by hand.
"""


@dataclass(frozen=True)
class Scored:
    """A trial's outcome. ``value`` is None where it failed, for the ``reason``.

    ``metrics`` are its means by label, ``base`` those of the base that they are held against.
    """

    value: float | None
    metrics: Mapping[str, float]
    base: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def judge(folders: Sequence[Path], objective: str = "") -> Scored:
    """Score one trial from its finished jobs: the mean over them of ``gain``.

    Raises:
        BenchError: the base lacks a column, so that nothing can be held against it.
    """
    gains, metrics, base = [], dict[str, list[float]](), dict[str, float]()
    for folder in folders:
        study = read_job(folder)
        [job] = study.jobs
        cells = {metric.name: make_cell([job], 1.0, metric) for metric in study.metrics}
        for metric in study.metrics:
            if estimate := cells[metric.name].estimate:
                metrics.setdefault(metric.label, []).append(estimate.mean)
            if known := make_cell(study.start, 0.0, metric).estimate:
                base[metric.label] = known.mean
        columns = columns_of(study, objective)
        if short := next((m for m in columns if cells[m.name].estimate is None), None):
            return Scored(None, {}, reason=f"{short.label}: {cells[short.name].gap}")
        assert study.base is not None
        gains.append(gain(study.base, columns, cells))
    return Scored(fmean(gains), {label: fmean(values) for label, values in metrics.items()}, base)


def columns_of(study: Study, objective: str) -> list[MetricRecord]:
    """The columns that count: the named one, or all with a better direction, the same for every method.

    The metric that a method was rewarded with is among them. Without it, standing still would be the best setting of
    every method that learns from a reward, as nothing else that it moves can gain; the other columns are there to
    count what overfitting the reward costs.
    """
    return [metric for metric in study.metrics if (metric.name == objective if objective else metric.ranked)]


def gain(base: StudiedJob, columns: Sequence[MetricRecord], cells: Mapping[str, Cell]) -> float:
    """Mean over ``columns`` of the improvement over the base, in standard deviations of the base's images.

    For a column with mean m of the job and m0 of the base, and s0 the sample standard deviation of the base's scores
    over images: (m - m0) / s0, with the sign turned where lower is better. Means are those of the report. A column in
    which the base's images all score alike has no such unit and is left out.
    """
    gains = []
    for metric in columns:
        mean, spread = _base(base, metric)
        cell = cells[metric.name].estimate
        assert cell is not None
        if spread:
            gains.append((1 if metric.higher_is_better else -1) * (cell.mean - mean) / spread)
    if not gains:
        raise BenchError("the base scores all images alike in every column that counts; name another --objective")
    return fmean(gains)


def _base(base: StudiedJob, metric: MetricRecord) -> tuple[float, float]:
    """Mean and standard deviation over images of the base in a column."""
    cell, evaluation = make_cell([base], 0.0, metric), base.at(0.0)
    if cell.estimate is None or evaluation is None:
        raise BenchError(
            f"the base's column {metric.label} is incomplete ({cell.gap}), and trials are compared with it: "
            f"{cell.remedy or 'see its evaluation'}, then `bench score` the run, or name an --objective"
        )
    scores = [score for _, score in evaluation.scores(metric)]
    return cell.estimate.mean, stdev(scores) if len(scores) > 1 else 0.0
