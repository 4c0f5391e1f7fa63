"""Flow-matching mathematics against independent float64 computations written from docs/protocol.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from bench import flow

N = 5
SIGMA = [0.03, 0.2, 0.5, 0.81, 1.0]
SIGMA_NEXT = [0.0, 0.11, 0.42, 0.8, 0.9]


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(N, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def column(values: list[float]) -> np.ndarray:
    return np.array(values).reshape(N, 1, 1, 1)


def near(actual: Tensor, expected: np.ndarray, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(actual.double().numpy(), expected, rtol=rtol, atol=rtol)


Z0, Z1, V, EPS = draw(0), draw(1), draw(2), draw(3)
S, S_NEXT = torch.tensor(SIGMA, dtype=torch.float64), torch.tensor(SIGMA_NEXT, dtype=torch.float64)


# -- the straight path -------------------------------------------------------------------------------------------------


def test_interpolation_is_the_straight_line():
    near(flow.interpolate(Z0, Z1, S), (1 - column(SIGMA)) * Z0.numpy() + column(SIGMA) * Z1.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolation_is_exact_at_both_ends(dtype):
    z0, z1 = draw(0, dtype), draw(1, dtype)
    assert torch.equal(flow.interpolate(z0, z1, 0.0), z0)
    assert torch.equal(flow.interpolate(z0, z1, 1.0), z1)


def test_a_scalar_sigma_is_the_same_as_one_per_sample():
    per_sample = torch.full((N,), 0.3, dtype=torch.float64)
    assert torch.equal(flow.interpolate(Z0, Z1, 0.3), flow.interpolate(Z0, Z1, per_sample))
    assert torch.equal(flow.euler(Z0, V, 0.3, 0.1), flow.euler(Z0, V, per_sample, per_sample * 0 + 0.1))


def test_the_true_velocity_leads_back_to_the_clean_latents():
    near(flow.endpoint(flow.interpolate(Z0, Z1, S), Z1 - Z0, S), Z0.numpy())


def test_an_euler_step_with_the_true_velocity_stays_on_the_line():
    step = flow.euler(flow.interpolate(Z0, Z1, S), Z1 - Z0, S, S_NEXT)
    near(step, flow.interpolate(Z0, Z1, S_NEXT).numpy())


def test_euler_agrees_with_the_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(7)
    z, v = draw(0, torch.float32), draw(2, torch.float32)
    expected = scheduler.step(v, scheduler.timesteps[0], z, return_dict=False)[0]
    assert torch.equal(flow.euler(z, v, scheduler.sigmas[0], scheduler.sigmas[1]), expected)


def test_an_euler_step_to_zero_is_the_endpoint():
    near(flow.euler(Z0, V, S, 0.0), flow.endpoint(Z0, V, S).numpy())


def test_guidance():
    assert torch.equal(flow.guide(Z0, Z1, 0.0), Z0)
    near(flow.guide(Z0, Z1, 1.0), Z1.numpy())
    near(flow.guide(Z0, Z1, 4.5), Z0.numpy() + 4.5 * (Z1.numpy() - Z0.numpy()))
    assert torch.equal(flow.guide(Z0, Z0, 4.5), Z0)


def test_velocity_error_is_a_mean_over_the_latent_dimensions_in_float32():
    expected = ((V - Z0).numpy() ** 2).reshape(N, -1).mean(1)
    near(flow.velocity_error(V, Z0), expected, 1e-6)
    assert flow.velocity_error(V.half(), Z0.half()).dtype == torch.float32


# -- times -------------------------------------------------------------------------------------------------------------


def test_shifted_times_are_the_schedulers_table():
    table = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0).sigmas.double()
    u = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
    near(flow.shift_time(u, 3.0), table.numpy(), 1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_shift_keeps_both_ends_and_the_order(shift):
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    sigma = flow.shift_time(u, shift)
    assert sigma[0] == 0 and sigma[-1] == 1
    assert (sigma.diff() > 0).all()
    near(sigma, shift * u.numpy() / (1 + (shift - 1) * u.numpy()))


def test_sampled_times_lie_on_the_table():
    u = flow.logit_normal_time(torch.randn(4096, generator=torch.Generator().manual_seed(0)))
    on_grid = torch.arange(1, 1001) / 1000
    assert torch.isin(u, on_grid).all()
    table = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0).sigmas
    distance = (flow.shift_time(u, 3.0)[:, None] - table[None]).abs().min(1).values
    assert distance.max() < 1e-6


def test_sampled_times_are_logit_normal():
    u = flow.logit_normal_time(torch.randn(40_000, generator=torch.Generator().manual_seed(0))).double()
    logits = torch.logit(u - 0.0005)  # middles of the table's cells
    assert abs(logits.mean().item()) < 5 / 200
    assert abs(logits.std().item() - 1) < 5 / 200 / math.sqrt(2)


def test_sampled_times_reach_neither_below_the_table_nor_above():
    for values, expected in (([-100.0, 100.0], [0.001, 1.0]), ([0.0], [0.501])):
        assert torch.equal(flow.logit_normal_time(torch.tensor(values)), torch.tensor(expected))


# -- stochastic steps --------------------------------------------------------------------------------------------------


def flow_sde_reference(z: np.ndarray, v: np.ndarray, a: float, cap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std of the Flow-GRPO step as protocol.md writes it."""
    sigma, dt = column(SIGMA), column(SIGMA_NEXT) - column(SIGMA)
    s = a * np.sqrt(sigma / (1 - np.where(sigma == 1, cap, sigma)))
    mean = z * (1 + s**2 / (2 * sigma) * dt) + v * (1 + s**2 * (1 - sigma) / (2 * sigma)) * dt
    return mean, s * np.sqrt(-dt)


