"""Intervals from a value and its variance: Student's t, within bounds, and for several differences at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import chdtri, stdtr, stdtrit

from bench.report.components import Floats, Variance
from bench.rng import numpy_generator

LEVEL = 0.95
POWER = 0.8
"""Chance to see a difference that is there, where a report says what it could have seen (Cohen 1988's convention)."""
DRAWS = 20_000
"""Of the largest of several t, for a simultaneous interval: its critical value is known to half a per cent."""


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval; NaN where nothing says how much the value varies."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there are bounds: one prompt with one score has none."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is told from none."""
        return self.low > 0 or self.high < 0


def critical(df: float, error: float = 1 - LEVEL) -> float:
    """Quantile of Student's t whose two tails hold ``error``."""
    return float(stdtrit(min(df, 1e7), 1 - error / 2))


def blended(parts: Sequence[Variance]) -> Variance:
    """The sum of independent variances, with the df at which t is the root mean square of the parts' own t.

    Each t counts by its variance (Cochran & Cox 1957, "Experimental Designs", section 4.14). A variance that is drawn
    anew for each row, and not estimated, has longer tails than Satterthwaite's degrees of freedom allow.
    """
    total = sum(part.value for part in parts)
    square = sum(part.value * critical(part.df) ** 2 for part in parts) / total if total > 0 else 0.0
    low, high = min(part.df for part in parts), 1e7
    for _ in range(50):  # halves of the logarithm; t falls as df grows
        middle = math.sqrt(low * high)
        low, high = (middle, high) if critical(middle) ** 2 > square else (low, middle)
    return Variance(total, high)


def around(mean: float, variance: Variance, error: float = 1 - LEVEL) -> Interval:
    """``mean`` and what lies within t standard errors of it; of a variance that is not known, no bounds."""
    half = critical(variance.df, error) * math.sqrt(variance.value)
    return Interval(mean, mean - half, mean + half)


def smallest(variance: Variance, power: float = POWER, error: float = 1 - LEVEL) -> float:
    """The smallest difference whose interval excludes zero with this power: ``(t of the error + t of the power) x SE``.

    Lachin (1981), "Introduction to sample size determination and power analysis for clinical trials", with t for z.
    """
    at_power = float(stdtrit(min(variance.df, 1e7), power))
    return (critical(variance.df, error) + at_power) * math.sqrt(variance.value)


def within(mean: float, variance: Variance, low: float | None, high: float | None, size: float) -> Interval:
    """The same of a metric that has bounds, and never beyond them.

    Between two bounds it is Wilson's interval (1927) with t for the normal quantile and the effective number of
    independent pictures, ``u (1 - u) / variance`` of the share u: Korn & Graubard (1998), "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data". With one bound it is the
    interval of the logarithm of the distance to it, or t's own up to the bound where that would reach it.

    Args:
        size: independent observations that count where all scores lie on one bound.
    """
    c = critical(variance.df)
    if low is not None and high is not None:
        span = high - low
        u = (mean - low) / span
        spread = 0.0 if min(u, 1 - u) ** 2 < 1e-18 else u * (1 - u)
        if spread < 0 or (spread > 0 and variance.value == 0):  # scores beyond the bounds, or nothing varies
            return around(mean, variance)
        number = spread * span**2 / variance.value if spread > 0 else size
        centre = (u + c**2 / (2 * number)) / (1 + c**2 / number)
        half = c / (1 + c**2 / number) * math.sqrt(spread / number + c**2 / (4 * number**2))
        return Interval(mean, low + span * max(centre - half, 0.0), low + span * min(centre + half, 1.0))
    plain = around(mean, variance)
    bound = low if low is not None else high
    if bound is None:
        return plain
    if mean == bound:
        return Interval(mean, mean if low is not None else plain.low, plain.high if low is not None else mean)
    away, half = abs(mean - bound), c * math.sqrt(variance.value)
    if half >= away:  # so near the bound a logarithm says nothing: its interval has no end
        return Interval(mean, bound, plain.high) if low is not None else Interval(mean, plain.low, bound)
    factor = math.exp(half / away)
    near, far = away / factor, away * factor
    return Interval(mean, bound + near, bound + far) if low is not None else Interval(mean, bound - far, bound - near)


def family_error(correlation: Floats, df: float) -> float:
    """The error of each of several intervals, so that all of them hold together in 95 % of cases.

    It is that of the largest absolute t of a multivariate t distribution (Hothorn, Bretz & Westfall 2008,
    "Simultaneous inference in general parametric models"), from draws that are always the same.

    Args:
        correlation: (n, n) of the differences.
        df: the smallest degrees of freedom among them.
    """
    number = len(correlation)
    if number == 1:
        return 1 - LEVEL
    values, vectors = np.linalg.eigh(correlation)
    # The symmetric root: there is one alone, where eigenvectors of equal values are as a CPU finds them.
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    # The product is in float64: what threads and CPUs leave in its last places is gone in the float32 that are sorted.
    # These are far finer than what so many draws can tell.
    largest = np.sort(np.abs(root @ _draws(number)).max(0).astype(np.float32))
    # Draws of the normal part; the scale that t divides by is integrated over.
    scales, weights = np.ones(1, np.float32), np.ones(1)
    if math.isfinite(df):
        shares, weights = _QUADRATURE
        scales = np.sqrt(chdtri(df, shares) / df).astype(np.float32)
    low, high = float(largest[0] / scales.max()), float(largest[-1] / scales.min())
    for _ in range(24):
        middle = (low + high) / 2
        held = float(weights @ np.searchsorted(largest, middle * scales)) / DRAWS
        low, high = (middle, high) if held < LEVEL else (low, middle)
    # A quantile of t at these degrees of freedom, as an error: it holds for intervals with more of them too.
    return float(2 * stdtr(min(df, 1e7), -high))


def _gauss_legendre(points: int) -> tuple[Floats, Floats]:
    """Places between 0 and 1, and their weights."""
    places, weights = np.polynomial.legendre.leggauss(points)
    return (places + 1) / 2, weights / 2


_QUADRATURE = _gauss_legendre(40)
"""Over shares of the chi-squared distribution. Critical values are those of 5,000 equal shares to 0.03 per cent."""


@lru_cache(maxsize=64)
def _draws(number: int) -> Floats:
    """(number, DRAWS)"""
    drawn = numpy_generator("max-t", number).standard_normal((DRAWS, number))
    return np.ascontiguousarray(drawn.T)
