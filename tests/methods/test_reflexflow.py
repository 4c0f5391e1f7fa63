"""ReflexFlow's objective, redone in float64, and its identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import advance, same, small, take, weights
from observed import column, prepare, record, wide

from bench import flow

VARIANTS = {
    "default": {},
    "drift only": {"frequency_alpha": 0.0},
    "frequency only": {"anti_drift_weight": 0.0, "frequency_alpha": 3.0},
    "through": {"through_rollout": True, "anti_drift_weight": 0.5},
}


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_with_both_parts_off_it_is_sft_bit_for_bit(world, micro_batch):
    runs = []
    for method in (small("sft"), small("reflexflow", anti_drift_weight=0.0, frequency_alpha=0.0)):
        job = world.job(micro_batch=micro_batch)
        method.setup(job)
        runs.append((advance(job, method, 3), weights(job), job.meter))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1]) and runs[0][2] == runs[1][2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_follows_the_formulas(world, monkeypatch, variant):
    job, method = prepare(world, "reflexflow", **VARIANTS[variant])
    c = method.config
    noises, draws = record(job, "noise", monkeypatch), record(job, "uniform", monkeypatch)
    calls = record(job.policy, "velocity", monkeypatch)
    (log,) = advance(job, method, 1)
    z0, z1 = wide(noises[0][0][0].latents), wide(noises[0][1])

    (z, sigma, _), velocity = calls[0]
    s, v = column(wide(sigma)), wide(velocity)
    np.testing.assert_allclose(wide(z), (1 - s) * z0 + s * z1, rtol=1e-5, atol=1e-6)
    squares = (v - (z1 - z0)) ** 2

    (biased, level, text), answer = calls[1]
    later, w = column(wide(level)), 1.0
    np.testing.assert_allclose(later, s * (1 - column(wide(draws[0][1]))), rtol=1e-6)
    np.testing.assert_allclose(wide(biased), wide(z) + (later - s) * v, rtol=1e-5, atol=1e-5)
    assert torch.equal(text.prompt_embeds, noises[0][0][0].text.prompt_embeds)
    assert biased.requires_grad == c.through_rollout and answer.requires_grad == (c.anti_drift_weight > 0)
    rectified = ((wide(biased) - z0) / later).reshape(4, -1)
    mine = wide(answer).reshape(4, -1)
    cosine = (mine * rectified).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(rectified, axis=1)
    if c.frequency_alpha:
        (ideal, same_level, _), clean = calls[2]
        assert torch.equal(same_level, level) and not clean.requires_grad
        np.testing.assert_allclose(wide(ideal), (1 - later) * z0 + later * z1, rtol=1e-5, atol=1e-6)
        bias = np.abs(wide(clean) - wide(answer))
        w = (1 + c.frequency_alpha * bias / bias.mean((1, 2, 3), keepdims=True)) / (1 + c.frequency_alpha)
        assert log["squared_bias"] == pytest.approx((bias**2).mean(), rel=1e-5)
    drift = (2 - 2 * cosine).mean()
    assert len(calls) == (3 if c.frequency_alpha else 2)
    assert log["anti_drift_loss"] == pytest.approx(drift, rel=1e-5)
    assert log["loss"] == pytest.approx((w * squares).mean() + c.anti_drift_weight * drift, rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "forwards", "backwards"), [("default", 12, 8), ("drift only", 8, 8), ("frequency only", 12, 4)]
)
def test_a_simulated_step_is_charged_for_what_it_needs(world, variant, forwards, backwards):
    job, method = prepare(world, "reflexflow", **VARIANTS[variant])
    advance(job, method, 1)
    assert (job.meter.forwards, job.meter.backwards) == (forwards, backwards)


def test_the_gradient_through_the_simulated_step_is_another(world, monkeypatch):
    grads = []
    for through in (False, True):
        job, method = prepare(world, "reflexflow", through_rollout=through)
        monkeypatch.setattr(job, "update", lambda: None)
        method.step(job)
        grads.append(torch.cat([p.grad.flatten().double() for p in job.parameters]))
    assert (grads[0] - grads[1]).norm() > 1e-3 * grads[0].norm()


def test_a_model_that_is_right_everywhere_drifts_nowhere_and_weighs_all_alike(world, monkeypatch):
    job, method = prepare(world, "reflexflow")
    pairs = take(job, 4)
    z1 = job.noise(pairs, "noise")
    truth, sigma = z1 - pairs.latents, torch.tensor([0.2, 0.5, 0.9, 1.0])
    monkeypatch.setattr(job.policy, "velocity", lambda z, sigma, text: truth)
    drift, weight = method.simulate(job, pairs, flow.interpolate(pairs.latents, z1, sigma), z1, sigma, truth)
    # float32 states of size 4 carry 2e-7 of rounding; the lowest simulated level magnifies its square
    assert float(drift) < 1e-8 and torch.equal(weight, torch.ones_like(z1))
