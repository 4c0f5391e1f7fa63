"""What it takes to see a given difference of two methods: power and cost from components of variance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

from bench.errors import BenchError, unknown
from bench.records.schema import MetricRecord
from bench.report.components import Scores, Variance, components, divided, fit_prior, summed
from bench.report.intervals import smallest
from bench.report.seed_noise import MetricNoise, NoiseFile
from bench.report.stats import scores_of
from bench.report.study import Row, Study

SEEDS, REPEATS = range(1, 13), (1, 2, 4, 8)
"""Designs that are tried: trainings of a method, and pictures of a prompt with noise of their own."""


OnSubset = tuple[Scores, str]
"""Scores of a row, and the subset that it was trained on."""


def measure(studies: Sequence[Study], methods: Sequence[str] = ()) -> NoiseFile:
    """Components of every metric from studies of one suite and backbone: what a noise file holds.

    Args:
        methods: whose rows to measure; none: all. Methods that are alike differ less, by prompt, than all do.

    Raises:
        BenchError: no two rows have two trainings, or the studies are not of one suite and backbone, or one training is
            in two of them that drew their prompts equally often; or no row has one of the methods.
    """
    names = dict.fromkeys(row.method for study in studies for row in study.trainings)
    for method in methods:
        if method not in names:
            raise unknown("method", method, [*names])
    suites = {(e.suite.name, e.suite.version) for s in studies for e in s.experiments}
    backbones = {backbone for s in studies for backbone in s.backbones}
    averages = {e.average_half_life or 0.0 for s in studies for e in s.experiments if e.jobs}
    if len(suites) > 1 or len(backbones) > 1 or len(averages) > 1:
        raise BenchError(
            "these runs are not of one suite, version, backbone and half-life of averaged weights; a noise file is "
            "of one"
        )
    ended = [(study, _ended(study, methods)) for study in studies]
    metrics = {}
    for metric in studies[0].metrics:
        found, again = _scores(ended, metric)
        known, subsets = [scores for scores, _ in found], [subset for _, subset in found]
        prior = fit_prior(known)
        if _lack(found, metric):
            continue
        assert prior is not None
        parts, scores = components(known, prior, subsets), known[0]
        if again and parts.repeats == 1:
            more, of_more = [scores for scores, _ in again], [subset for _, subset in again]
            parts = divided(parts, components(more, prior, of_more), max(Counter(of_more).values()))
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
            divided=parts.divided,
        )
    if not metrics:
        raise BenchError(
            "no two rows of one subset of these runs have two finished seeds each, so how much trainings and methods "
            "differ is unknown; run two methods or more with more seeds, e.g. --methods sft,soar --seeds 0,1,2"
        )
    runs = dict.fromkeys(e.name for s in studies for e in s.experiments)
    seeds = _trainings(ended)
    ((suite, version),), (backbone,) = suites, backbones
    return NoiseFile(
        v=1, suite=suite, suite_version=version, backbone_hash=backbone,
        average_half_life=next(iter(averages), None), runs=[*runs],
        rows=len({of_row[:-1] for of_row in seeds}), jobs=len(seeds), metrics=metrics,
    )  # fmt: skip


def lacking(studies: Sequence[Study], methods: Sequence[str] = ()) -> dict[str, str]:
    """Why ``measure`` knows nothing of a metric, by the name of each such metric."""
    ended = [(study, _ended(study, methods)) for study in studies]
    reasons = {metric.name: _lack(_scores(ended, metric)[0], metric) for metric in studies[0].metrics}
    return {name: reason for name, reason in reasons.items() if reason}


def _lack(found: Sequence[OnSubset], metric: MetricRecord) -> str:
    """Why components cannot be estimated from rows; empty where they can."""
    if not found:
        many = " and as many for a prompt as the suite draws" if metric.per_prompt else ""
        return f"no row has two finished seeds whose pictures are all scored{many}"
    if max(Counter(subset for _, subset in found).values()) < 2:
        return "no two rows of one subset have two finished seeds each"
    if sum(scores.images > 0 for scores, _ in found) < 2:  # nobody knows how rows differ in it
        return "the trainings of all rows, or of all but one, score alike on every prompt"
    return ""


def _trainings(ended: Sequence[tuple[Study, Sequence[Row]]]) -> set[tuple[str, str, str, int]]:
    """Run, method, subset and seed of what rows of several seeds hold: once where a run and an evaluation hold it."""
    found: dict[tuple[str, str, str, int], set[int]] = {}
    for study, rows in ended:
        repeats = study.experiment.suite.repeats
        for row in rows:
            for seed, job in zip(row.seeds, row.jobs, strict=True):
                run = study.run_of(job)
                drawn = found.setdefault((run, row.method, row.subset, seed), set())
                if repeats in drawn:
                    raise BenchError(
                        f"two of these folders hold pictures of {job.name}, seed {seed} of {row.method} of the run "
                        f"{run}, with the same repeats; name one of them"
                    )
                drawn.add(repeats)
    return set(found)


def _scores(
    ended: Sequence[tuple[Study, Sequence[Row]]], metric: MetricRecord
) -> tuple[list[OnSubset], list[OnSubset]]:
    """Rows with several trainings, of a metric: those drawn as often as the suite has it, and those drawn most often.

    The first say how much trainings and methods differ, the second which part of that is noise. Where no row was drawn
    as often as the suite, the second say both. What looks at all pictures of a prompt together (diversity) depends on
    how many there are. So it counts only where there are as many as the suite has.
    """
    found: dict[int, list[OnSubset]] = {}
    for study, rows in ended:
        columns = (m for m in study.metrics if (m.name, m.version) == (metric.name, metric.version))
        for column, row in product(columns, rows):
            if (scores := scores_of(row.jobs, study.trained_until, column)) is not None:
                found.setdefault(study.experiment.suite.repeats, []).append((scores, row.subset))
    if metric.per_prompt:
        return found.get(1, []), []
    most = max(found, default=1)
    return found.get(1, found.get(most, [])), found[most] if most > 1 else []


def _ended(study: Study, methods: Sequence[str]) -> list[Row]:
    """Rows of ``methods`` with several trainings that have ended: what a run that still goes on knows already."""
    until = study.trained_until
    rows = [
        replace(row, jobs=tuple(job for job in row.jobs if job.status == "finished" and job.at(until)))
        for row in study.trainings
        if not methods or row.method in methods
    ]
    return [row for row in rows if len(row.jobs) > 1]


@dataclass(frozen=True)
class Design:
    """Two methods with ``seeds`` trainings each, on ``prompts`` prompts with ``repeats`` pictures of each."""

    seeds: int
    prompts: int
    repeats: int


def variance(noise: MetricNoise, design: Design, like: bool = False) -> Variance:
    """Of the difference of two methods. Groups of prompts keep their proportions.

    Without repeats in the reference runs, noise cannot be told from prompts: what both add then counts in full, and is
    not made smaller by repeats. Of prompts like these that holds for what methods differ by, where it was not divided.
    """
    groups, seeds, repeats = noise.groups, design.seeds, design.repeats
    size = sum(1 / n for n in groups) / len(groups) ** 2 * sum(groups) / design.prompts
    of_method = noise.method_noise / (repeats if noise.divided or not like else 1)
    pictures = 2 * noise.seed_prompt / seeds + of_method + 2 * noise.residual / seeds / repeats
    if like or noise.repeats == 1:
        pictures += noise.method_prompt
    return summed([Variance(2 * noise.seed_shift / seeds, noise.df + seeds - 1), Variance(size * pictures, math.inf)])


def designs(noise: MetricNoise, difference: float, power: float, pictures: Sequence[int] = REPEATS) -> Iterator[Design]:
    """Designs that see a difference on the suite's own prompts: with each number of seeds the fewest ``pictures``."""
    for seeds in SEEDS:
        for repeats in pictures:
            design = Design(seeds, sum(noise.groups), repeats)
            if smallest(variance(noise, design), power) <= difference:
                yield design
                break


