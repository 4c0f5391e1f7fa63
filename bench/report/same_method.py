"""A/A: two groups of seeds of one method, compared as two methods are. Any verdict on them is luck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from bench.records.schema import MetricRecord
from bench.report.components import fit_prior
from bench.report.stats import Trainings, difference, estimate, scores_of
from bench.report.study import Row, Study

MOST = 40
"""Ways to part the seeds of a row that are tried, evenly among all of them: six against six have 462."""


@dataclass(frozen=True)
class Rate:
    """How many of the comparisons ended in a verdict."""

    verdicts: int
    comparisons: int


def same_method(study: Study) -> dict[str, Rate]:
    """By metric's label: verdicts between two equal groups of the seeds of one row, at the end of its budget.

    The groups are drawn without repetition from the seeds of all given runs, each group of half of them. Seeds of
    several runs of one method count together: ``bench report runs/a runs/b``. The noise of trainings is that of the
    row's own seeds and of all other rows', as in every table.
    """
    return {metric.label: _rate(study, metric) for metric in study.metrics}


def _rate(study: Study, metric: MetricRecord) -> Rate:
    found = []
    rows = [row for subset in study.subsets for row in study.rows(subset)]
    scores = {(row.method, row.subset): scores_of(row.jobs, study.fractions[-1], metric) for row in rows}
    prior = fit_prior([of_row for of_row in scores.values() if of_row is not None])
    for row in rows:
        of_row = scores[row.method, row.subset]
        if of_row is None or len(row.jobs) < 4 or prior is None:
            continue
        keys = tuple(("", str(number)) for number in range(len(of_row.strata)))
        for groups in _halves(row):
            one, other = (estimate(of_row.of_seeds(group), keys, trainings=Trainings(prior)) for group in groups)
            found.append(difference(one, other).excludes_zero)
    return Rate(sum(found), len(found))


def _halves(row: Row) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Two groups of half of the seeds each, every pair of groups once; one seed is left out of an odd number."""
    seeds, half = range(len(row.jobs)), len(row.jobs) // 2
    pairs = [
        (one, other)
        for one in combinations(seeds, half)
        for other in combinations([seed for seed in seeds if seed not in one], half)
        if one < other
    ]
    yield from pairs[:: -(-len(pairs) // MOST)]
