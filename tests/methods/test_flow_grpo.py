"""Flow-GRPO and its variants compute what docs/protocol.md says, redone in float64."""

from __future__ import annotations

import math

import fakes
import numpy as np
import pytest
import torch
from fakes import TINY_GRPO, Brightness, Places, advance, same, small, weights
from observed import prepare, record, wide

from bench import flow
from bench.errors import BenchError
from bench.experiment.config import method_config
from bench.trajectories import Transitions, sample_paths
from methods import flow_grpo

FAST = {"window": 1, "noise_level": 0.8, "kl_weight": 0.0}
VARIANTS = {
    "default": {},
    "unguided": {"guidance_scale": 1.0},
    "cps": {"sde_kind": "cps"},
    "guard": {"guard": True},
    "fast": FAST,
    "fast cps": FAST | {"sde_kind": "cps"},
    "fast guard": FAST | {"guard": True},
    "all": {"window": 2, "sampling_steps": 4, "sde_kind": "cps", "guard": True, "kl_weight": 0.1},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def moments(z, v, sigmas: np.ndarray, i: int, c) -> tuple[np.ndarray, float, float]:
    """Mean and std of a step and the deviation by which the divergence divides, from protocol.md."""
    sigma, after, dt = sigmas[i], sigmas[i + 1], sigmas[i + 1] - sigmas[i]
    if c.sde_kind == "cps":
        std = after * math.sin(c.noise_level * math.pi / 2)
        clean, noise = z - sigma * v, z + (1 - sigma) * v
        return (1 - after) * clean + math.sqrt(after**2 - std**2) * noise, std, std
    s = c.noise_level * math.sqrt(sigma / (1 - (sigma if sigma < 1 else sigmas[1])))
    mean = z * (1 + s**2 / (2 * sigma) * dt) + v * (1 + s**2 * (1 - sigma) / (2 * sigma)) * dt
    return mean, s * math.sqrt(-dt), s


def log_prob(x, mean, std: float, kind: str) -> np.ndarray:
    density = -((x - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return (-((x - mean) ** 2) if kind == "cps" else density).mean((1, 2, 3))


def guarded(x, mean, old, std: float) -> np.ndarray:
    """GRPO-Guard's ratio as its paper writes it, of Gaussian log-probabilities."""
    change = log_prob(x, mean, std, "flow_sde") - log_prob(x, old, std, "flow_sde")
    return np.exp((change + ((mean - old) ** 2).mean((1, 2, 3)) / (2 * std**2)) * std)


def sampled(world, **overrides):
    """A job, its method, one batch, the sampler and its paths."""
    job, method = prepare(world, "flow_grpo", **overrides)
    return job, method, *sampled_by(job, method)


def sampled_by(job, method):
    """One batch of a job, the method's sampler and its paths."""
    c = method.config
    sigmas = job.policy.sigmas(c.sampling_steps).tolist()
    by = Transitions(c.sde_kind, c.noise_level, c.guard, sigmas, c.guidance_scale)
    batch = job.prompts(c.prompts, repeat=c.group_size)
    paths, _ = sample_paths(
        job, batch, by, trained=method.trained_steps(job), shared_by=c.group_size if c.window else None,
        keep_unconditional=c.guidance_scale != 1 and c.detach_unconditional,
    )  # fmt: skip
    return batch, by, paths


def update(job, method, *arguments, **options) -> dict[str, float]:
    """One update and what it logged."""
    method.update(job, *arguments, **options)
    return fakes.finish_step(job)


# -- ratios ------------------------------------------------------------------------------------------------------------


@every_variant
def test_the_first_ratio_is_exactly_one(world, variant):
    job, method = prepare(world, "flow_grpo", updates=1, **VARIANTS[variant])
    for log in advance(job, method, 3):
        assert log["ratio"] == 1.0 and log["clipped"] == 0.0


@every_variant
def test_a_second_update_is_off_policy(world, variant):
    job, method = prepare(world, "flow_grpo", updates=2, **VARIANTS[variant])
    (log,) = advance(job, method, 1)
    assert log["ratio"] != 1.0 and job.meter.updates == 2


@every_variant
def test_what_the_paths_remember_is_the_sampling_policys(world, variant):
    """The exact ratio of 1 does not hide a wrong old policy: taken from the paths it is 1 but for rounding."""
    job, method, batch, by, paths = sampled(world, **VARIANTS[variant])
    log = update(job, method, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=False)
    assert log["ratio"] == pytest.approx(1.0, abs=1e-5) and log["clipped"] == 0.0


@every_variant
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_old_values_of_the_training_shape_make_a_ratio_of_exactly_one(world, variant, micro_batch):
    job, method = world.job(reward=Brightness(), micro_batch=micro_batch), small("flow_grpo", **VARIANTS[variant])
    method.setup(job)
    batch, by, paths = sampled_by(job, method)
    turns = [torch.tensor([4, 1, 3]), torch.tensor([2, 5])]
    paths = method.as_trained(job, batch, by, paths, turns)
    for rows in turns:
        parts, ratios = list(job.parts(batch, rows)), []
        seen = record_ratios(by, ratios)
        method.config = method.config.model_copy(update={"kl_weight": 0.0})
        update(job, method, batch, seen, paths, torch.zeros(6), rows, on_policy=False)
        assert len(ratios) == len(parts) * len(paths.steps) and all((ratio == 1).all() for ratio in ratios)


def record_ratios(by: Transitions, ratios: list[torch.Tensor]) -> Transitions:
    seen = Transitions(by.kind, by.noise_level, by.guarded, by.sigmas, by.guidance_scale)

    def ratio(after, mean, std, old):
        ratios.append(Transitions.ratio(by, after, mean, std, old).detach())
        return Transitions.ratio(by, after, mean, std, old)

    object.__setattr__(seen, "ratio", ratio)
    return seen


@every_variant
def test_the_noise_of_other_shapes_is_logged_by_the_first_update(world, variant):
    job, method, batch, by, paths = sampled(world, **VARIANTS[variant])
    log = update(job, method, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=True)
    assert 0 <= log["noise"] < 1e-5
    paths.memory.add_(1e-3)
    log = update(job, method, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=True)
    assert log["noise"] > 1e-5
    assert "noise" not in update(job, method, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=False)


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "cps", "guard"])
def test_paths_are_stochastic_and_hold_what_is_trained(world, monkeypatch, variant):
    job, method = prepare(world, "flow_grpo", **VARIANTS[variant])
    noises, calls = record(job, "noise", monkeypatch), record(job.policy, "branches", monkeypatch)
    decodes, sampling = record(job, "decode", monkeypatch), record(flow_grpo, "sample_paths", monkeypatch)
    monkeypatch.setattr(method, "update", lambda *_, **__: None)
    advance(job, method, 1)
    paths, c, sigmas = sampling[0][1][0], method.config, wide(job.policy.sigmas(3))
    assert paths.steps == range(2) and len(calls) == 3
    assert paths.latents.shape == (6, 3, 4, 4, 4) and paths.unconditional.shape == (6, 2, 4, 4, 4)
    for i in range(3):
        (z, sigma, _), (free, bound) = calls[i]
        assert torch.equal(z, paths.latents[:, i]) and float(sigma) == sigmas[i]
        mean, std, _ = moments(wide(z), wide(free) + 4.5 * (wide(bound) - wide(free)), sigmas, i, c)
        after = paths.latents[:, i + 1] if i < 2 else decodes[0][0][0]
        np.testing.assert_allclose(wide(after), mean + std * wide(noises[i + 1][1]), rtol=1e-4, atol=1e-5)
        if i < 2:
            expected = mean if c.guard else log_prob(wide(after), mean, std, c.sde_kind)
            np.testing.assert_allclose(wide(paths.memory[:, i]), expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(free, paths.unconditional[:, i])
    assert len({tuple(row.flatten().tolist()) for _, noise in noises for row in noise}) == 6 * 4


@pytest.mark.parametrize("variant", ["fast", "fast cps"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_outside_the_window_the_path_is_the_odes_and_before_it_the_groups(world, monkeypatch, variant, first):
    job, method = prepare(world, "flow_grpo", **VARIANTS[variant] | {"sampling_steps": 5, "window": 2})
    calls, noises = record(job.policy, "branches", monkeypatch), record(job, "noise", monkeypatch)
    decodes, sampling = record(job, "decode", monkeypatch), record(flow_grpo, "sample_paths", monkeypatch)
    monkeypatch.setattr(method, "trained_steps", lambda job: range(first, first + 2))
    monkeypatch.setattr(method, "update", lambda *_, **__: None)
    advance(job, method, 1)
    paths, c, sigmas = sampling[0][1][0], method.config, wide(job.policy.sigmas(5))
    assert paths.latents.shape == (6, 3, 4, 4, 4) and paths.memory.shape == (6, 2)
    assert [len(z) for (z, *_), _ in calls] == [2] * first + [6] * (5 - first)  # prompts, then images
    assert [arguments[1] for arguments, _ in noises] == ["start", f"sde-{first}", f"sde-{first + 1}"]
    assert len(noises[0][1]) == 2  # a group shares its start
    after_calls = [z for (z, *_), _ in calls[1:]] + [decodes[0][0][0]]
    for i, ((z, sigma, _), (free, bound)) in enumerate(calls):
        assert float(sigma) == sigmas[i]
        velocity = wide(free) + 4.5 * (wide(bound) - wide(free))
        if i in paths.steps:
            mean, std, _ = moments(wide(z), velocity, sigmas, i, c)
            expected = mean + std * wide(noises[1 + i - first][1])
            assert torch.equal(z, paths.latents[:, i - first])
        else:
            expected = wide(z) + (sigmas[i + 1] - sigmas[i]) * velocity
        if i == first - 1:
            expected = expected.repeat(3, axis=0)
        np.testing.assert_allclose(wide(after_calls[i]), expected, rtol=1e-4, atol=1e-5)
    groups = paths.latents[:, 0].view(2, 3, -1)
    assert (groups == groups[:, :1]).all() and not torch.equal(groups[0], groups[1])
    assert len(paths.latents[:, 1].flatten(1).unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("steps", "window", "starts"),
    [(10, 2, range(6)), (10, 3, range(6)), (6, 2, range(4)), (6, 4, range(2)), (3, 2, [0])],
)
def test_windows_start_in_the_first_half_and_leave_out_the_last_step(world, steps, window, starts):
    job, method = prepare(world, "flow_grpo", sampling_steps=steps, window=window)
    seen, ledger = set(), fakes.session_of(job).ledger
    for ledger.step in range(100):
        trained = method.trained_steps(job)
        assert len(trained) == window and trained == method.trained_steps(job)
        seen.add(trained.start)
    assert seen == set(starts)


def test_the_window_is_recorded(world):
    logs = advance(*prepare(world, "flow_grpo", sampling_steps=6, window=2, kl_weight=0.0), 4)
    assert {log["window"] for log in logs} <= {0.0, 1.0, 2.0, 3.0} and len({log["window"] for log in logs}) > 1


# -- loss --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"kl_weight": 0.0},
        {"kl_weight": 0.5, "noise_level": 0.4},
        {"clip_range": 1e-3},
        {"detach_unconditional": False},
        {"guidance_scale": 1.0},
        {"sde_kind": "cps"},
        {"sde_kind": "cps", "noise_level": 0.8, "kl_weight": 0.5, "window": 2, "sampling_steps": 5},
        {"window": 1, "noise_level": 0.8},
        {"guard": True},
        {"guard": True, "clip_range": 2e-6, "kl_weight": 0.0},
        {"guard": True, "sde_kind": "cps"},
    ],
)
def test_the_clipped_loss_and_the_divergence_follow_the_protocol(world, monkeypatch, overrides):
    job, method, batch, by, paths = sampled(world, **overrides)
    c = method.config
    first = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, -0.5])
    update(job, method, batch, by, paths, first, torch.arange(6), on_policy=True)
    calls, references, guided = [], [], job.policy.guided_velocity

    def spy(z, *rest, **options):
        (calls if torch.is_grad_enabled() else references).append((z, guided(z, *rest, **options)))
        return (calls if torch.is_grad_enabled() else references)[-1][1]

    monkeypatch.setattr(job.policy, "guided_velocity", spy)
    advantages, chosen = torch.tensor([0.0, 1.5, -0.7, 0.0, 2.0, -5.0]), torch.tensor([4, 1, 5, 2])
    log = update(job, method, batch, by, paths, advantages, chosen, on_policy=False)

    sigmas, a, latents = (
        wide(job.policy.sigmas(c.sampling_steps)),
        wide(advantages[chosen]),
        wide(paths.latents[chosen]),
    )
    losses, divergences, clipped = [], [], []
    assert len(paths.steps) == (c.window or c.sampling_steps - 1)
    for k, i in enumerate(paths.steps):
        z, velocity = calls[k]
        np.testing.assert_array_equal(wide(z), latents[:, k])
        mean, std, s = moments(wide(z), wide(velocity), sigmas, i, c)
        after, old, weight = latents[:, k + 1], wide(paths.memory[chosen, k]), 1.0
        if c.guard:
            ratio, weight = guarded(after, mean, old, std), 1 / (sigmas[i] - sigmas[i + 1])
        else:
            ratio = np.exp(log_prob(after, mean, std, c.sde_kind) - old)
        loss = np.maximum(-a * ratio, -a * np.clip(ratio, 1 - c.clip_range, 1 + c.clip_range)).mean()
        divergence = 0.0
        if c.kl_weight:
            z_again, frozen = (of_all.unflatten(0, (4, -1))[:, k] for of_all in references[0])  # all steps in one call
            assert torch.equal(z, z_again) and not frozen.requires_grad
            divergence = ((mean - moments(wide(z), wide(frozen), sigmas, i, c)[0]) ** 2).mean() / (2 * s**2)
            assert divergence > 0
        losses.append(weight * loss + c.kl_weight * divergence)
        divergences.append(divergence)
        clipped.append((np.abs(ratio - 1) > c.clip_range).mean())
    assert len(calls) == len(paths.steps) and len(references) == (1 if c.kl_weight else 0)
    assert np.mean(clipped) > 0
    assert log["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert log.get("kl", 0.0) == pytest.approx(np.mean(divergences), rel=1e-3)
    assert log["clipped"] == pytest.approx(np.mean(clipped))


def test_the_guards_gradient_is_the_noise_times_the_means_over_minus_dt(world, monkeypatch):
    """On policy: d/d mean of -A ratio / -dt is -A eps / (dimensions -dt), with no std in it."""
    job, method, batch, by, paths = sampled(world, guard=True, kl_weight=0.0)
    advantages, sigmas, gradients = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, -0.5]), np.array(by.sigmas), []

    def spy(z, velocity, i):
        mean, std = Transitions.moments(by, z, velocity, i)
        mean.register_hook(lambda gradient: gradients.append((i, gradient, mean, std)))
        return mean, std

    seen = Transitions(by.kind, by.noise_level, by.guarded, by.sigmas, by.guidance_scale)
    object.__setattr__(seen, "moments", spy)
    update(job, method, batch, seen, paths, advantages, torch.arange(6), on_policy=True)
    assert [i for i, *_ in gradients] == [0, 1]
    for i, gradient, mean, std in gradients:
        eps = (wide(paths.latents[:, i + 1]) - wide(mean)) / float(std)
        expected = -wide(advantages).reshape(6, 1, 1, 1) * eps / 64 / (sigmas[i] - sigmas[i + 1])
        np.testing.assert_allclose(wide(gradient), expected, rtol=1e-4, atol=1e-6)