def pictures_of(metric: MetricRecord, noise: MetricNoise) -> Sequence[int]:
    """Pictures of a prompt that designs may have. What looks at all of them together has the suite's number alone."""
    return (metric.images // sum(noise.groups),) if metric.per_prompt else REPEATS


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


def costs(studies: Sequence[Study], methods: Sequence[str] = ()) -> Costs | None:
    """Measured on jobs: the mean time of finished trainings, and a picture by its FLOPs at the fastest job's speed.

    None where no such job of ``methods`` holds a clock reading, as in an evaluation without the run that trained.
    Records hold no time of evaluations. A picture is two forwards a step with guidance and one without; the FLOPs of a
    forward are those of the job that spent least on anything else. Scoring is not in it.

    Args:
        methods: whose trainings are paid for; none: the mean of all.
    """
    timed = [
        job for study in studies for job in study.jobs if job.spent.seconds and job.spent.flops and job.spent.forwards
    ]
    spent = [job.spent for job in timed]
    trained = [
        job.spent.seconds for job in timed if job.status == "finished" and (not methods or job.method in methods)
    ]
    if not trained:
        return None
    forward = min(s.flops / (s.forwards + 2 * s.backwards) for s in spent)
    sampler = studies[0].experiment.suite.sampler
    forwards = sampler.steps * (2 if sampler.guidance_scale != 1 else 1)
    speed = min(s.seconds / s.flops for s in spent)
    return Costs(fmean(trained), forwards * forward * speed)


def metric_of(study: Study, name: str) -> MetricRecord:
    """A column by its name or its label, in any case. BenchError for another."""
    for metric in study.metrics:
        if name.casefold() in (metric.name.casefold(), metric.label.casefold()):
            return metric
    raise unknown("metric", name, [metric.name for metric in study.metrics])
