"""Where scores vary: components of variance of one row, of the difference of rows, and of several rows together.

A score of row r is ``y[s, p, k]`` of training seed s, prompt p and noise k; noise belongs to its prompt and is the same
for every row and seed. The model is a crossed one with random effects::

    y = mean + prompt_p + prompt x noise_pk + seed shift_s + seed x prompt_sp + residual_spk

Of the difference of two rows, prompt and prompt x noise become method x prompt and method x noise; seeds of different
rows are independent. Estimators are moments of analysis of variance, as Searle, Casella & McCulloch, "Variance
Components" (1992, ch. 4) give them, prompt by prompt with the weight of the prompt squared. So prompts may differ in
their variances, groups in their sizes and prompts in their repeats. ``docs/statistics.md`` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Variance:
    """An estimate of a variance with its degrees of freedom: how well it is known. Infinite: exactly."""

    value: float
    df: float


NONE = Variance(0.0, math.inf)


@dataclass(frozen=True)
class Scores:
    """Scores of one row.

    Attributes:
        values: (seeds, prompts, repeats), NaN where a prompt has fewer repeats than another.
        strata: (prompts,) number of the group of each prompt, from 0. The statistic is the mean of the groups' means.
    """

    values: Floats
    strata: NDArray[np.intp]

    def of_seeds(self, seeds: Sequence[int]) -> Scores:
        """The same of some trainings, by their places."""
        return Scores(self.values[list(seeds)], self.strata)

    @property
    def seeds(self) -> int:
        """Trainings."""
        return int(self.values.shape[0])

    @cached_property
    def repeats(self) -> NDArray[np.intp]:
        """(prompts,) noises of each prompt that tell anything: 1 where all pictures of a prompt always score alike.

        A metric of a whole prompt (diversity) writes its score once for each picture. That is one observation.
        """
        counts = (~np.isnan(self.values[0])).sum(1)
        alike = bool((np.nanmax(self.values, 2) == np.nanmin(self.values, 2)).all())
        return np.ones_like(counts) if alike else counts

    @cached_property
    def weights(self) -> Floats:
        """(prompts,) weight of each prompt's mean in the statistic; they add up to 1."""
        images = (~np.isnan(self.values[0])).sum(1)
        of_group = np.bincount(self.strata, images)
        weights: Floats = images / of_group[self.strata] / len(of_group)
        return weights

    @cached_property
    def prompt_means(self) -> Floats:
        """(seeds, prompts)."""
        means: Floats = np.nanmean(self.values, 2)
        return means

    @cached_property
    def groups(self) -> tuple[Floats, NDArray[np.intp]]:
        """(prompts, groups) of ones where a prompt is in a group, and (groups,) sizes. Lone prompts are one group."""
        sizes = np.bincount(self.strata)
        if sizes.max() < 2:  # the spread of all prompts is what there is
            return np.ones((len(self.strata), 1)), np.array([len(self.strata)])
        return np.eye(len(sizes))[self.strata], sizes

    @cached_property
    def deviations(self) -> Floats:
        """(prompts,) of prompts from their group. Their squares add up to the variance of the statistic."""
        of_group, sizes = self.groups
        means = self.prompt_means.mean(0)
        away = means - of_group @ (means @ of_group / sizes)
        several = of_group @ (sizes > 1) > 0
        factor = np.where(several, of_group @ (sizes / np.maximum(sizes - 1, 1)), 0.0)
        squares = self.weights**2
        deviations: Floats = away * np.sqrt(squares * factor * squares.sum() / squares[several].sum())
        return deviations

    @cached_property
    def means(self) -> Floats:
        """(seeds,) the statistic of each training."""
        images = np.bincount(self.strata, (~np.isnan(self.values[0])).sum(1))
        sums = np.stack([np.bincount(self.strata, seed) for seed in np.nansum(self.values, 2)])
        means: Floats = (sums / images).mean(1)
        return means

    @cached_property
    def mean(self) -> float:
        """The statistic of the row."""
        return float(self.means.mean())

    @cached_property
    def total(self) -> float:
        """Variance of the statistic between trainings on these prompts and this noise; 0 of one training."""
        return float(self.means.var(ddof=1)) if self.seeds > 1 else 0.0

    @cached_property
    def images(self) -> float:
        """Part of ``total`` that follows from pictures alone: seed x prompt and residual, without the seed shift."""
        if self.seeds < 2:
            return 0.0
        w = self.weights
        away = self.prompt_means - self.means[:, None]
        away = away - away.mean(0)
        squares = w**2
        # A prompt takes part in its training's mean; of equal variances this is the share that is left.
        left = (squares.sum() - 2 * (w**3).sum() + squares.sum() ** 2) / squares.sum()
        return float((squares * (away**2).sum(0)).sum() / (self.seeds - 1) / left) if left > 0 else 0.0

    @cached_property
    def residual(self) -> float:
        """Part of ``images`` that is residual: noise makes it differ by training. 0 where it cannot be told apart."""
        several = self.repeats > 1
        if self.seeds < 2 or not several.any():
            return 0.0
        y, w, k = self.values[:, several], self.weights[several], self.repeats[several]
        away = y - y.mean(0) - np.nanmean(y - y.mean(0), 2, keepdims=True)
        by_prompt = np.nansum(away**2, (0, 2)) / ((self.seeds - 1) * (k - 1))
        found = (w**2 * by_prompt / k).sum()
        return float(found * _spread(self.weights, self.repeats) / (w**2 / k).sum())

    @property
    def size(self) -> float:
        """Sum of the squared weights: one over the number of prompts, were they all to count alike."""
        return float((self.weights**2).sum())