def test_the_divergence_is_to_the_pretrained_model(world):
    job, method, batch, by, paths = sampled(world, updates=1)
    first = update(job, method, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=True)
    second = update(job, method, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=True)
    assert first["kl"] < 1e-6 * second["kl"]  # a LoRA adapter starts as nothing, but for rounding


def test_the_unconditional_branch_is_detached_unless_asked(world, monkeypatch):
    """Detached, the gradient is that of guidance with the sampled unconditional velocity as a constant."""
    grads, known = {}, None
    for detached in (True, False):
        job, method, batch, by, paths = sampled(world, detach_unconditional=detached)
        assert (paths.unconditional is not None) == detached
        known = paths.unconditional if detached else known  # of the same seed
        monkeypatch.setattr(job, "update", lambda: None)
        method.update(job, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=True)
        grads[detached] = torch.cat([p.grad.flatten().double() for p in job.parameters])
    job, method, batch, by, paths = sampled(world, detach_unconditional=False)
    frozen = iter(known.unbind(1))
    monkeypatch.setattr(job, "update", lambda: None)
    monkeypatch.setattr(
        job.policy,
        "guided_velocity",
        lambda z, sigma, text, w, **_: flow.guide(next(frozen), job.policy.velocity(z, sigma, text), w),
    )
    method.config = method.config.model_copy(update={"kl_weight": 0.0})
    method.update(job, batch, by, paths, torch.ones(6), torch.arange(6), on_policy=True)
    expected = torch.cat([p.grad.flatten().double() for p in job.parameters])
    assert (grads[True] - expected).norm() < 1e-4 * expected.norm()
    assert (grads[False] - expected).norm() > 0.1 * expected.norm()


