"""How likely a run of this kind is to see a difference of two methods, by its size and by the number of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr

from bench.errors import BenchError
from bench.records.schema import MetricRecord
from bench.report import power
from bench.report.components import Variance
from bench.report.intervals import critical, smallest
from bench.report.study import Study
from bench.report.text import Grid

SEEDS = (1, 2, 3, 6, 12)
"""Trainings of each of two methods for which a curve is drawn. Ours."""
POINTS = 25
"""Differences along a curve. It ends where three seeds see nearly every difference. Ours."""

CAPTION = "Smallest difference of two methods that is seen with 80 % power, by the seeds of each"


@dataclass(frozen=True)
class PowerCurve:
    """Of one metric: its ``differences``, and for each number of seeds the power at each of them."""

    metric: MetricRecord
    differences: Sequence[float]
    powers: dict[int, list[float]]
    seen: dict[int, float]


def power_curves(study: Study) -> list[PowerCurve]:
    """Of each ranked metric, on the suite's prompts and from this run's own components of variance.

    The prompts and the pictures of a prompt are those of the run. Empty where no row has two finished seeds.
    """
    try:
        measured = power.measure([study]).metrics
    except BenchError:
        return []
    curves = []
    for metric in (metric for metric in study.metrics if metric.ranked and metric.name in measured):
        noise = measured[metric.name]
        variances = {
            seeds: power.variance(noise, power.Design(seeds, sum(noise.groups), noise.repeats)) for seeds in SEEDS
        }
        most = 2 * smallest(variances[3])
        if not 0 < most < math.inf:
            continue
        differences = [most * i / (POINTS - 1) for i in range(POINTS)]
        powers = {seeds: [_power(of, difference) for difference in differences] for seeds, of in variances.items()}
        curves.append(PowerCurve(metric, differences, powers, {s: smallest(of) for s, of in variances.items()}))
    return curves


def _power(variance: Variance, difference: float) -> float:
    """The chance that an interval excludes zero on the right side: the inverse of ``intervals.smallest``."""
    error = math.sqrt(variance.value)
    return float(stdtr(min(variance.df, 1e7), difference / error - critical(variance.df))) if error else 1.0


def grid(curves: Sequence[PowerCurve]) -> Grid:
    """The differences that are seen, by metric and seeds."""
    headers = ["Metric", *(f"{seeds} seed{'s' if seeds > 1 else ''}" for seeds in SEEDS)]
    return Grid(headers, [[c.metric.label, *(c.metric.text(c.seen[seeds]) for seeds in SEEDS)] for c in curves])