def _most_told(rows: Sequence[Scores]) -> Scores:
    """The row whose repeats tell most: another may score alike on all pictures of every prompt by chance."""
    return max(rows, key=lambda row: int(row.repeats.max()))


def _spread(weights: Floats, repeats: NDArray[np.intp]) -> float:
    return float((weights**2 / repeats).sum())


def noise(rows: Sequence[Scores], contrasts: Floats) -> tuple[Floats, Floats]:
    """Covariance of contrasts of rows that new noise on the same prompts causes, and degrees of freedom of each.

    It comes from repeats of a prompt, and holds prompt x noise and all of the residual. Prompts with one repeat are
    given the mean of the others.

    Args:
        rows: of the same prompts.
        contrasts: (contrasts, rows) weights.

    Returns:
        (contrasts, contrasts) and (contrasts,). No prompt has two repeats: NaN, since it is not known.
    """
    first = _most_told(rows)
    several = first.repeats > 1
    if not several.any():
        unknown = np.full((len(contrasts), len(contrasts)), np.nan)
        return unknown, np.full(len(contrasts), np.nan)
    pictures = np.stack([row.values[:, several].mean(0) for row in rows])
    d = np.einsum("cr,rpk->cpk", contrasts, pictures)
    k, w = first.repeats[several], first.weights[several]
    away = np.nan_to_num(d - np.nanmean(d, 2, keepdims=True))
    scale = _spread(first.weights, first.repeats) / _spread(w, k)
    covariance = scale * np.tensordot(away * (w**2 / (k * (k - 1)))[:, None], away, ((1, 2), (1, 2)))
    by_prompt = scale * (w**2 / (k * (k - 1))) * (away**2).sum(2)
    return covariance, _satterthwaite(by_prompt, (k - 1).astype(np.float64))


def prompts(rows: Sequence[Scores], contrasts: Floats) -> tuple[Floats, Floats]:
    """Covariance of contrasts of rows that other prompts of the same groups cause, and degrees of freedom of each.

    It holds everything but the seed shift, as the spread of prompts around the mean of their group. A group of one
    prompt is given the mean variance of the others' prompts.
    """
    of_group, sizes = rows[0].groups
    if sizes.max() < 2:
        unknown = np.full((len(contrasts), len(contrasts)), np.nan)
        return unknown, np.full(len(contrasts), np.nan)
    parts = contrasts @ np.stack([row.deviations for row in rows])
    known = sizes > 1
    return parts @ parts.T, _satterthwaite((parts**2 @ of_group)[:, known], (sizes[known] - 1).astype(np.float64))


