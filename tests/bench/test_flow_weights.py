"""Weights of the flow-matching loss, and the error of directions, against independent float64 computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import flow


def draw(seed: int, count: int = 3) -> Tensor:
    return torch.randn(count, 2, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_weight_multiplies_each_squared_error():
    v, target, weight = draw(0).float(), draw(1).float(), draw(2).abs().float()
    expected = (weight.double() * (v.double() - target.double()) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(flow.velocity_error(v, target, weight).numpy(), expected.numpy(), rtol=1e-6)
    assert torch.equal(flow.velocity_error(v, target, torch.ones_like(v)), flow.velocity_error(v, target))


def test_directions_are_compared_without_their_lengths():
    v, target = draw(0), draw(1)
    a, b = v.numpy().reshape(3, -1), target.numpy().reshape(3, -1)
    cosine = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    np.testing.assert_allclose(flow.direction_error(v, target).double().numpy(), 2 - 2 * cosine, rtol=1e-6)
    np.testing.assert_allclose(flow.direction_error(v * 7, target / 3).double(), 2 - 2 * cosine, rtol=1e-6)
    assert flow.direction_error(v, v * 5).max() < 1e-12
    np.testing.assert_allclose(flow.direction_error(v, -2 * v).numpy(), 4, rtol=1e-6)


# -- weights over a picture --------------------------------------------------------------------------------------------

AXIS = torch.arange(8, dtype=torch.float64)
LOW = torch.cos(math.pi * (AXIS + 0.5) / 8).expand(1, 1, 8, 8)  # half a wave across the picture
HIGH = torch.cos(math.pi * AXIS).expand(1, 1, 8, 8)  # the highest frequency, of equal size everywhere


def test_a_low_frequency_bias_weighs_where_its_wave_is_high():
    weight = flow.bias_weight(LOW, 2.0).double().numpy()
    wave = np.abs(np.cos(np.pi * (np.arange(8) + 0.5) / 8))
    np.testing.assert_allclose(weight, np.broadcast_to((1 + 2 * wave / wave.mean()) / 3, (1, 1, 8, 8)), rtol=1e-6)


def test_a_bias_of_the_highest_frequency_weighs_all_alike():
    np.testing.assert_allclose(flow.bias_weight(HIGH, 2.0).numpy(), 1, rtol=1e-6)


def test_bias_weights_have_mean_one_per_sample_whatever_the_bias():
    bias = torch.cat([LOW, LOW * 1e-3 + HIGH, LOW + HIGH, torch.zeros_like(LOW)])
    weight = flow.bias_weight(bias, 5.0)
    np.testing.assert_allclose(weight.double().mean((1, 2, 3)).numpy(), 1, rtol=1e-6)
    assert torch.equal(weight[3], torch.ones(1, 8, 8)) and weight.min() >= 1 / 6
    np.testing.assert_allclose(flow.bias_weight(-bias * 9, 5.0).numpy(), weight.numpy(), rtol=1e-6)
    assert torch.equal(flow.bias_weight(bias, 0.0), torch.ones_like(weight))


# -- weights over noise levels -----------------------------------------------------------------------------------------

POINTS, MASSES = np.polynomial.legendre.leggauss(8)  # exact for the polynomials here


def integral(function, low: float, high: float) -> float:
    half = (high - low) / 2
    return float(half * (MASSES * function(low + half * (POINTS + 1))).sum())


@pytest.mark.parametrize("kind", ["inherited", "sigma_squared", "clipped", "mid"])
@pytest.mark.parametrize("knee", [0.05, 0.2, 1.0])
def test_correction_weights_have_mean_one_over_all_levels(kind, knee):
    def weight(sigma: np.ndarray) -> np.ndarray:
        return flow.correction_weight(kind, torch.from_numpy(sigma), knee=knee).numpy()

    assert integral(weight, 0, knee) + integral(weight, knee, 1) == pytest.approx(1, rel=1e-12)


def test_correction_weights_are_what_they_say():
    s = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    n = s.numpy()
    assert torch.equal(flow.correction_weight("inherited", s), torch.ones_like(s))
    np.testing.assert_allclose(flow.correction_weight("mid", s), 6 * n * (1 - n), rtol=1e-12)
    clipped = flow.correction_weight("clipped", s, knee=0.2).numpy()
    np.testing.assert_allclose(clipped, np.minimum(25 * n**2, 1) / (1 - 0.4 / 3), rtol=1e-12)
    np.testing.assert_allclose(flow.correction_weight("clipped", s, knee=1.0), 3 * n**2, rtol=1e-12)


def test_sigma_squared_makes_the_error_that_of_the_endpoint():
    z, z0, v, sigma = draw(0), draw(1), draw(2), torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64)
    target = (z - z0) / flow.per_sample(sigma, z)
    weighted = flow.correction_weight("sigma_squared", sigma) / 3 * (v - target).pow(2).mean((1, 2, 3))
    np.testing.assert_allclose(weighted, (flow.endpoint(z, v, sigma) - z0).pow(2).mean((1, 2, 3)), rtol=1e-12)


def test_an_unknown_weight_is_named():
    with pytest.raises(ValueError, match="unknown weight 'other'; one of inherited"):
        flow.correction_weight("other", torch.ones(1))
