"""A/A: two groups of seeds of one method, compared as two methods are. Any verdict on them is luck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.records.schema import MetricRecord
from bench.report.intervals import LEVEL
from bench.report.stats import Difference, difference, estimate, scores_of, trainings_of
from bench.report.study import Row, Study
from bench.report.tables import bounds, difference_text, head
from bench.report.text import Grid, percent
from bench.rng import numpy_generator

MOST = 40
"""Ways to part the seeds of a row that are tried, evenly among all of them: six against six have 462."""

COUNTED = 10_000
"""So many ways to part seeds are listed; of more, ``MOST`` are drawn."""


@dataclass(frozen=True)
class Rate:
    """How many of the comparisons ended in a verdict."""

    verdicts: int
    comparisons: int


@dataclass(frozen=True)
class Parted:
    """One row in one metric, its seeds parted in two equal groups in many ways.

    Attributes:
        seeds: of each group.
        halves: the first half of the seeds minus the other half.
        rate: of all ways that were tried, that one among them.
    """

    row: Row
    metric: MetricRecord
    seeds: int
    halves: Difference
    rate: Rate


def parted(study: Study) -> list[Parted]:
    """Every row of four seeds or more in every metric, at the end of its budget.

    The groups are drawn without repetition from the seeds of all given runs, each group of half of them. Seeds of
    several runs of one method count together: ``bench report runs/a runs/b``. The noise of trainings is that of the
    row's own seeds and of all other rows', as in every table.
    """
    made = []
    rows = [row for subset in study.subsets for row in study.rows(subset) if len(row.jobs) >= 4]
    known = trainings_of(study, study.fractions[-1])
    ways = {number: halves(number) for number in {len(row.jobs) for row in rows}}
    for metric in study.metrics:
        of_metric = known[metric.name]
        for row in rows:
            of_row = scores_of(row.jobs, study.fractions[-1], metric)
            if of_row is None or of_metric.prior is None:
                continue
            keys = tuple(("", str(number)) for number in range(len(of_row.strata)))
            found = []
            for groups in ways[len(row.jobs)]:
                one, other = (estimate(of_row.of_seeds(group), keys, trainings=of_metric) for group in groups)
                found.append(difference(one, other))
            rate = Rate(sum(each.excludes_zero for each in found), len(found))
            made.append(Parted(row, metric, len(row.jobs) // 2, found[0], rate))
    return made


def rates(study: Study, found: Sequence[Parted]) -> dict[str, Rate]:
    """Verdicts of all rows together, by metric's label."""
    made = {}
    for metric in study.metrics:
        of_metric = [each.rate for each in found if each.metric.name == metric.name]
        made[metric.label] = Rate(sum(r.verdicts for r in of_metric), sum(r.comparisons for r in of_metric))
    return made


def markdown(study: Study, found: Sequence[Parted]) -> str:
    """A line for each row and metric, with how to read it."""
    grid = Grid(
        ["Method", "Subset", "Seeds", "Metric", "First half minus the other", "Verdicts", "Of", "Share"],
        [
            [
                each.row.method,
                each.row.subset,
                f"{each.seeds} against {each.seeds}",
                each.metric.label,
                difference_text(each.metric, each.halves) + (" (a verdict)" if each.halves.excludes_zero else ""),
                *_counts(each.rate),
            ]
            for each in found
        ],
    )
    notes = [
        "Both groups are seeds of one method, compared as two methods are, with a 95 % interval for this prompt list. "
        "Every verdict is luck.",
        f"The nominal rate is {percent(1 - LEVEL)}. All rows: {_said(rates(study, found))}.",
        "Verdicts are counted over many ways to part the same seeds. Such ways share seeds, so the share of one row "
        "can be well above or below the nominal rate by chance. Over many rows it is close to that rate.",
    ]
    return "".join([head(study, "Same method"), grid.markdown(), "\n", *(f"- {note}\n" for note in notes)])


def csv(found: Sequence[Parted]) -> str:
    """The same in seven digits. ``verdicts`` of ``comparisons`` ways to part the seeds exclude zero."""
    headers = ["subset", "method", "metric", "seeds_of_each", "difference", "low", "high", "excludes_zero"]
    rows = [
        [
            each.row.subset,
            each.row.method,
            each.metric.name,
            str(each.seeds),
            *bounds(each.halves),
            str(int(each.halves.excludes_zero)),
            str(each.rate.verdicts),
            str(each.rate.comparisons),
        ]
        for each in found
    ]
    return Grid([*headers, "verdicts", "comparisons"], rows).csv()


def _counts(rate: Rate) -> list[str]:
    return [str(rate.verdicts), str(rate.comparisons), percent(rate.verdicts / rate.comparisons)]


def _said(found: Mapping[str, Rate]) -> str:
    return ", ".join(f"{label} {r.verdicts} of {r.comparisons}" for label, r in found.items() if r.comparisons)


Halves = tuple[tuple[int, ...], tuple[int, ...]]


def halves(number: int) -> list[Halves]:
    """Two groups of half of so many seeds each, no pair of groups twice; one seed is left out of an odd number.

    The first pair is the first half of the seeds and those that follow. Of few ways every n-th is taken, of many some
    are drawn, always the same.
    """
    half = number // 2
    ways = math.comb(number, half) * math.comb(number - half, half) // 2
    if ways > COUNTED:
        found = {(tuple(range(half)), tuple(range(half, 2 * half))): None}
        generator = numpy_generator("same-method", number)
        while len(found) < MOST:
            order = generator.permutation(number).tolist()
            one, other = sorted([tuple(sorted(order[:half])), tuple(sorted(order[half : 2 * half]))])
            found[one, other] = None
        return [*found]
    seeds = range(number)
    pairs = [
        (one, other)
        for one in combinations(seeds, half)
        for other in combinations([seed for seed in seeds if seed not in one], half)
        if one < other
    ]
    return pairs[:: -(-ways // MOST)]