def step_reference(kind: str, z: np.ndarray, v: np.ndarray, eps: np.ndarray, scale: float) -> np.ndarray:
    sigma, after = column(SIGMA), column(SIGMA_NEXT)
    clean, noise = z - sigma * v, z + (1 - sigma) * v
    if kind == "simple":
        return z + (after - sigma) * v + scale * np.sqrt(np.abs(after - sigma)) * eps
    if kind == "sde":
        return (1 - after) * clean + after * eps
    if kind == "cps":
        std = after * np.sin(scale * np.pi / 2)
        return (1 - after) * clean + np.sqrt(after**2 - std**2) * noise + std * eps
    mean, std = flow_sde_reference(z, v, scale, after)
    return mean + std * eps


@pytest.mark.parametrize("scale", [0.5, 0.9])
@pytest.mark.parametrize("kind", ["simple", "sde", "cps", "flow_sde"])
def test_every_stochastic_step_follows_the_protocol(kind, scale):
    expected = step_reference(kind, Z1.numpy(), V.numpy(), EPS.numpy(), scale)
    actual = flow.stochastic_step(kind, Z1, V, S, S_NEXT, EPS, scale)
    near(actual, expected, 2e-6 if kind == "flow_sde" else 1e-12)  # flow_sde is float32 by definition


@pytest.mark.parametrize("kind", ["simple", "cps"])
def test_without_noise_a_stochastic_step_is_eulers(kind):
    near(flow.stochastic_step(kind, Z1, V, S, S_NEXT, EPS, 0.0), flow.euler(Z1, V, S, S_NEXT).numpy())