# -- rewards and groups ------------------------------------------------------------------------------------------------


def test_the_reward_sees_every_image_with_the_prompt_it_was_drawn_for(world, monkeypatch):
    job, method = prepare(world, "flow_grpo")
    rewards, batches = record(job, "reward_later", monkeypatch), record(job, "prompts", monkeypatch)
    decodes = record(job, "decode", monkeypatch)
    advance(job, method, 1)
    (images, prompts), _ = rewards[0]
    asked = batches[0][1]
    assert prompts == asked.prompts == (asked.prompts[0],) * 3 + (asked.prompts[3],) * 3
    condition = {text: world.data.text.prompt_embeds[i] for i, text in enumerate(fakes.CAPTIONS)}
    assert all(torch.equal(asked.text.prompt_embeds[i], condition[p.text]) for i, p in enumerate(prompts))
    assert images is decodes[0][1]


def rewarded(world, scores: list[float], **overrides):
    """A job whose images get these scores, and its method."""

    class Given(Brightness):
        def score(self, images, prompts):
            return scores[: len(images)]

    job, method = world.job(reward=Given()), small("flow_grpo", **overrides)
    method.setup(job)
    return job, method


def test_updates_share_the_samples_that_have_an_advantage(world, monkeypatch):
    job, method = rewarded(world, [0.5, 0.5, 0.5, 0.1, 0.2, 0.9])  # the first prompt's group has nothing to teach
    updates = record(method, "update", monkeypatch)
    (log,) = advance(job, method, 1)
    of = [arguments[5].tolist() for arguments, _ in updates]
    assert sorted(of[0] + of[1]) == [3, 4, 5] and len(of) == 2 and log["kept"] == 3.0
    advantages = updates[0][0][4]
    rewards = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.9]])
    expected = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std() + 1e-4)
    np.testing.assert_allclose(wide(advantages), expected.flatten(), rtol=1e-5)


