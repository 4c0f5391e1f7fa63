"""A cell of the report: a mean with its intervals, or how much of it is there; and paired differences of cells.

Every interval is a statement on one of two things, and says which (``docs/statistics.md``):

- *this prompt list*: the prompts are the benchmark; noise and trainings vary. Verdicts follow it.
- *prompts like these*: the prompts vary too.

``components`` says where scores vary, ``intervals`` makes intervals of it. Nothing here draws.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Literal

import numpy as np

from bench.errors import BenchError
from bench.records.schema import MetricRecord
from bench.report.components import (
    NONE,
    Floats,
    Prior,
    Scores,
    Variance,
    fit_prior,
    noise,
)
from bench.report.components import prompts as of_prompts_and_noise
from bench.report.intervals import Interval, around, blended, family_error, within
from bench.report.seed_noise import MetricNoise, of_metric
from bench.report.study import Evaluation, StudiedJob, Study, Tally

DIFFERENT_PROMPTS = "two evaluations of this suite hold different prompts; evaluate them with the same suite"

Source = Literal["seeds", "file", "unknown", "none"]
"""Where a row's seed variance comes from: its own trainings and the others', the suite's noise file, nowhere; or there
is none, since nothing was trained."""


@dataclass(frozen=True)
class Trainings:
    """What is known of how much trainings differ in a metric, beside a row's own.

    ``prior`` is that of all rows with several seeds, ``shipped`` the noise file's.
    """

    prior: Prior | None = None
    shipped: MetricNoise | None = None


UNKNOWN = Trainings()


@dataclass(frozen=True)
class SeedVariance:
    """What one training adds: ``shift`` to all prompts alike, and ``own`` with seed x prompt beside it.

    ``estimate`` is the shift with its degrees of freedom: what pictures explain is known from many prompts. ``shared``
    is the part of it that comes from all rows, and so errs in all of them alike.
    """

    shift: float = 0.0
    own: float = 0.0
    estimate: Variance = NONE
    shared: float = 0.0
    source: Source = "none"


@dataclass(frozen=True)
class Estimate(Interval):
    """The mean of a row with its interval for this prompt list; ``like`` is that for prompts like these.

    ``prompts`` are its (stratum, prompt), ``scores`` what both come from, ``seeds`` what trainings add, ``file`` what
    the suite's noise file says of the metric. ``listed`` is the share of the prompt list that was evaluated.
    """

    like: Interval
    prompts: tuple[tuple[str, str], ...]
    scores: Scores
    seeds: SeedVariance
    file: MetricNoise | None = None
    listed: float = 1.0

    @property
    def judged(self) -> bool:
        """Whether a difference of it may be called better or worse: it is known how much noise and trainings add."""
        return self.seeds.source != "unknown" and self.known


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference for this prompt list, simultaneous with the others of its family.

    Attributes:
        variance, like_variance: squared standard errors for this prompt list and for prompts like these.
        error: the error of each interval of the family, 0.05 in a family of one.
        like_error: the same for prompts like these, worked out where it is asked for.
        family: how many differences hold together.
    """

    variance: Variance
    like_variance: Variance
    error: float
    like_error: Callable[[], float] = field(compare=False, repr=False)
    family: int

    @property
    def like(self) -> Interval:
        """The same for prompts like these."""
        return around(self.mean, self.like_variance, self.like_error())

    @property
    def pairwise(self) -> Interval:
        """For this prompt list, as if it were the only difference."""
        return around(self.mean, self.variance)


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


@dataclass(frozen=True)
class _Gathered:
    """A cell without its estimate, and the scores for it where all are there."""

    cell: Cell
    scores: Scores | None = None
    prompts: tuple[tuple[str, str], ...] = ()


def make_cell(
    jobs: Sequence[StudiedJob],
    fraction: float,
    metric: MetricRecord,
    trainings: Trainings = UNKNOWN,
    trained: bool | None = None,
    listed: float = 1.0,
) -> Cell:
    """One metric of one row (its seeds pooled) at one planned share of the budget.

    Args:
        trainings: what other rows and the noise file say of seeds (``known_trainings``).
        trained: whether the jobs are trainings of a method; by default, whether they are jobs of a run.
        listed: share of the prompt list that was evaluated.
    """
    gathered = _gather(jobs, fraction, metric)
    if gathered.scores is None:
        return gathered.cell
    if trained is None:
        trained = any(job.trained for job in jobs)
    found = estimate(gathered.scores, gathered.prompts, (metric.low, metric.high), trainings, trained, listed)
    return replace(gathered.cell, estimate=found)


