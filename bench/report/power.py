"""What it takes to see a given difference of two methods: power and cost from components of variance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.errors import BenchError, unknown
from bench.records.schema import MetricRecord
from bench.report.components import Variance, components, fit_prior, summed
from bench.report.intervals import smallest
from bench.report.seed_noise import MetricNoise, NoiseFile
from bench.report.stats import scores_of
from bench.report.study import Study

SEEDS, REPEATS = range(1, 13), (1, 2, 4, 8)
"""Designs that are tried: trainings of a method, and pictures of a prompt with noise of their own."""


def measure(studies: Sequence[Study]) -> NoiseFile:
    """Components of every metric from studies of one suite and backbone: what a noise file holds.

    Raises:
        BenchError: no two rows have two trainings, or the studies are not of one suite and backbone.
    """
    first = studies[0].experiment
    key = first.suite.name, first.suite.version, first.backbone_hash
    if any((e.suite.name, e.suite.version, e.backbone_hash) != key for s in studies for e in s.experiments):
        raise BenchError("these runs are not of one suite, version and backbone; a noise file is of one")
    rows = [(s, row) for s in studies for subset in s.subsets for row in s.rows(subset) if len(row.jobs) > 1]
    metrics = {}
    for metric in first.suite.metrics:
        known = [scores for s, row in rows if (scores := scores_of(row.jobs, s.fractions[-1], metric)) is not None]
        prior = fit_prior(known)
        if prior is None or not prior.df:  # of one row, nobody knows how rows differ
            continue
        parts, scores = components(known, prior), known[0]
        values = {float(v) for each in known for v in each.values.ravel() if v == v}
        metrics[metric.name] = MetricNoise(
            version=metric.version,
            mean=fmean(each.mean for each in known),
            low=metric.low,
            high=metric.high,
            binary=values <= {0.0, 1.0},
            groups=[int((scores.strata == group).sum()) for group in sorted(set(scores.strata.tolist()))],
            repeats=parts.repeats,
            prompt=parts.prompt,
            prompt_noise=parts.prompt_noise,
            residual=parts.residual,
            seed_prompt=parts.seed_prompt,
            seed_shift=parts.seed_shift,
            method_prompt=parts.method_prompt,
            method_noise=parts.method_noise,
            df=parts.seed_df,
        )
    if not metrics:
        raise BenchError(
            "no two rows of these runs have two finished seeds each, so how much trainings and methods differ is "
            "unknown; run two methods or more with more seeds, e.g. --methods sft,soar --seeds 0,1,2"
        )
    names = dict.fromkeys(e.name for s in studies for e in s.experiments)
    jobs = sum(len(row.jobs) for _, row in rows)
    return NoiseFile(
        v=1, suite=key[0], suite_version=key[1], backbone_hash=key[2], runs=[*names], rows=len(rows), jobs=jobs,
        metrics=metrics,
    )  # fmt: skip


@dataclass(frozen=True)
class Design:
    """Two methods with ``seeds`` trainings each, on ``prompts`` prompts with ``repeats`` pictures of each."""

    seeds: int
    prompts: int
    repeats: int


def variance(noise: MetricNoise, design: Design, like: bool = False) -> Variance:
    """Of the difference of two methods. Groups of prompts keep their proportions.

    Without repeats in the reference runs, noise cannot be told from prompts: what both add then counts in full, and is
    not made smaller by repeats.
    """
    groups, seeds, repeats = noise.groups, design.seeds, design.repeats
    size = sum(1 / n for n in groups) / len(groups) ** 2 * sum(groups) / design.prompts
    pictures = 2 * noise.seed_prompt / seeds + (noise.method_noise + 2 * noise.residual / seeds) / repeats
    if like or noise.repeats == 1:
        pictures += noise.method_prompt
    return summed([Variance(2 * noise.seed_shift / seeds, noise.df + seeds - 1), Variance(size * pictures, math.inf)])


def designs(noise: MetricNoise, difference: float, power: float) -> Iterator[Design]:
    """On the suite's own prompts, the designs that see a difference: of each number of seeds the fewest pictures."""
    for seeds in SEEDS:
        for repeats in REPEATS:
            design = Design(seeds, sum(noise.groups), repeats)
            if smallest(variance(noise, design), power) <= difference:
                yield design
                break


def prompts_needed(noise: MetricNoise, difference: float, power: float, seeds: int, repeats: int) -> int | None:
    """Prompts that prompts like these take to show a difference; None where no number of them does."""
    fewest, most = 1, 1_000_000
    if smallest(variance(noise, Design(seeds, most, repeats), like=True), power) > difference:
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        enough = smallest(variance(noise, Design(seeds, middle, repeats), like=True), power) <= difference
        fewest, most = (fewest, middle) if enough else (middle + 1, most)
    return fewest


@dataclass(frozen=True)
class Costs:
    """Seconds of this machine: of a training, and of drawing a picture of the suite."""

    training: float
    picture: float

    def of(self, design: Design) -> float:
        """Seconds that two methods take."""
        return 2 * design.seeds * (self.training + design.prompts * design.repeats * self.picture)


def costs(study: Study) -> Costs:
    """Measured on a study's jobs: their mean training time, and a picture by its FLOPs at the fastest job's speed.

    Records hold no time of evaluations. A picture is two forwards a step with guidance and one without; the FLOPs of a
    forward are those of the job that spent least on anything else. Scoring is not in it.
    """
    spent = [job.spent for job in study.jobs if job.spent.seconds and job.spent.flops and job.spent.forwards]
    if not spent:
        raise BenchError("no job of these runs holds a clock reading, so nothing is known of cost")
    forward = min(s.flops / (s.forwards + 2 * s.backwards) for s in spent)
    sampler = study.experiment.suite.sampler
    forwards = sampler.steps * (2 if sampler.guidance_scale != 1 else 1)
    speed = min(s.seconds / s.flops for s in spent)
    return Costs(fmean(s.seconds for s in spent), forwards * forward * speed)


def metric_of(study: Study, name: str) -> MetricRecord:
    """A column by its name or its label, in any case. BenchError for another."""
    for metric in study.metrics:
        if name.casefold() in (metric.name.casefold(), metric.label.casefold()):
            return metric
    raise unknown("metric", name, [metric.name for metric in study.metrics])