@pytest.mark.parametrize("kind", ["sde", "cps"])
def test_re_noising_keeps_the_noise_level(kind):
    """On the true path with the true velocity, mean and variance at sigma' are those of the path."""
    s, after = 0.6, 0.4
    z0, z1 = (
        torch.zeros(1, 1, 200, 200, dtype=torch.float64),
        torch.randn(1, 1, 200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    )
    eps = torch.randn(z1.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    stepped = flow.stochastic_step(kind, flow.interpolate(z0, z1, s), z1 - z0, s, after, eps, 0.5)
    assert stepped.std().item() == pytest.approx(after, rel=0.02)


def test_an_unknown_step_is_refused():
    with pytest.raises(ValueError, match="unknown stochastic step 'ode'"):
        flow.stochastic_step("ode", Z1, V, S, S_NEXT, EPS)


def test_flow_sde_moments_follow_the_protocol():
    mean, std = flow.flow_sde_moments(Z1, V, S, S_NEXT, noise_level=0.7, sigma_cap=0.9375)
    expected_mean, expected_std = flow_sde_reference(Z1.numpy(), V.numpy(), 0.7, np.array(0.9375))
    near(mean, expected_mean, 2e-6)
    near(std, expected_std, 2e-6)
    assert mean.dtype == std.dtype == torch.float32


def test_at_sigma_one_the_schedules_second_sigma_stands_in():
    """Pencil and paper: sigma 1 -> 0.8, cap 0.9, a = 0.7: s² = 0.49 / 0.1 = 4.9, dt = -0.2."""
    z, v = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)
    mean, std = flow.flow_sde_moments(z, v, 1.0, 0.8, noise_level=0.7, sigma_cap=0.9)
    assert mean.item() == pytest.approx(2 * (1 - 4.9 / 2 * 0.2) + 3 * -0.2, rel=1e-5)
    assert std.item() == pytest.approx(math.sqrt(4.9 * 0.2), rel=1e-5)


def test_without_a_cap_sigma_one_uses_the_next_sigma():
    with_cap = flow.flow_sde_moments(Z1, V, 1.0, 0.8, sigma_cap=0.8)
    without = flow.flow_sde_moments(Z1, V, 1.0, 0.8)
    assert torch.equal(with_cap[0], without[0]) and torch.equal(with_cap[1], without[1])
    assert torch.isfinite(without[0]).all()


def test_the_cap_matters_at_sigma_one_only():
    a = flow.flow_sde_moments(Z1, V, S, S_NEXT, sigma_cap=0.95)
    b = flow.flow_sde_moments(Z1, V, S, S_NEXT, sigma_cap=0.85)
    assert torch.equal(a[0][:-1], b[0][:-1]) and torch.equal(a[1][:-1], b[1][:-1])
    assert not torch.equal(a[1][-1], b[1][-1])


# -- policy gradient ---------------------------------------------------------------------------------------------------


def test_the_log_probability_is_torchs_averaged_over_the_latent():
    std = torch.tensor([0.01, 0.3, 1.0, 2.0, 7.0], dtype=torch.float64).view(N, 1, 1, 1)
    expected = torch.distributions.Normal(Z0, std).log_prob(Z0 + std * EPS).flatten(1).mean(1)
    near(flow.gaussian_log_prob(Z0 + std * EPS, Z0, std), expected.numpy(), 1e-10)


@pytest.mark.parametrize("scale", [0.3, 0.8, 1.0])
def test_coefficient_preserving_moments_follow_the_protocol(scale):
    mean, std = flow.cps_moments(Z1, V, S, S_NEXT, noise_level=scale)
    clean, noise = Z1.numpy() - column(SIGMA) * V.numpy(), Z1.numpy() + (1 - column(SIGMA)) * V.numpy()
    after, expected = column(SIGMA_NEXT), column(SIGMA_NEXT) * np.sin(scale * np.pi / 2)
    near(std, expected)
    near(mean, (1 - after) * clean + np.sqrt(after**2 - expected**2) * noise, 1e-9)


@pytest.mark.parametrize("kind", ["flow_sde", "cps"])
def test_the_moments_of_a_kind_are_its_own(kind):
    own = flow.flow_sde_moments(Z1, V, S, S_NEXT, noise_level=0.7, sigma_cap=0.95)
    own = own if kind == "flow_sde" else flow.cps_moments(Z1, V, S, S_NEXT, noise_level=0.7)
    mean, std = flow.transition_moments(kind, Z1, V, S, S_NEXT, noise_level=0.7, sigma_cap=0.95)
    assert torch.equal(mean, own[0]) and torch.equal(std, own[1])


def test_the_log_probability_of_a_coefficient_preserving_step_has_no_constants():
    std = torch.tensor([0.01, 0.3, 1.0, 2.0, 7.0], dtype=torch.float64).view(N, 1, 1, 1)
    expected = -((Z0.numpy() - Z1.numpy()) ** 2).mean((1, 2, 3))
    near(flow.transition_log_prob("cps", Z0, Z1, std), expected, 1e-6)
    assert torch.equal(flow.transition_log_prob("flow_sde", Z0, Z1, std), flow.gaussian_log_prob(Z0, Z1, std))


@pytest.mark.parametrize(("kind", "deviation"), [("cps", 0.3), ("flow_sde", 0.3 / math.sqrt(0.09))])
def test_the_divergence_divides_by_what_flow_grpo_calls_std(kind, deviation):
    std, span = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.09, dtype=torch.float64)
    expected = ((Z0.numpy() - Z1.numpy()) ** 2).mean((1, 2, 3)) / (2 * deviation**2)
    near(flow.transition_divergence(kind, Z0, Z1, std, span), expected)


