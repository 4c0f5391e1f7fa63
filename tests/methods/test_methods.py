"""SFT, SOAR and Flow-GRPO keep their identities and compute what docs/protocol.md says, redone in float64."""

from __future__ import annotations

import math

import fakes
import numpy as np
import pytest
import torch
from fakes import TINY_GRPO, Brightness, advance, same, small, take, weights
from observed import column, prepare, record, wide

from bench import flow

METHODS = ("sft", "soar", "input_perturbation", "reflexflow", "flow_grpo")
VARIANTS = {
    "default": {},
    "weighted": {"aux_weight": 0.25},
    "one point": {"aux_points": 1},
    "unguided": {"guidance_scale": 1.0},
    "fresh": {"fresh_noise": True},
    "branches": {"sde_branches": 2, "rollout_steps": 3},
    "all": {"sde_branches": 1, "sde_kind": "sde", "fresh_noise": True, "aux_weight": 2.0},
}


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
    second[0].load_state_dict(first[0].state_dict())
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
    torch.save({"job": job.state_dict(), "method": method.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(state["job"])
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
    assert same(evaluated, job._ema if name == "flow_grpo" else trained)


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
        clean, noise, eps = wide(z) - s * guided, wide(z) + (1 - s) * guided, drawn[f"branch-{branch}"]
        std = after * (math.sin(c.sde_scale * math.pi / 2) if c.sde_kind == "cps" else 1)
        landings.append((1 - after) * clean + np.sqrt(np.maximum(after**2 - std**2, 0)) * noise + std * eps)

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
    _, levels, of = method._auxiliary(job, pairs, pairs.latents, z1, u, torch.zeros_like(z1))
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
    states, levels, of = method._auxiliary(job, pairs, z, z1, u, z1 - z0)
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
        states, levels, _ = method._auxiliary(job, pairs, flow.interpolate(z0, z1, sigma), z1, u, wrong)
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
        states, levels, _ = method._auxiliary(job, pairs, pairs.latents, z1, u, z1)
    assert (levels > 0).all() and torch.isfinite(states / flow.per_sample(levels, states)).all()


# -- Flow-GRPO ---------------------------------------------------------------------------------------------------------


def moments(z, v, sigmas: np.ndarray, i: int, a: float) -> tuple[np.ndarray, float]:
    """Mean of the Flow-GRPO step and its s = a sqrt(sigma / (1 - sigma)), from protocol.md."""
    sigma, dt = sigmas[i], sigmas[i + 1] - sigmas[i]
    s = a * math.sqrt(sigma / (1 - (sigma if sigma < 1 else sigmas[1])))
    return z * (1 + s**2 / (2 * sigma) * dt) + v * (1 + s**2 * (1 - sigma) / (2 * sigma)) * dt, s


def log_prob(x, mean, std: float) -> np.ndarray:
    density = -((x - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return density.mean((1, 2, 3))


@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
def test_the_first_ratio_is_exactly_one(world, guidance_scale):
    job, method = prepare(world, "flow_grpo", updates=1, guidance_scale=guidance_scale)
    for log in advance(job, method, 3):
        assert log["ratio"] == 1.0 and log["clipped"] == 0.0


def test_a_second_update_is_off_policy(world):
    job, method = prepare(world, "flow_grpo", updates=2)
    (log,) = advance(job, method, 1)
    assert log["ratio"] != 1.0 and job.meter.updates == 2


def sampled(world, **overrides):
    """A job, its method and one batch of sampled paths."""
    job, method = prepare(world, "flow_grpo", **overrides)
    batch = job.prompts(method.config.prompts, repeat=method.config.group_size)
    return job, method, batch, method._sample(job, batch)[0]


def update(job, method, *arguments, **options) -> dict[str, float]:
    """One update of Flow-GRPO and what it logged."""
    method._update(job, *arguments, **options)
    return job.finish_step(seconds=0, memory=0)


def test_paths_follow_the_sde_and_keep_their_log_probabilities(world, monkeypatch):
    job, method = prepare(world, "flow_grpo")
    noises, calls = record(job, "noise", monkeypatch), record(job.policy, "branches", monkeypatch)
    paths, _ = method._sample(job, job.prompts(2, repeat=3))
    sigmas = wide(job.policy.sigmas(3))
    for i in range(3):
        (z, sigma, _), (free, bound) = calls[i]
        assert torch.equal(z, paths.latents[i]) and float(sigma) == sigmas[i]
        assert torch.equal(free, paths.unconditional[i])
        mean, s = moments(wide(z), wide(free) + 4.5 * (wide(bound) - wide(free)), sigmas, i, 0.7)
        std = s * math.sqrt(sigmas[i] - sigmas[i + 1])
        after, eps = wide(paths.latents[i + 1]), wide(noises[i + 1][1])
        np.testing.assert_allclose(after, mean + std * eps, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(wide(paths.log_probs[i]), log_prob(after, mean, std), rtol=1e-5)
    assert len({tuple(row.flatten().tolist()) for _, noise in noises for row in noise}) == 6 * 4


def test_the_kept_log_probabilities_are_those_of_the_sampling_policy(world):
    """The exact ratio of 1 does not hide a wrong old policy: taken from the paths it is 1 but for rounding."""
    job, method, batch, paths = sampled(world)
    log = update(job, method, batch, paths, torch.ones(6), torch.arange(6), on_policy=False)
    assert log["ratio"] == pytest.approx(1.0, abs=1e-5) and log["clipped"] == 0.0


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"kl_weight": 0.0},
        {"kl_weight": 0.5, "noise_level": 0.4},
        {"clip_range": 1e-3},
        {"detach_unconditional": False},
        {"guidance_scale": 1.0},
    ],
)
def test_the_clipped_loss_and_the_divergence_follow_the_protocol(world, monkeypatch, overrides):
    job, method, batch, paths = sampled(world, **overrides)
    c = method.config
    everything = torch.arange(6)
    update(job, method, batch, paths, torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, -0.5]), everything, on_policy=True)
    calls, references = record(method, "_velocity", monkeypatch), []
    guided = job.policy.guided_velocity
    monkeypatch.setattr(
        job.policy,
        "guided_velocity",
        lambda z, *rest: (
            (references.append((z, guided(z, *rest))) or references[-1][1])
            if not torch.is_grad_enabled()
            else guided(z, *rest)
        ),
    )
    advantages, chosen = torch.tensor([0.0, 1.5, -0.7, 0.0, 2.0, -5.0]), torch.tensor([4, 1, 5, 2])
    log = update(job, method, batch, paths, advantages, chosen, on_policy=False)

    sigmas, a = wide(job.policy.sigmas(c.sampling_steps)), wide(advantages[chosen])
    losses, divergences, clipped = [], [], []
    for i in range(c.sampling_steps - 1):  # all but the last step
        (_, z, *_), velocity = calls[i]
        mean, s = moments(wide(z), wide(velocity), sigmas, i, c.noise_level)
        std, after = s * math.sqrt(sigmas[i] - sigmas[i + 1]), wide(paths.latents[i + 1, chosen])
        ratio = np.exp(log_prob(after, mean, std) - wide(paths.log_probs[i, chosen]))
        loss = np.maximum(-a * ratio, -a * np.clip(ratio, 1 - c.clip_range, 1 + c.clip_range)).mean()
        divergence = 0.0
        if c.kl_weight:
            z_again, frozen = references[i]
            assert torch.equal(z, z_again) and not frozen.requires_grad
            divergence = ((mean - moments(wide(z), wide(frozen), sigmas, i, c.noise_level)[0]) ** 2).mean() / (2 * s**2)
            assert divergence > 0
        losses.append(loss + c.kl_weight * divergence)
        divergences.append(divergence)
        clipped.append((np.abs(ratio - 1) > c.clip_range).mean())
    assert len(calls) == c.sampling_steps - 1 and len(references) == (len(calls) if c.kl_weight else 0)
    assert np.mean(clipped) > 0
    assert log["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert log.get("kl", 0.0) == pytest.approx(np.mean(divergences), rel=1e-3)
    assert log["clipped"] == pytest.approx(np.mean(clipped))


def test_the_divergence_is_to_the_pretrained_model(world):
    job, method, batch, paths = sampled(world, updates=1)
    first = update(job, method, batch, paths, torch.ones(6), torch.arange(6), on_policy=True)
    second = update(job, method, batch, paths, torch.ones(6), torch.arange(6), on_policy=True)
    assert first["kl"] < 1e-6 * second["kl"]  # a LoRA adapter starts as nothing, but for rounding


def test_the_reward_sees_every_image_with_the_prompt_it_was_drawn_for(world, monkeypatch):
    job, method = prepare(world, "flow_grpo")
    rewards, batches = record(job, "reward_later", monkeypatch), record(job, "prompts", monkeypatch)
    samples, decodes = record(method, "_sample", monkeypatch), record(job, "decode", monkeypatch)
    advance(job, method, 1)
    (images, prompts), _ = rewards[0]
    asked = batches[0][1]
    assert prompts == asked.prompts == (asked.prompts[0],) * 3 + (asked.prompts[3],) * 3
    condition = {text: world.data.text.prompt_embeds[i] for i, text in enumerate(fakes.CAPTIONS)}
    assert all(torch.equal(asked.text.prompt_embeds[i], condition[p.text]) for i, p in enumerate(prompts))
    assert (
        samples[0][0][1] is asked
        and torch.equal(decodes[0][0][0], samples[0][1][0].latents[-1])
        and images is decodes[0][1]
    )


def test_updates_share_the_samples_that_have_an_advantage(world, monkeypatch):
    class Uneven(Brightness):
        def score(self, images, prompts):
            return [0.5, 0.5, 0.5, 0.1, 0.2, 0.9]  # the first prompt's group has nothing to teach

    job = world.job(reward=Uneven())
    method = small("flow_grpo")
    method.setup(job)
    updates = record(method, "_update", monkeypatch)
    (log,) = advance(job, method, 1)
    of = [arguments[4].tolist() for arguments, _ in updates]
    assert sorted(of[0] + of[1]) == [3, 4, 5] and len(of) == 2 and log["kept"] == 3.0
    advantages = updates[0][0][3]
    rewards = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.9]])
    expected = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std() + 1e-4)
    np.testing.assert_allclose(wide(advantages), expected.flatten(), rtol=1e-5)


