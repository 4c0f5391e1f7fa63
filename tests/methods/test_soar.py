"""The weights that SOAR's correction loss can have over noise levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import advance
from observed import column, prepare, record, wide

from bench import flow

WEIGHTS = {
    "inherited": lambda s: np.ones_like(s),
    "sigma_squared": lambda s: 3 * s**2,
    "clipped": lambda s: np.where(s < 0.7, s / 0.7, 1) ** 2 / (0.7 / 3 + 0.3),
    "mid": lambda s: 6 * s * (1 - s),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_correction_is_weighted_by_its_own_levels(world, monkeypatch, kind):
    job, method = prepare(world, "soar", aux_weighting=kind, aux_knee=0.7, aux_weight=0.5, aux_points=3)
    noises, calls = record(job, "noise", monkeypatch), record(job.policy, "velocity", monkeypatch)
    auxiliary = record(method, "auxiliary", monkeypatch)
    (log,) = advance(job, method, 1)
    pairs, z1 = noises[0][0][0], wide(noises[0][1])
    base = ((wide(calls[0][1]) - (z1 - wide(pairs.latents))) ** 2).mean((1, 2, 3))
    (states, levels, _), velocity = calls[-1]
    s, rows = wide(levels), auxiliary[0][1][2]
    target = (wide(states) - wide(pairs.latents[rows])) / column(s)
    errors = ((wide(velocity) - target) ** 2).mean((1, 2, 3))
    expected = (base.sum() + 0.5 * (WEIGHTS[kind](s) * errors).sum()) / (4 + 0.5 * 12)
    assert log["loss"] == pytest.approx(expected, rel=1e-5)
    assert log["correction_loss"] == pytest.approx(errors.mean(), rel=1e-5)


def test_no_weighting_changes_what_is_computed_or_charged(world):
    meters = []
    for kind in WEIGHTS:
        job, method = prepare(world, "soar", aux_weighting=kind)
        advance(job, method, 1)
        meters.append(job.meter.counts())
    assert all(counts == meters[0] for counts in meters)


@pytest.mark.parametrize(("kind", "mean"), [("sigma_squared", 2.21), ("clipped", 1.15), ("mid", 0.66)])
def test_the_mean_weights_over_soars_levels_are_those_of_the_docstring(kind, mean):
    """Quantiles of the logit-normal time, and of a uniform level above each: midpoints, exact to the digits given."""
    quantiles = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    low = flow.shift_time((flow.logit_normal_time(torch.special.ndtri(quantiles)) - 1 / 40).clamp_min(0), 3.0)
    levels = low[:, None] + (1 - low[:, None]) * quantiles.view(-1, 10).mean(1)
    assert flow.correction_weight(kind, levels).mean().item() == pytest.approx(mean, abs=0.005)