def _satterthwaite(parts: Floats, df: Floats) -> Floats:
    """Degrees of freedom of sums of estimated variances, (contrasts, parts) to (contrasts,).

    Satterthwaite (1946). Squares of estimates exceed squared variances by ``1 + 2 / df``; it is taken out.
    """
    squares = (parts**2 / (df + 2)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(squares > 0, parts.sum(1) ** 2 / squares - 2, np.inf)
    bounded: Floats = np.maximum(found, 1.0)
    return bounded


def summed(parts: Sequence[Variance]) -> Variance:
    """Sum of independent estimates, with Satterthwaite's (1946) degrees of freedom."""
    value = sum(part.value for part in parts)
    squares = sum(part.value**2 / part.df for part in parts)
    return Variance(value, value**2 / squares if squares > 0 else math.inf)


@dataclass(frozen=True)
class Prior:
    """What rows together say of how much trainings differ.

    The quantity is ``Scores.total / Scores.images``: how many times more trainings differ than their pictures alone
    explain. It has no unit, so that rows of any level share it.

    Attributes:
        ratio: its centre; at least 1 is used.
        df: degrees of freedom by which the rows agree: large where they differ by no more than chance.
        pooled: degrees of freedom of all rows together; nothing is known better than that.
    """

    ratio: float
    df: float
    pooled: float

    def moderated(self, row: Scores) -> Variance:
        """The ratio of one row, drawn towards the others'.

        Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression", eq. 2 of
        section 3; the bound of its degrees of freedom by the pooled ones is limma's ``eBayes``. Overdispersion that is
        moderated in this way is Lund et al. (2012)'s. Below 1 it has no meaning.
        """
        own = row.seeds - 1
        found = row.total / row.images if row.images > 0 else 1.0
        ratio = (self.df * self.ratio + own * found) / (self.df + own)
        return Variance(max(ratio, 1.0), min(self.df + own, self.pooled))

    def shared(self, row: Scores) -> float:
        """Share of a row's moderated ratio that is the other rows' too."""
        return self.df / (self.df + row.seeds - 1)


def fit_prior(rows: Sequence[Scores]) -> Prior | None:
    """The prior of rows with several trainings; None without one.

    Ratios of rows follow ``ratio x F(own df, prior df)`` (Smyth 2004, section 6.2). Smyth takes both parameters from
    moments of logarithms over thousands of rows. A report has a handful, and binary scores have exact zeros. So one
    over the prior's degrees of freedom is its mean under the likelihood (flat between 0 and 1), which does not take
    rows for equal because they are few. The ratio is the pooled one: where rows differ it is above their centre, on
    the side of caution. One row alone has no prior but itself.
    """
    varied = [row for row in rows if row.seeds > 1 and row.images > 0]
    if not varied:
        return None
    df = np.array([row.seeds - 1.0 for row in varied])
    ratios = np.array([row.total / row.images for row in varied])
    pooled = float((df * ratios).sum() / df.sum())
    if len(varied) == 1 or pooled <= 0:
        return Prior(max(pooled, 1.0), 0.0, float(df.sum()))
    ratios = np.maximum(ratios, 1e-3 * pooled)  # of two seeds, the density of an exact zero is infinite
    centres = pooled * np.exp(_CENTRES)
    x, own = ratios[:, None, None] / centres[:, None], df[:, None, None]
    likelihood = _likelihood(x, own, 1 / _PRIOR_1_DF).sum(0) - len(ratios) * np.log(centres)[:, None]
    of_df = np.exp(likelihood - likelihood.max()).sum(0)
    known = float((of_df * _PRIOR_1_DF).sum() / of_df.sum())
    return Prior(pooled, 1 / known, float(df.sum()))


_CENTRES = np.arange(-30, 31) / 10
"""Logarithms of the centres that are tried, beside the pooled ratio."""

_PRIOR_1_DF = np.concatenate([[1e-4], np.arange(1, 21) / 20])
"""One over degrees of freedom of the prior that are tried, evenly: from none in common to the same for all."""


def _likelihood(x: Floats, df: Floats, prior_df: Floats) -> Floats:
    """Logarithm of the density of F(df, prior df) at x."""
    half, other = df / 2, prior_df / 2
    log: Floats = (
        half * np.log(df / prior_df)
        + (half - 1) * np.log(x)
        - (half + other) * np.log1p(df * x / prior_df)
        - betaln(half, other)
    )
    return log


@dataclass(frozen=True)
class Components:
    """Variances of a metric, averaged over rows and pairs of rows, in the metric's unit squared.

    Attributes:
        prompt, prompt_noise, residual, seed_prompt, seed_shift: of a row.
        method_prompt, method_noise: of the difference of two rows. Both have seeds of their own, so each adds its
            seed x prompt, seed shift and residual.
        seed_df: degrees of freedom of ``seed_shift``.
        repeats: pictures of a prompt that told noise from prompts apart; with 1, ``prompt`` holds prompt x noise,
            ``seed_prompt`` the residual, and ``method_prompt`` method x noise.
        divided: False where ``method_noise`` holds method x prompt, since the two could not be told apart.
    """

    prompt: float
    prompt_noise: float
    residual: float
    seed_prompt: float
    seed_shift: float
    method_prompt: float
    method_noise: float
    seed_df: float
    repeats: int
    divided: bool = True


def components(rows: Sequence[Scores], prior: Prior, subsets: Sequence[str]) -> Components:
    """Components of a metric from rows of the same prompts, of which at least one has several trainings.

    Args:
        subsets: on which each row was trained. Methods are compared on one subset: two subsets differ by more.
            Without two rows on one, what methods differ by is 0: it is not known.
    """
    of = [(row, subset) for row, subset in zip(rows, subsets, strict=True) if row.seeds > 1]
    varied = [row for row, _ in of]
    first = _most_told(rows)
    size, repeats = first.size, first.repeats
    per_image = _spread(first.weights, repeats)
    residual = float(np.mean([row.residual for row in varied])) / per_image
    images = float(np.mean([row.images for row in varied]))
    seed_prompt = max(images - residual * per_image, 0.0) / size
    trained = sum(row.seeds - 1 for row in varied)
    seed_shift = max(sum((row.seeds - 1) * (row.total - row.images) for row in varied) / trained, 0.0)
    prompt, prompt_noise = _prompt_parts(varied, np.eye(len(varied)), residual, seed_prompt)
    pairs = [_contrast(len(of), a, b) for a, b in combinations(range(len(of)), 2) if of[a][1] == of[b][1]]
    method = _prompt_parts(varied, np.stack(pairs), residual, seed_prompt) if pairs else (0.0, 0.0)
    df = min(prior.df, prior.pooled)
    return Components(prompt, prompt_noise, residual, seed_prompt, seed_shift, *method, df, int(np.median(repeats)))


ROWS = 3
"""From so many rows on, what methods differ by is divided. Two that are alike differ by little but chance: of SFT and
SOAR one part or the other came out as nothing. Ours."""


def divided(whole: Components, by: Components, rows: int) -> Components:
    """Components of many rows with one picture a prompt, divided into prompts and noise as those of rows with several.

    What ``by`` cannot divide counts as noise: the safe side.

    Args:
        rows: how many rows of one subset ``by`` is of.
    """

    def parts(both: float, of_prompts: float, of_noise: float) -> tuple[float, float]:
        known = of_prompts + of_noise
        return (both * of_prompts / known, both * of_noise / known) if known > 0 else (0.0, both)

    prompt, prompt_noise = parts(whole.prompt, by.prompt, by.prompt_noise)
    seed_prompt, residual = parts(whole.seed_prompt, by.seed_prompt, by.residual)
    known = (by.method_prompt, by.method_noise) if rows >= ROWS else (0.0, 0.0)
    method_prompt, method_noise = parts(whole.method_prompt, *known)
    return Components(
        prompt=prompt,
        prompt_noise=prompt_noise,
        residual=residual,
        seed_prompt=seed_prompt,
        seed_shift=whole.seed_shift,
        method_prompt=method_prompt,
        method_noise=method_noise,
        seed_df=whole.seed_df,
        repeats=by.repeats,
        divided=sum(known) > 0,
    )


def _prompt_parts(
    rows: Sequence[Scores], contrasts: Floats, residual: float, seed_prompt: float
) -> tuple[float, float]:
    """Mean over contrasts of what prompts and their noise add, without what seeds do."""
    first = _most_told(rows)
    size, per_image = first.size, _spread(first.weights, first.repeats)
    per_seed = np.array([1 / row.seeds for row in rows])
    trainings = (contrasts**2) @ per_seed
    between = np.diag(prompts(rows, contrasts)[0])
    of_noise = np.diag(noise(rows, contrasts)[0])
    if np.isnan(of_noise).any():
        return max(float((between / size - trainings * seed_prompt).mean()), 0.0), 0.0
    noise_part = max(float((of_noise / per_image - trainings * residual).mean()), 0.0)
    rest = between - per_image * (noise_part + trainings * residual)
    return max(float((rest / size - trainings * seed_prompt).mean()), 0.0), noise_part


def _contrast(rows: int, one: int, other: int) -> Floats:
    contrast = np.zeros(rows)
    contrast[one], contrast[other] = 1.0, -1.0
    return contrast