def test_constant_rewards_teach_nothing_and_break_nothing(world):
    class Constant(Brightness):
        def score(self, images, prompts):
            return [0.3] * len(images)

    job = world.job(reward=Constant())
    method = small("flow_grpo")
    method.setup(job)
    before = weights(job)
    logs = advance(job, method, 2)
    assert same(before, weights(job)) and same(before, job._ema)
    assert job.meter.updates == 0 and job.meter.images == job.meter.reward_calls == 12
    assert all(log["kept"] == 0 and all(map(math.isfinite, log.values())) for log in logs)


def test_the_average_warms_up(world, monkeypatch):
    """decay = min(.9, (1 + n) / (10 + n)) after the n-th update, every ``ema_every`` updates."""
    job, method = prepare(world, "flow_grpo", updates=1, ema_every=2, ema_decay=0.4)
    expected = [wide(w) for w in weights(job)]
    for n in range(1, 9):
        advance(job, method, 1)
        if n % 2 == 0:
            decay = min(0.4, (1 + n) / (10 + n))
            expected = [decay * e + (1 - decay) * wide(w) for e, w in zip(expected, weights(job), strict=True)]
    for value, held in zip(expected, job._ema, strict=True):
        np.testing.assert_allclose(wide(held), value, rtol=1e-5, atol=1e-7)