@pytest.mark.parametrize("variant", ["default", "fast", "guard"])
def test_constant_rewards_teach_nothing_and_break_nothing(world, variant):
    job, method = rewarded(world, [0.3] * 6, **VARIANTS[variant])
    before = weights(job)
    logs = advance(job, method, 2)
    assert same(before, weights(job)) and same(before, fakes.learner(job).ema)
    assert job.meter.updates == 0 and job.meter.images == job.meter.reward_calls == 12
    assert all(log["kept"] == 0 and all(map(math.isfinite, log.values())) for log in logs)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("group_size", 0, "group_size"),
        ("group_size", 1, "group_size"),  # nothing to be better than
        ("window", 6, "window"),
        ("sde_kind", "ode", "sde_kind"),
        ("betas", [1.5, 0.9], "betas.0"),
        ("betas", [0.9, 1.0], "betas.1"),
    ],
)
def test_impossible_settings_end_in_one_line(key, value, said):
    with pytest.raises(BenchError, match=f"^FlowGRPOConfig: {said}: ") as caught:
        method_config(flow_grpo.FlowGRPO, "embedded", {key: value})
    assert "\n" not in str(caught.value)


def test_steps_of_cps_take_no_more_noise_than_all():
    """At level 2 the sine is 0 again: no noise, and nothing would be learnt."""
    with pytest.raises(BenchError, match="a step of cps takes a noise level of at most 1, not 2") as caught:
        method_config(flow_grpo.FlowGRPO, "embedded", {"sde_kind": "cps", "noise_level": 2.0})
    assert "\n" not in str(caught.value)
    assert method_config(flow_grpo.FlowGRPO, "embedded", {"sde_kind": "cps", "noise_level": 1.0}).noise_level == 1
    assert method_config(flow_grpo.FlowGRPO, "embedded", {"noise_level": 2.0}).noise_level == 2