def test_the_guarded_ratio_is_the_papers():
    """exp((log p - log p_old + mean(dmu²) / (2 c²)) c), as arXiv 2510.22319 writes it."""
    std, old = torch.tensor([0.05, 0.3, 1.0, 2.0, 0.7], dtype=torch.float64).view(N, 1, 1, 1), Z0
    mean = old + 0.1 * Z1
    sample = old + std * EPS
    change = flow.gaussian_log_prob(sample, mean, std) - flow.gaussian_log_prob(sample, old, std)
    c = std.flatten()
    expected = torch.exp((change + ((mean - old) ** 2).flatten(1).mean(1) / (2 * c**2)) * c)
    near(flow.guarded_ratio(sample, mean, old, std), expected.numpy(), 1e-9)
    assert (flow.guarded_ratio(sample, old, old, std) == 1).all()


def test_the_clipped_objective_by_hand():
    """A ratio outside its range counts only where it makes things worse."""
    ratio, advantage = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1]), torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0])
    near(flow.clipped_objective(ratio, advantage, 0.2), np.array([-1.2, -0.5, 1.5, 0.8, -2.2]), 1e-6)


def test_advantages_by_hand():
    """Group means 2 and 6; deviations -1 0 1 and -3 0 3; mean of all 4, variance (9+4+1+1+4+25)/6 = 44/6."""
    advantages = flow.group_advantages(torch.tensor([[1.0, 2.0, 3.0], [3.0, 6.0, 9.0]]))
    scale = math.sqrt(44 / 6) + 1e-4
    near(advantages, np.array([[-1, 0, 1], [-3, 0, 3]]) / scale, 1e-6)
    assert advantages.dtype == torch.float32


def test_advantages_are_clipped_on_both_sides():
    rewards = torch.zeros(2, 101)
    rewards[0, 0], rewards[1, 0] = 100.0, -100.0
    advantages = flow.group_advantages(rewards)
    assert advantages[0, 0] == 5.0 and advantages[1, 0] == -5.0
    assert flow.group_advantages(rewards, clip=0.5).abs().max() == 0.5


@pytest.mark.parametrize("group", [2, 3, 7, 24, 49])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, 22.34])
def test_a_group_of_equal_rewards_has_exactly_no_advantage(group, reward):
    rewards = torch.rand(3, group, generator=torch.Generator().manual_seed(group))
    rewards[1] = reward
    advantages = flow.group_advantages(rewards)
    assert (advantages[1] == 0).all() and (advantages[[0, 2]] != 0).all()
    assert (flow.group_advantages(torch.full((4, group), reward)) == 0).all()


def test_a_group_of_one_has_no_advantage_to_be_told():
    with pytest.raises(ValueError, match="a group of 1 has nothing to compare with"):
        flow.group_advantages(torch.rand(4, 1))


# -- averages ----------------------------------------------------------------------------------------------------------


def test_ema_follows_the_formula_in_place():
    shadow, value = [Z0.clone(), Z1.clone()], [V, EPS]
    held = list(shadow)
    flow.ema_update(shadow, value, 0.9)
    assert all(a is b for a, b in zip(shadow, held, strict=True))
    near(shadow[0], 0.9 * Z0.numpy() + 0.1 * V.numpy())
    near(shadow[1], 0.9 * Z1.numpy() + 0.1 * EPS.numpy())


def test_ema_with_decay_zero_copies_and_with_decay_one_keeps():
    shadow = [Z0.clone()]
    flow.ema_update(shadow, [V], 1.0)
    assert torch.equal(shadow[0], Z0)
    flow.ema_update(shadow, [V], 0.0)
    assert torch.equal(shadow[0], V)


def test_ema_leaves_the_parameters_alone_and_builds_no_graph():
    parameter = torch.nn.Parameter(V.clone())
    shadow = [Z0.clone()]
    flow.ema_update(shadow, [parameter], 0.5)
    assert torch.equal(parameter, V) and not shadow[0].requires_grad


def test_ema_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match="shorter"):
        flow.ema_update([Z0.clone(), Z1.clone()], [V], 0.5)
