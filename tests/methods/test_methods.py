"""What holds for every method; SFT and SOAR compute what docs/protocol.md says, redone in float64."""

from __future__ import annotations

import math

import fakes
import numpy as np
import pytest
import torch
from fakes import advance, same, small, take, weights
from observed import column, prepare, record, wide

from bench import flow, registry

METHODS = tuple(registry.BUILT_IN["methods"])
PROBED = {
    "sft": {"heldout_loss"},
    "soar": {"heldout_loss", "one_step_gap"},
    "reflexflow": {"heldout_loss", "one_step_gap"},
}
"""What is in a method's loss on the path and one step off it, by docs/protocol.md; the other methods' inputs differ."""
VARIANTS = {
    "default": {},
    "weighted": {"aux_weight": 0.25},
    "one point": {"aux_points": 1},
    "unguided": {"guidance_scale": 1.0},
    "fresh": {"fresh_noise": True},
    "branches": {"sde_branches": 2, "rollout_steps": 3},
    "simple": {"sde_branches": 1, "sde_kind": "simple", "rollout_steps": 3},
    "flow_sde": {"sde_branches": 1, "sde_kind": "flow_sde", "sde_scale": 0.7, "rollout_steps": 3},
    "all": {"sde_branches": 1, "sde_kind": "sde", "fresh_noise": True, "aux_weight": 2.0},
}


def stochastic(kind, scale: float, z, v, s, after, eps) -> np.ndarray:
    """A stochastic step, from protocol.md."""
    clean, noise, dt = z - s * v, z + (1 - s) * v, after - s
    if kind == "simple":
        return z + dt * v + scale * np.sqrt(-dt) * eps
    if kind == "flow_sde":
        std = scale * np.sqrt(s / (1 - np.where(s < 1, s, after)))
        drift = z * (1 + std**2 / (2 * s) * dt) + v * (1 + std**2 * (1 - s) / (2 * s)) * dt
        return drift + std * np.sqrt(-dt) * eps
    std = after * (math.sin(scale * math.pi / 2) if kind == "cps" else 1)
    return (1 - after) * clean + np.sqrt(np.maximum(after**2 - std**2, 0)) * noise + std * eps