# -- bookkeeping -------------------------------------------------------------------------------------------------------


@every_variant
def test_micro_batches_give_one_gradient(world, variant):
    def gradients(micro_batch: int | None) -> list[torch.Tensor]:
        """Of both updates, without taking them."""
        job, found = world.job(reward=Places(), micro_batch=micro_batch, evaluation_batch=1), []
        method = small("flow_grpo", clip_range=0.9, **VARIANTS[variant])  # a clipped objective jumps
        method.setup(job)
        generator = torch.Generator().manual_seed(0)
        fakes.learner(job).fill([p + 0.02 * torch.randn(p.shape, generator=generator) for p in job.parameters])

        def look() -> None:
            found.append(torch.cat([p.grad.flatten().double() for p in job.parameters]) / fakes.learner(job).items)
            fakes.learner(job).optimizer.zero_grad()
            fakes.learner(job).items = 0.0

        job.update = look
        advance(job, method, 1)
        return found

    for one, several in zip(gradients(None), gradients(4), strict=True):
        assert (one - several).norm() < 1e-3 * one.norm()  # 5e-5 by rounding, where terms nearly cancel


def test_the_average_warms_up(world, monkeypatch):
    """decay = min(.9, (1 + n) / (10 + n)) after the n-th update, every ``ema_every`` updates."""
    job, method = prepare(world, "flow_grpo", updates=1, ema_every=2, ema_decay=0.4)
    expected = [wide(w) for w in weights(job)]
    for n in range(1, 9):
        advance(job, method, 1)
        if n % 2 == 0:
            decay = min(0.4, (1 + n) / (10 + n))
            expected = [decay * e + (1 - decay) * wide(w) for e, w in zip(expected, weights(job), strict=True)]
    for value, held in zip(expected, fakes.learner(job).ema, strict=True):
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


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_window_costs_its_steps_and_one_way_to_it_per_prompt(world, monkeypatch, first, micro_batch):
    job, method = (
        world.job(micro_batch=micro_batch, evaluation_batch=1),
        small("flow_grpo", **FAST | {"sampling_steps": 6, "window": 2}),
    )
    method.setup(job)
    monkeypatch.setattr(method, "trained_steps", lambda job: range(first, first + 2))
    (log,) = advance(job, method, 1)
    prompts, samples, trained = 2, 6, 2
    assert log["kept"] == job.meter.images == samples
    assert job.meter.backwards == samples * trained
    rollout, policy, unconditional = 2 * (prompts * first + samples * (6 - first)), samples * trained, 3 * trained
    assert job.meter.forwards == rollout + policy + unconditional