def test_the_pretrained_weights_stay_as_they_are(world):
    job, method = prepare(world, "flow_grpo")
    base = [p for name, p in job.policy.transformer.named_parameters() if "lora_" not in name]
    before = [p.detach().clone() for p in base]
    advance(job, method, 2)
    assert same(base, before)


def test_flow_grpo_is_charged_for_rollouts_images_and_rewards(world):
    job, method = prepare(world, "flow_grpo")
    (log,) = advance(job, method, 1)
    samples, steps, trained = 6, TINY_GRPO["sampling_steps"], TINY_GRPO["sampling_steps"] - 1
    assert log["kept"] == samples
    assert job.meter.images == job.meter.reward_calls == samples
    assert job.meter.backwards == samples * trained  # the unconditional branch has no gradient
    rollout, reference, policy = 2 * samples * steps, 2 * samples * trained, samples * trained
    unconditional = samples // 2 * trained  # known from the rollout until the first update
    assert job.meter.forwards == rollout + reference + policy + unconditional


def test_the_unconditional_branch_is_detached_unless_asked(world, monkeypatch):
    """Detached, the gradient is that of guidance with the sampled unconditional velocity as a constant."""
    grads = {}
    for detached in (True, False):
        job, method, batch, paths = sampled(world, detach_unconditional=detached)
        monkeypatch.setattr(job, "update", lambda: None)
        method._update(job, batch, paths, torch.ones(6), torch.arange(6), on_policy=True)
        grads[detached] = torch.cat([p.grad.flatten().double() for p in job.parameters])
    job, method, batch, paths = sampled(world, detach_unconditional=False)
    frozen = iter(paths.unconditional)
    monkeypatch.setattr(job, "update", lambda: None)
    monkeypatch.setattr(
        job.policy,
        "guided_velocity",
        lambda z, sigma, text, w: flow.guide(
            next(frozen) if torch.is_grad_enabled() else paths.unconditional[0], job.policy.velocity(z, sigma, text), w
        ),
    )
    method.config = method.config.model_copy(update={"kl_weight": 0.0})
    method._update(job, batch, paths, torch.ones(6), torch.arange(6), on_policy=True)
    expected = torch.cat([p.grad.flatten().double() for p in job.parameters])
    assert (grads[True] - expected).norm() < 1e-4 * expected.norm()
    assert (grads[False] - expected).norm() > 0.1 * expected.norm()
