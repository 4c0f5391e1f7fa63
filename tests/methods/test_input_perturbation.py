"""Input perturbation noises its inputs beyond what its targets say, and without that is SFT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import advance, same, small, weights
from observed import column, prepare, record, wide


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_without_perturbation_it_is_sft_bit_for_bit(world, micro_batch):
    runs = []
    for method in (small("sft"), small("input_perturbation", gamma=0.0)):
        job = world.job(micro_batch=micro_batch)
        method.setup(job)
        runs.append((advance(job, method, 3), weights(job), job.meter))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1]) and runs[0][2] == runs[1][2]


def test_the_input_is_perturbed_and_the_target_is_not(world, monkeypatch):
    job, method = prepare(world, "input_perturbation", gamma=0.7)
    noises, calls = record(job, "noise", monkeypatch), record(job.policy, "velocity", monkeypatch)
    (log,) = advance(job, method, 1)
    drawn = {arguments[1]: wide(result) for arguments, result in noises}
    (z, sigma, text), velocity = calls[0]
    pairs = noises[0][0][0]
    z0, z1, s = wide(pairs.latents), drawn["noise"], column(wide(sigma))
    np.testing.assert_allclose(wide(z), (1 - s) * z0 + s * (z1 + 0.7 * drawn["perturbation"]), rtol=1e-5, atol=1e-6)
    assert torch.equal(text.prompt_embeds, pairs.text.prompt_embeds)
    assert log["loss"] == pytest.approx(((wide(velocity) - (z1 - z0)) ** 2).mean(), rel=1e-6)
    assert job.meter.forwards == job.meter.backwards == job.meter.pairs == 4


def test_the_perturbation_is_a_draw_of_its_own(world, monkeypatch):
    job, method = prepare(world, "input_perturbation")
    noises = record(job, "noise", monkeypatch)
    advance(job, method, 1)
    one, other = (result.flatten() for _, result in noises)
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 4 / len(one) ** 0.5