def estimate(
    scores: Scores,
    prompts: tuple[tuple[str, str], ...],
    bounds: tuple[float | None, float | None] = (None, None),
    trainings: Trainings = UNKNOWN,
    trained: bool = True,
    listed: float = 1.0,
) -> Estimate:
    """The mean of scores with its intervals, never beyond the bounds of the metric. ``make_cell`` says the rest."""
    file = trainings.shipped
    seeds = _seed_variance(scores, trainings) if trained else SeedVariance()
    parts = _parts([scores], [seeds], np.eye(1), file, file.row_noise_share if file else None, listed)
    this, like = (within(scores.mean, found[0], *bounds, 1 / scores.size) for found in (parts.this, parts.like))
    return Estimate(this.mean, this.low, this.high, like, prompts, scores, seeds, file, listed)


def known_trainings(
    rows: Iterable[Sequence[StudiedJob]], fraction: float, metric: MetricRecord, shipped: MetricNoise | None = None
) -> Trainings:
    """What all rows of a report say of how much trainings differ in a metric, with what the noise file says."""
    found = [row for jobs in rows if len(jobs) > 1 and (row := scores_of(jobs, fraction, metric)) is not None]
    return Trainings(fit_prior(found), shipped)


def trainings_of(study: Study, fraction: float) -> dict[str, Trainings]:
    """The same for each metric, by its name, from all methods and subsets of a study."""
    rows = [row.jobs for subset in study.subsets for row in study.rows(subset)]
    return {
        metric.name: known_trainings(rows, fraction, metric, of_metric(study.noise, metric.name, metric.version))
        for metric in study.metrics
    }


