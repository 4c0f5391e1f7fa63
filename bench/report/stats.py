"""A cell of the report: a mean with its interval, or how much of it is there.

Intervals are percentiles of replicates. Prompts are the clusters, since images of one prompt resemble each other, and
are bootstrapped (Efron and Tibshirani 1993, ch. 13). Training seeds are too few for that: of three, a bootstrap knows
ten resamples, and where trainings differ most its intervals cover no difference in 75 % of cases. Instead, to each
replicate is added a draw of Student's t, with one degree of freedom less than there are seeds, times the standard error
of their mean. Every cell is given the same draws, so subtracting two cells' replicates is the paired interval of their
difference. ``tests/bench/report/test_aa.py`` holds it to covering at least as often as it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.records.schema import MetricRecord
from bench.report.study import StudiedJob

RESAMPLES = 2000
PROMPTS_ALONE = f"a percentile bootstrap of {RESAMPLES:,} resamples over prompts"
AND_SEEDS = f"{PROMPTS_ALONE} with Student's t for the training seeds"
"""How an interval is made, for the notes of a report."""
LEVEL = 0.95
MISSING = "missing: "
"""How the error of a metric begins that lacks a file; the rest says how to get it."""

_SEED = 20260407  # fixed, so that drawing a report twice gives the same intervals

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is told from none."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Estimate(Interval):
    """An interval with the replicates and prompts it came from, for paired differences."""

    replicates: Floats
    prompts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """``n`` of the ``total`` samples owed are scored; there is an estimate only when all are.

    ``remedy`` says how to get a file that the metric lacked, ``unscored`` counts images that nothing has tried to
    score, and ``errors`` those that failed, by reason.
    """

    n: int
    total: int
    failed: bool
    estimate: Estimate | None
    remedy: str = ""
    unscored: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> str:
        """How many samples are scored, of how many."""
        return f"{self.n}/{self.total}"

    @property
    def gap(self) -> str:
        """What an incomplete cell prints instead of a mean over fewer."""
        return f"{'failed' if self.failed else 'missing'} {self.counts}"


def make_cell(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> Cell:
    """One metric of one row (its seeds pooled) at one planned share of the budget."""
    scored: list[dict[tuple[str, str], list[float]]] = []
    remedy, unscored, errors = "", 0, Counter[str]()
    for job in jobs:
        evaluation = job.at(fraction)
        by_prompt: dict[tuple[str, str], list[float]] = {}
        for sample in evaluation.samples if evaluation else ():
            score = sample.scores.get(metric.name)
            if sample.prompt_set != metric.prompt_set:
                continue
            if score is None:
                unscored += 1
            elif score.score is None and (score.error or "").startswith(MISSING):
                remedy = remedy or (score.error or "").removeprefix(MISSING)
            elif score.score is None:
                errors[score.error or "no score"] += 1
            else:
                stratum = sample.group if metric.grouped else ""
                by_prompt.setdefault((stratum, sample.prompt_id), []).append(score.score)
        scored.append(by_prompt)
        have = sum(map(len, by_prompt.values()))
        if have > metric.images:
            raise BenchError(f"{job.name} holds {have} scores of {metric.name}, its suite expects {metric.images}")
    n, total = sum(len(v) for prompts in scored for v in prompts.values()), metric.images * len(jobs)
    failed = bool(errors) or any(job.status == "failed" for job in jobs)
    return Cell(n, total, failed, _estimate(scored) if n == total > 0 else None, remedy, unscored, errors)


def difference(one: Estimate, other: Estimate) -> Interval:
    """Paired bootstrap of ``one - other`` on the same prompts."""
    if one.prompts != other.prompts:
        raise BenchError("two evaluations of this suite hold different prompts; evaluate them with the same suite")
    return _interval(one.mean - other.mean, one.replicates - other.replicates)


def clear_best(estimates: Sequence[Estimate | None], higher_is_better: bool) -> int | None:
    """Index of the best estimate, if its paired difference to the runner-up excludes zero."""
    sign = -1 if higher_is_better else 1
    ranked = sorted(((sign * e.mean, i, e) for i, e in enumerate(estimates) if e is not None), key=lambda r: r[:2])
    if len(ranked) < 2:
        return None
    (_, best, first), (_, _, second) = ranked[:2]
    return best if difference(first, second).excludes_zero else None


def _estimate(scored: Sequence[dict[tuple[str, str], list[float]]]) -> Estimate:
    """Scores of each seed, by (stratum, prompt), to the mean of the strata's means and its interval."""
    prompts = tuple(sorted({key for seed in scored for key in seed}))
    sums = np.array([[sum(seed.get(key, ())) for key in prompts] for seed in scored], dtype=np.float64)
    counts = np.array([[len(seed.get(key, ())) for key in prompts] for seed in scored], dtype=np.float64)
    strata = tuple(Counter(stratum for stratum, _ in prompts).values())  # prompts are sorted: strata are contiguous
    all_prompts, all_seeds = np.ones((1, len(prompts))), np.ones((1, len(scored)))
    once = _statistic(sums, counts, strata, all_seeds, all_prompts)
    by_seed = _statistic(sums, counts, strata, np.eye(len(scored)), all_prompts)
    draws = _statistic(sums, counts, strata, all_seeds, _prompt_draws(strata)) + _seed_weights(len(scored)) @ by_seed
    interval = _interval(float(once[0]), draws)
    return Estimate(interval.mean, interval.low, interval.high, draws, prompts)


def _statistic(sums: Floats, counts: Floats, strata: tuple[int, ...], seeds: Floats, prompts: Floats) -> Floats:
    """Mean of the strata's means, for every row of how often each seed and each prompt was drawn."""
    bounds = np.cumsum(strata)[:-1]
    starts = np.concatenate([[0], bounds]).astype(np.intp)
    totals = np.add.reduceat(seeds @ sums * prompts, starts, axis=1)
    weights = np.add.reduceat(seeds @ counts * prompts, starts, axis=1)
    mean: Floats = (totals / weights).mean(axis=1)
    return mean


def _interval(mean: float, replicates: Floats) -> Interval:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return Interval(mean, float(low), float(high))


@lru_cache
def _prompt_draws(strata: tuple[int, ...]) -> Floats:
    """How often each prompt is drawn in each resample, with replacement within its stratum."""
    generator = np.random.default_rng([_SEED, 0])
    return np.concatenate([_draws(generator, size) for size in strata], axis=1)


@lru_cache
def _seed_weights(seeds: int) -> Floats:
    """(RESAMPLES, seeds) weights whose product with the seeds' means is t times the standard error of their mean.

    For normal g, the sum of (g - mean g) m has the variance of (m - mean m)² summed. Divided by the root of
    S (S - 1) that is the squared standard error, and divided by the root of a chi-squared over its S - 1 degrees of
    freedom it is t distributed. One seed says nothing of others: no weight.
    """
    if seeds == 1:
        return np.zeros((RESAMPLES, 1))
    generator = np.random.default_rng([_SEED, 1, seeds])
    normal = generator.standard_normal((RESAMPLES, seeds))
    scale = np.sqrt(generator.chisquare(seeds - 1, (RESAMPLES, 1)) / (seeds - 1) * seeds * (seeds - 1))
    weights: Floats = (normal - normal.mean(1, keepdims=True)) / scale
    return weights


def _draws(generator: np.random.Generator, size: int) -> Floats:
    return generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES).astype(np.float64)
