"""MixFlow's input lies at a slowed level that the model is not told, and without slowing it is SFT."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import advance, same, small, weights
from observed import column, prepare, record, wide


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_without_slowing_and_at_sfts_levels_it_is_sft_bit_for_bit(world, micro_batch):
    runs = []
    for method in (small("sft"), small("mixflow", gamma=0.0, density="logit_normal")):
        job = world.job(micro_batch=micro_batch)
        method.setup(job)
        runs.append((advance(job, method, 3), weights(job), job.meter))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1]) and runs[0][2] == runs[1][2]


def test_the_input_is_slowed_and_the_model_is_told_the_level_before(world, monkeypatch):
    job, method = prepare(world, "mixflow", gamma=0.6)
    noises, uniforms = record(job, "noise", monkeypatch), record(job, "uniform", monkeypatch)
    calls = record(job.policy, "velocity", monkeypatch)
    (log,) = advance(job, method, 1)
    (pairs, _), z1 = noises[0][0], wide(noises[0][1])
    drawn = {arguments[1]: wide(result) for arguments, result in uniforms}
    (z, sigma, _), velocity = calls[0]
    u = 1 - np.sqrt(drawn["time"])
    told = 3 * u / (1 + 2 * u)  # the tiny pipeline's shift is 3
    slowed = told + drawn["slowed"] * 0.6 * (1 - told)
    z0, m = wide(pairs.latents), column(slowed)
    np.testing.assert_allclose(wide(sigma), told, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wide(z), (1 - m) * z0 + m * z1, rtol=1e-5, atol=1e-6)
    assert log["loss"] == pytest.approx(((wide(velocity) - (z1 - z0)) ** 2).mean(), rel=1e-6)
    assert job.meter.forwards == job.meter.backwards == job.meter.pairs == 4


def test_levels_lean_towards_the_data_before_the_shift(world, monkeypatch):
    """``1 - sqrt(U)`` has density ``2 (1 - u)``: mean 1/3 and variance 1/18."""
    job, method = prepare(world, "mixflow", batch_size=12)
    calls = record(job.policy, "velocity", monkeypatch)
    advance(job, method, 40)
    told = np.concatenate([wide(arguments[1]) for arguments, _ in calls])
    u = told / (3 - 2 * told)  # the shift undone
    assert len(u) == 480
    assert abs(u.mean() - 1 / 3) < 4 * np.sqrt(1 / 18 / len(u))
    assert abs(u.var() - 1 / 18) < 4 * np.sqrt((1 / 135 - 1 / 324) / len(u))  # E (u - 1/3)^4 = 1/135


def test_slowing_never_leaves_the_path(world, monkeypatch):
    job, method = prepare(world, "mixflow", gamma=1.0, batch_size=12)
    calls, uniforms = record(job.policy, "velocity", monkeypatch), record(job, "uniform", monkeypatch)
    advance(job, method, 5)
    told = np.concatenate([wide(arguments[1]) for arguments, _ in calls])
    slowed = np.concatenate([wide(result) for arguments, result in uniforms if arguments[1] == "slowed"])
    assert (told >= 0).all() and (told + slowed * (1 - told) <= 1).all() and slowed.std() > 0.2