def scores_of(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> Scores | None:
    """Scores of a row; None where some are missing."""
    return _gather(jobs, fraction, metric).scores


def difference(one: Estimate, other: Estimate) -> Difference:
    """``one - other``, paired on the same prompts and noise, as the only difference of its family."""
    return against(other, [one])[0]


def against(control: Estimate, others: Sequence[Estimate]) -> list[Difference]:
    """Every other row minus ``control``, with intervals that hold together in 95 % of cases: their family."""
    if not others:
        return []
    if any(row.prompts != control.prompts for row in others):
        raise BenchError(DIFFERENT_PROMPTS)
    rows = [*others, control]
    contrasts = np.hstack([np.eye(len(others)), -np.ones((len(others), 1))])
    file = control.file if all(row.file for row in rows) else None
    share = file.difference_noise_share if file else None
    listed = min(row.listed for row in rows)
    parts = _parts([row.scores for row in rows], [row.seeds for row in rows], contrasts, file, share, listed)
    error = family_error(parts.this_correlation, min(variance.df for variance in parts.this))
    like_error = cache(lambda: family_error(parts.like_correlation, min(variance.df for variance in parts.like)))
    made = []
    for row, this, like in zip(others, parts.this, parts.like, strict=True):
        mean = row.mean - control.mean
        interval = around(mean, this, error)
        made.append(Difference(mean, interval.low, interval.high, this, like, error, like_error, len(others)))
    return made


def family(control: Estimate | None, others: Sequence[Estimate | None]) -> list[Difference | None]:
    """As ``against``, of what is there: None where an estimate is missing."""
    if control is None:
        return [None] * len(others)
    found = iter(against(control, [row for row in others if row is not None]))
    return [None if row is None else next(found) for row in others]


def clear_best(estimates: Sequence[Estimate | None], higher_is_better: bool) -> int | None:
    """Index of the best estimate, if its paired differences to all others exclude zero together.

    None where one is missing: it might be the best.
    """
    sign = -1 if higher_is_better else 1
    ranked = sorted(((sign * e.mean, i, e) for i, e in enumerate(estimates) if e is not None), key=lambda r: r[:2])
    if len(ranked) < max(2, len(estimates)):
        return None
    (_, best, first), *rest = ranked
    return best if all(found.excludes_zero for found in against(first, [row for _, _, row in rest])) else None


@dataclass(frozen=True)
class _Parts:
    """Variances of contrasts under both estimands, and how the contrasts correlate."""

    this: list[Variance]
    like: list[Variance]
    this_correlation: Floats
    like_correlation: Floats


def _parts(
    rows: Sequence[Scores],
    seeds: Sequence[SeedVariance],
    contrasts: Floats,
    file: MetricNoise | None,
    noise_share: float | None,
    listed: float,
) -> _Parts:
    """Variances of contrasts of rows.

    Args:
        contrasts: (contrasts, rows).
        file: what the noise file says of the metric.
        noise_share: of what prompts and noise add together, the part of noise, as the file says; asked for where each
            prompt has one picture. None: unknown, so that all of it counts.
        listed: share of the prompt list that was evaluated; the rest is a finite-population correction (Cochran 1977,
            "Sampling Techniques", ch. 2).
    """

    def of_rows(values: Sequence[float]) -> Floats:
        return (contrasts * (np.array(values) / [row.seeds for row in rows])) @ contrasts.T

    between, between_df = of_prompts_and_noise(rows, contrasts)
    within_prompts, noise_df = noise(rows, contrasts)
    like = between + of_rows([seed.shift for seed in seeds])
    if np.isnan(within_prompts).any():  # one picture a prompt
        share = 1.0 if noise_share is None else noise_share
        of_prompts = (1 - share) * (between - of_rows([_images(row, file) for row in rows]))
        this, found, df = like - _positive(of_prompts), between, between_df
    else:
        this, found, df = within_prompts + of_rows([seed.own for seed in seeds]), within_prompts, noise_df
    like = np.where(np.isnan(like), this, like)  # one prompt in all
    this = this + (1 - listed) * _positive(like - this)  # what other prompts add
    of_seeds = _uncertainty(rows, seeds, contrasts)
    from_file = of_rows([seed.shift if seed.source == "file" else 0.0 for seed in seeds])
    file_df = min((seed.estimate.df for seed in seeds if seed.source == "file"), default=math.inf)
    variances = _variances(this, found, df, of_seeds, from_file, file_df)
    likes = _variances(like, between, between_df, of_seeds, from_file, file_df)
    return _Parts(variances, likes, _correlation(this), _correlation(like))


def _positive(covariance: Floats) -> Floats:
    """Without the contrasts whose variance came out below nothing."""
    adds = np.diag(covariance) > 0
    kept: Floats = np.where(np.outer(adds, adds), covariance, 0.0)
    return kept


def _uncertainty(rows: Sequence[Scores], seeds: Sequence[SeedVariance], contrasts: Floats) -> Floats:
    """Of each contrast, its seed variance squared over degrees of freedom, as Satterthwaite's formula takes it.

    What rows estimated together is wrong in all of them together, so its roots add up; the rest is independent.
    """
    own = [0.0 if seed.source == "file" else seed.estimate.value for seed in seeds]
    parts = (contrasts**2) * (np.array(own) / [row.seeds for row in rows])
    root = parts / np.sqrt([seed.estimate.df for seed in seeds])
    shared = np.array([seed.shared for seed in seeds])
    both: Floats = (root * np.sqrt(shared)).sum(1) ** 2 + (root**2 * (1 - shared)).sum(1)
    return both


def _variances(
    total: Floats, part: Floats, part_df: Floats, of_seeds: Floats, from_file: Floats, file_df: float
) -> list[Variance]:
    """Each contrast's variance with its degrees of freedom: Satterthwaite's of a part with its own and of the seeds'.

    What a noise file gave is blended in: ``from_file`` of the variance, with ``file_df``.
    """
    given = np.diag(from_file)
    rest = np.maximum(np.maximum(np.diag(total), 0.0) - given, 0.0)
    square = np.nan_to_num(np.diag(part) ** 2 / part_df) + of_seeds
    known = square > 0
    df = np.where(known, np.maximum(rest**2 / np.where(known, square, 1.0), 1.0), math.inf)
    measured = map(Variance, rest.tolist(), df.tolist())
    return [
        blended([own, Variance(file, file_df)]) if file > 0 else own
        for own, file in zip(measured, given.tolist(), strict=True)
    ]


def _correlation(covariance: Floats) -> Floats:
    """Correlations; 0 with what does not vary, or nobody knows how."""
    deviations = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale = np.where(deviations > 0, deviations, 1.0)
    correlation: Floats = np.clip(np.nan_to_num(covariance / np.outer(scale, scale)), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _seed_variance(scores: Scores, trainings: Trainings) -> SeedVariance:
    """Of one training of a row: from several seeds, moderated by the other rows, else from the noise file."""
    if scores.seeds == 1:
        file = trainings.shipped
        if file is None:
            return SeedVariance(source="unknown")
        # Rows differ in their seed shift. The file holds its mean; a t has the centre of a scaled inverse chi-squared.
        shift = file.seed_shift * ((file.df - 2) / file.df if file.df > 3 else 1 / 3)
        return SeedVariance(shift, shift + _seed_by_prompt(scores, file), Variance(shift, file.df), source="file")
    if scores.images <= 0:  # trainings that differ in no prompt more than in another: their mean alone tells
        return SeedVariance(scores.total, scores.total, Variance(scores.total, scores.seeds - 1), 0.0, "seeds")
    prior = trainings.prior or fit_prior([scores])
    assert prior is not None
    ratio = prior.moderated(scores)
    shift = (ratio.value - 1) * scores.images
    own = shift + max(scores.images - scores.residual, 0.0)
    return SeedVariance(shift, own, Variance(shift, ratio.df), prior.shared(scores), "seeds")


def _seed_by_prompt(scores: Scores, file: MetricNoise) -> float:
    """What seed x prompt adds to the variance of a row with one training.

    A file of runs with one picture a prompt holds what pictures do in it. A row with more pictures knows that part, and
    counts it elsewhere.
    """
    whole = scores.size * file.seed_prompt
    if file.repeats > 1:
        return whole
    of_pictures = noise([scores], np.eye(1))[0][0, 0] * scores.repeats.max()
    return whole if np.isnan(of_pictures) else max(whole - float(of_pictures), 0.0)


def _images(scores: Scores, file: MetricNoise | None) -> float:
    """What seed x prompt and residual add to the spread of prompts: of one training, as the noise file says.

    Of weights that were not trained the first is fixed, and counts all the same: the safe side.
    """
    if scores.seeds > 1:
        return scores.images
    return scores.size * (file.seed_prompt + file.residual) if file else 0.0


def _gather(jobs: Sequence[StudiedJob], fraction: float, metric: MetricRecord) -> _Gathered:
    """What there is of a row, worked out once."""
    found = [job.at(fraction) for job in jobs]
    first = found[0] if found else None
    if first is None:
        return _gathered(jobs, found, metric)
    key = (metric.name, *map(id, found), *(job.status for job in jobs))
    if key not in first.rows:
        # The others are kept, so that nothing else takes their place. It would be a circle to keep the first.
        first.rows[key] = _gathered(jobs, found, metric), found[1:]
    gathered: _Gathered = first.rows[key][0]
    return gathered


def _gathered(jobs: Sequence[StudiedJob], evaluations: Sequence[Evaluation | None], metric: MetricRecord) -> _Gathered:
    tallies = []
    for job, evaluation in zip(jobs, evaluations, strict=True):
        tally = evaluation.tally(metric) if evaluation else Tally()
        have = sum(map(len, tally.scores.values()))
        if have > metric.images:
            raise BenchError(f"{job.name} holds {have} scores of {metric.name}, its suite expects {metric.images}")
        tallies.append(tally)
    errors: Counter[str] = sum((Counter(tally.errors) for tally in tallies), Counter())
    n, total = sum(len(v) for tally in tallies for v in tally.scores.values()), metric.images * len(jobs)
    failed = bool(errors) or any(job.status == "failed" for job in jobs)
    remedy = next((tally.remedy for tally in tallies if tally.remedy), "")
    cell = Cell(n, total, failed, None, remedy, sum(tally.unscored for tally in tallies), errors)
    return _Gathered(cell, *_scores([tally.scores for tally in tallies])) if n == total > 0 else _Gathered(cell)


def _scores(scored: Sequence[Mapping[tuple[str, str], Sequence[float]]]) -> tuple[Scores, tuple[tuple[str, str], ...]]:
    """Scores of each seed by (stratum, prompt), as an array, and those keys in its order."""
    if any(seed.keys() != scored[0].keys() for seed in scored):
        raise BenchError(DIFFERENT_PROMPTS)
    keys = _one(tuple(sorted(scored[0])))
    repeats = max(len(values) for seed in scored for values in seed.values())
    values = np.full((len(scored), len(keys), repeats), np.nan)
    for row, seed in zip(values, scored, strict=True):
        for line, key in zip(row, keys, strict=True):
            line[: len(seed[key])] = seed[key]
    strata = {stratum: number for number, stratum in enumerate(sorted({stratum for stratum, _ in keys}))}
    return Scores(values, np.array([strata[stratum] for stratum, _ in keys])), keys


@lru_cache(maxsize=256)
def _one(keys: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The same object for equal prompts, so that rows are soon seen to have the same."""
    return keys
