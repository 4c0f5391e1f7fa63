"""Intervals against closed forms and tables of others."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.report.components import Variance
from bench.report.intervals import around, critical, family_error, smallest, within


def test_between_two_bounds_it_is_wilsons_interval() -> None:
    for hits in (0, 3, 19, 20):
        known = binomtest(hits, 20).proportion_ci(method="wilson")
        share = hits / 20
        found = within(share, Variance(share * (1 - share) / 20, math.inf), 0.0, 1.0, 20)
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-6)


def test_an_interval_never_leaves_its_bounds() -> None:
    for low, high in ((0.0, 1.0), (0.0, None), (None, 1.0), (-1.0, 1.0)):
        found = within(0.98, Variance(0.01, 3), low, high, 30)
        assert found.low < 0.98 < found.high
        assert high is None or found.high <= high
        assert low is None or found.low >= low


def test_far_from_its_bounds_it_is_the_plain_interval() -> None:
    plain, bounded = around(0.5, Variance(1e-6, 20)), within(0.5, Variance(1e-6, 20), 0.0, 1.0, 100)
    assert (bounded.low, bounded.high) == pytest.approx((plain.low, plain.high), abs=1e-5)
    assert within(0.5, Variance(1e-6, 20), None, None, 100) == plain


def test_several_intervals_hold_together() -> None:
    """Independent: Šidák's error. All the same: that of one. Against one control: Dunnett's table (5, 20 df: 2.73)."""
    assert family_error(np.eye(1), 10) == pytest.approx(0.05)
    assert family_error(np.eye(10), math.inf) == pytest.approx(1 - 0.95**0.1, rel=0.08)
    assert family_error(np.ones((6, 6)), 12) == pytest.approx(0.05, rel=0.06)
    against_control = np.full((5, 5), 0.5) + 0.5 * np.eye(5)
    assert critical(20, family_error(against_control, 20)) == pytest.approx(2.73, abs=0.02)


def test_the_smallest_difference_is_seen_as_often_as_it_says() -> None:
    """With a variance that is known: 1.96 + 0.84 standard errors."""
    assert smallest(Variance(1.0, math.inf), 0.8) == pytest.approx(2.802, abs=1e-3)
    assert smallest(Variance(1.0, math.inf), 0.5) == pytest.approx(1.960, abs=1e-3)
    assert smallest(Variance(1.0, 4), 0.8) > smallest(Variance(1.0, 40), 0.8)


def test_the_last_places_of_a_correlation_do_not_matter() -> None:
    """They differ by CPU. Differences to one control correlate alike, so that no eigenvector is better than another."""
    alike = np.full((12, 12), 0.5) + 0.5 * np.eye(12)
    known = family_error(alike, 9)
    for seed in range(5):
        beside = 1e-15 * np.random.default_rng(seed).standard_normal((12, 12))
        assert family_error(alike + beside + beside.T, 9) == pytest.approx(known, rel=1e-5)


def test_the_number_of_threads_moves_no_interval() -> None:
    """A product splits its sums by threads and CPUs. In float32 the last digits of a committed report differed."""
    code = """
import numpy as np
from bench.report.intervals import family_error
rng = np.random.default_rng(0)
for number in (3, 12, 12, 12, 13) * 4:
    parts = rng.normal(size=(number, number + 3))
    covariance = parts @ parts.T
    deviations = np.sqrt(np.diag(covariance))
    print(family_error(covariance / np.outer(deviations, deviations), float(rng.uniform(3, 200))))
"""
    found = set()
    for threads in ("1", "2"):
        env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        found.add(
            subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        )
    assert len(found) == 1


def test_of_a_value_near_its_one_bound_it_ends_like_the_plain_interval() -> None:
    """The logarithm of the distance to the bound has no end there: one collapsed row ended in an overflow."""
    variance = Variance(0.0175**2, 6)
    for mean in (1.0, 1.000002, 1.003, 1.01, 1.03, 1.04):
        found, plain = within(mean, variance, 1.0, None, 24), around(mean, variance)
        assert (found.low, found.high) == (1.0, plain.high)
        other = within(-mean, variance, None, -1.0, 24)
        assert (other.low, other.high) == (pytest.approx(-plain.high), -1.0)
    far = within(1.3, variance, 1.0, None, 24)
    assert 1.0 < far.low < 1.3 < far.high < 1.36
