"""What chance alone does in this run, and which differences it could have seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.report import tables
from bench.report.components import components, fit_prior
from bench.report.page import power_curve
from bench.report.page.power_curve import PowerCurve
from bench.report.same_method import Rate
from bench.report.stats import scores_of
from bench.report.study import Study
from bench.report.tables import Section
from bench.report.text import Grid, percent

HEADERS = (
    "Metric",
    "Prompt",
    "Prompt × noise",
    "Residual",
    "Seed × prompt",
    "Seed",
    "Method × prompt",
    "Method × noise",
)


@dataclass(frozen=True)
class Noise:
    """Tables with their captions, and sentences under them."""

    grids: list[tuple[str, Grid]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def noise(study: Study, sections: Sequence[Section], rates: Mapping[str, Rate], curves: Sequence[PowerCurve]) -> Noise:
    """Empty where no two rows are judged and no row has two seeds.

    Args:
        rates: by metric's label, how often groups of seeds of one method are told apart.
    """
    sight = tables.could_have_seen(study, sections)
    made = Noise(notes=[sight] if sight else [])
    if not study.jobs:
        return made
    if curves:
        made.grids.append((power_curve.CAPTION, power_curve.grid(curves)))
        made.notes.append(
            "With more seeds: two methods alone, on this prompt list, from this run's components of variance. "
            "`bench power` also says what more prompts and pictures see, and what they cost."
        )
    rows = [
        [label, str(rate.verdicts), str(rate.comparisons), percent(rate.verdicts / rate.comparisons)]
        for label, rate in rates.items()
        if rate.comparisons
    ]
    if rows:
        grid = Grid(["Metric", "Told apart", "Comparisons", "Share"], rows)
        made.grids.append(("A/A: two groups of seeds of one method, compared as two methods are", grid))
        made.notes.append(
            "A/A: both groups have the same method, so every verdict on them is luck. One in twenty is expected."
        )
    if rows := _components(study):
        made.grids.append(("Where scores vary: standard deviations, in the metric's unit", Grid([*HEADERS], rows)))
        made.notes.append(
            "Standard deviations are square roots of the components of variance (docs/statistics.md). Seed is what a "
            "training adds to all prompts alike. Where each prompt has one picture, noise cannot be told from prompts: "
            "its columns then hold –, and Prompt, Seed × prompt and Method × prompt hold both."
        )
    return made


def _components(study: Study) -> list[list[str]]:
    """A row for each metric of which some row has two finished seeds."""
    rows = [row for subset in study.subsets for row in study.rows(subset) if len(row.jobs) > 1]
    made = []
    for metric in study.metrics:
        scored = [(s, row) for row in rows if (s := scores_of(row.jobs, study.fractions[-1], metric)) is not None]
        known, subsets = [scores for scores, _ in scored], [row.subset for _, row in scored]
        prior = fit_prior(known)
        if prior is None:
            continue
        found = components(known, prior, subsets)
        once = found.repeats == 1
        values = [found.prompt, None if once else found.prompt_noise, None if once else found.residual]
        values += [found.seed_prompt, found.seed_shift, found.method_prompt, None if once else found.method_noise]
        if len(subsets) == len({*subsets}):  # no two methods on one subset
            values[-2:] = None, None
        made.append([metric.label, *("–" if value is None else metric.text(math.sqrt(value)) for value in values)])
    return made