# -- every method ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_touches_no_global_generator(world, name):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    advance(*prepare(world, name), 2)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_logs_finite_numbers(world, name):
    job, method = prepare(world, name)
    before = weights(job)
    logs = advance(job, method, 2)
    assert not same(before, weights(job))
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert job.meter.updates >= 2


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(world, name):
    def run(seed: int) -> list[dict[str, float]]:
        job, method = world.job(seed=seed), small(name)
        method.setup(job)
        return advance(job, method, 2)

    assert run(0) == run(0) != run(1)


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_method_goes_on_bit_for_bit(world, name):
    whole, first, second = (prepare(world, name) for _ in range(3))
    expected = advance(*whole, 4)
    logs = advance(*first, 2)
    fakes.session_of(second[0]).load_state_dict(fakes.session_of(first[0]).state_dict())
    second[1].load_state_dict(first[1].state_dict())
    logs += advance(*second, 2)
    assert logs == expected
    assert same(weights(whole[0]), weights(second[0]))
    with whole[1].evaluation_weights(whole[0]), second[1].evaluation_weights(second[0]):
        assert same(weights(whole[0]), weights(second[0]))


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_state_survives_a_safe_checkpoint(world, name, tmp_path):
    (job, method), (other, again) = prepare(world, name), prepare(world, name)
    advance(job, method, 1)
    torch.save({"job": fakes.session_of(job).state_dict(), "method": method.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    fakes.session_of(other).load_state_dict(state["job"])
    again.load_state_dict(state["method"])
    assert advance(job, method, 1) == advance(other, again, 1)
    with method.evaluation_weights(job), again.evaluation_weights(other):
        assert same(weights(job), weights(other))


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_weights_come_and_go(world, name):
    job, method = prepare(world, name)
    advance(job, method, 2)
    trained = weights(job)
    with method.evaluation_weights(job):
        evaluated = weights(job)
    assert same(weights(job), trained)
    assert same(evaluated, trained if fakes.learner(job).ema is None else fakes.learner(job).ema)


# -- SFT ---------------------------------------------------------------------------------------------------------------


def test_sft_is_the_flow_matching_loss(world, monkeypatch):
    job, method = prepare(world, "sft")
    noise, calls = record(job, "noise", monkeypatch), record(job.policy, "velocity", monkeypatch)
    (log,) = advance(job, method, 1)
    (z, sigma, text), velocity = calls[0]
    pairs = noise[0][0][0]
    z0, z1, s = wide(pairs.latents), wide(noise[0][1]), column(wide(sigma))
    np.testing.assert_allclose(wide(z), (1 - s) * z0 + s * z1, rtol=1e-5, atol=1e-6)
    assert torch.equal(text.prompt_embeds, pairs.text.prompt_embeds)
    assert log["loss"] == pytest.approx(((wide(velocity) - (z1 - z0)) ** 2).mean(), rel=1e-6)
    assert job.meter.forwards == job.meter.backwards == job.meter.pairs == 4


# -- SOAR --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "all"])
def test_soar_with_lambda_zero_is_sft_bit_for_bit(world, variant):
    sft, soar = prepare(world, "sft"), prepare(world, "soar", **VARIANTS[variant] | {"aux_weight": 0.0})
    assert advance(*sft, 3) == advance(*soar, 3)
    assert same(weights(sft[0]), weights(soar[0]))
    assert sft[0].meter == soar[0].meter


@pytest.mark.parametrize("variant", VARIANTS)
def test_soars_loss_follows_the_protocol(world, monkeypatch, variant):
    job, method = prepare(world, "soar", **VARIANTS[variant])
    c, batch = method.config, method.config.batch_size
    paths = 1 + c.sde_branches
    noises, calls = record(job, "noise", monkeypatch), record(job.policy, "velocity", monkeypatch)
    (log,) = advance(job, method, 1)
    drawn = {arguments[1]: wide(result) for arguments, result in noises}
    z0, z1 = wide(noises[0][0][0].latents), drawn["noise"]

    (z, sigma, _), conditional = calls[0]
    s = column(wide(sigma))
    u = s / (3 - 2 * s)  # the shift, undone
    after = np.maximum(u - 1 / c.rollout_steps, 0)
    after = 3 * after / (1 + 2 * after)
    np.testing.assert_allclose(wide(z), (1 - s) * z0 + s * z1, rtol=1e-5, atol=1e-6)
    base = ((wide(conditional) - (z1 - z0)) ** 2).mean((1, 2, 3))

    guided = wide(conditional)
    if c.guidance_scale != 1:
        (z_free, sigma_free, _), free = calls[1]
        assert torch.equal(z_free, z) and torch.equal(sigma_free, sigma)
        guided = wide(free) + c.guidance_scale * (guided - wide(free))
    landings = [wide(z) + (after - s) * guided]
    for branch in range(c.sde_branches):
        landings.append(stochastic(c.sde_kind, c.sde_scale, wide(z), guided, s, after, drawn[f"branch-{branch}"]))

    (states, levels, _), corrected = calls[-1]
    kept = [np.arange(batch), *[np.flatnonzero(after > 1e-9)] * c.sde_branches]
    assert len(states) == c.aux_points * sum(map(len, kept))
    start, errors = 0, []
    for path in range(paths):
        anchor = drawn[f"fresh-{path}"] if c.fresh_noise else z1
        for _ in range(c.aux_points):
            part, rows = slice(start, start + len(kept[path])), kept[path]
            level, low = column(wide(levels[part])), after[rows]
            assert (level >= low - 1e-6).all() and (level <= 1).all()
            alpha = (level - low) / (1 - low)
            expected = (1 - alpha) * landings[path][rows] + alpha * anchor[rows]
            np.testing.assert_allclose(wide(states[part]), expected, rtol=1e-4, atol=1e-4)
            target = (wide(states[part]) - z0[rows]) / level
            errors.append(((wide(corrected[part]) - target) ** 2).mean((1, 2, 3)))
            start = part.stop
    total = np.concatenate(errors)
    expected = (base.sum() + c.aux_weight * total.sum()) / (batch + c.aux_weight * len(total))
    assert log["loss"] == pytest.approx(expected, rel=1e-5)
    assert log["base_loss"] == pytest.approx(base.mean(), rel=1e-5)
    assert log["correction_loss"] == pytest.approx(total.mean(), rel=1e-5)


def test_every_auxiliary_level_is_a_draw_of_its_own_and_uniform(world):
    job, method = prepare(world, "soar", batch_size=12, aux_points=400)
    pairs, u = take(job, 12), torch.full((12,), 0.5)
    z1 = job.noise(pairs, "noise")
    _, levels, of = method.auxiliary(job, pairs, pairs.latents, z1, u, torch.zeros_like(z1))
    low = float(flow.shift_time(torch.tensor(0.5 - 1 / 40), 3.0))
    share = (levels.double() - low) / (1 - low)
    assert len(share.unique()) > 4700 and torch.equal(of.bincount(), torch.full((12,), 400))
    assert abs(share.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / 4800)
    assert abs(share.var().item() - 1 / 12) < 0.005


def test_soars_auxiliary_points_share_one_call_and_the_rollout_builds_no_graph(world, monkeypatch):
    job, method = prepare(world, "soar", aux_points=3)
    calls = record(job.policy, "velocity", monkeypatch)
    advance(job, method, 1)
    assert [len(result) for _, result in calls] == [4, 4, 12]  # pairs, their unconditional branch, auxiliary points
    assert [result.requires_grad for _, result in calls] == [True, False, True]
    assert not calls[2][0][0].requires_grad
    assert (job.meter.forwards, job.meter.backwards) == (20, 16)


@pytest.mark.parametrize("variant", ["default", "unguided"])
def test_without_deviation_the_correction_is_the_base_target(world, monkeypatch, variant):
    """A model that is right everywhere has no correction to learn: v_corr = z1 - z0."""
    job, method = prepare(world, "soar", **VARIANTS[variant])
    pairs, u = take(job, 4), torch.tensor([0.01, 0.3, 0.7, 1.0])
    z0, z1 = pairs.latents, job.noise(pairs, "noise")
    monkeypatch.setattr(job.policy, "unconditional_velocity", lambda z, sigma: z1 - z0)
    z = flow.interpolate(z0, z1, flow.shift_time(u, 3.0))
    states, levels, of = method.auxiliary(job, pairs, z, z1, u, z1 - z0)
    target = (wide(states) - wide(z0[of])) / column(wide(levels))
    # float32 states of size 4 carry 2e-7 of rounding, which the division by sigma'' magnifies
    error = np.abs(target - wide((z1 - z0)[of])) * column(wide(levels))
    assert error.max() < 3e-6


def test_deviations_shrink_with_the_re_noising_and_vanish_at_sigma_one(world, monkeypatch):
    """z'' - z_sigma''(ideal) = (1 - alpha)(landing - z_sigma'(ideal)); at sigma'' = 1 all states are the noise."""
    job, method = prepare(world, "soar", guidance_scale=1.0, aux_points=1)
    pairs, u = take(job, 4), torch.tensor([0.05, 0.3, 0.7, 1.0])
    z0, z1 = pairs.latents, job.noise(pairs, "noise")
    sigma, after = flow.shift_time(u, 3.0), flow.shift_time((u - 1 / 40).clamp_min(0), 3.0)
    wrong = job.noise(pairs, "wrong")
    for draw in (0.25, 1.0):
        monkeypatch.setattr(
            job, "uniform", lambda batch, stream, *shape, draw=draw: torch.full((len(batch), *shape), draw)
        )
        states, levels, _ = method.auxiliary(job, pairs, flow.interpolate(z0, z1, sigma), z1, u, wrong)
        deviation = wide(flow.interpolate(z0, z1, sigma)) + column(wide(after - sigma)) * wide(wrong)
        deviation -= wide(flow.interpolate(z0, z1, after))
        ideal = (1 - column(wide(levels))) * wide(z0) + column(wide(levels)) * wide(z1)
        np.testing.assert_allclose(wide(states) - ideal, (1 - draw) * deviation, atol=2e-6)
    assert torch.equal(levels, torch.ones(4)) and torch.equal(states, z1)


def test_soar_never_divides_by_a_vanishing_level(world):
    job, method = prepare(world, "soar")
    pairs, u = take(job, 4), torch.full((4,), 0.001)  # the rollout lands on clean latents
    z1 = job.noise(pairs, "noise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "uniform", lambda batch, stream, *shape: torch.zeros(len(batch), *shape))
        states, levels, _ = method.auxiliary(job, pairs, pairs.latents, z1, u, z1)
    assert (levels > 0).all() and torch.isfinite(states / flow.per_sample(levels, states)).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_which_probes_it_trains_on(name):
    declared = registry.load("methods", name).trained_probes
    assert set(declared) == PROBED.get(name, set()) <= set(registry.table("probes"))
