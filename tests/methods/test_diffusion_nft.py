"""DiffusionNFT computes what docs/protocol.md says, redone in float64."""

from __future__ import annotations

import fakes
import numpy as np
import pytest
import torch
from fakes import Brightness, Places, advance, same, small, weights
from observed import column, prepare, record, wide

from methods import diffusion_nft
from methods.diffusion_nft import goodness, policy_loss


class Constant(Brightness):
    """Nothing is better than anything else."""

    def score(self, images, prompts):
        return [0.3] * len(images)


def loss(z, sigma, clean, velocity, old, good, beta: float) -> np.ndarray:
    """The policy loss of protocol.md, without its factor 5: (N,)."""
    terms = []
    for v in (beta * velocity + (1 - beta) * old, (1 + beta) * old - beta * velocity):
        error = z - sigma * v - clean
        terms.append((error**2).mean((1, 2, 3)) / np.maximum(np.abs(error).mean((1, 2, 3)), 1e-5))
    return (good * terms[0] + (1 - good) * terms[1]) / beta


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(world, **overrides):
    """A job whose adapter, and the old copy of it, do something, and differ."""
    job, method = prepare(world, "diffusion_nft", **overrides)
    fakes.learner(job).fill([p + 0.1 * draw(i, *p.shape) for i, p in enumerate(job.parameters)])
    method.old = [p + 0.1 * draw(-i - 1, *p.shape) for i, p in enumerate(weights(job))]
    return job, method


# -- rewards -----------------------------------------------------------------------------------------------------------


def test_goodness_by_hand():
    """Group means 2 and 6, deviations -1 0 1 and -3 0 3, variance of all (9+4+1+1+4+25)/6; then A / 10 + .5."""
    good = goodness(torch.tensor([[1.0, 2.0, 3.0], [3.0, 6.0, 9.0]]), 5.0)
    advantages = np.array([[-1, 0, 1], [-3, 0, 3]]) / (np.sqrt(44 / 6) + 1e-4)
    np.testing.assert_allclose(wide(good), advantages / 10 + 0.5, rtol=1e-6)


def test_extreme_rewards_are_certain_and_constant_groups_undecided():
    rewards = torch.zeros(3, 101)
    rewards[0, 0], rewards[1, 0] = 100.0, -100.0
    good = goodness(rewards, 5.0)
    assert good[0, 0] == 1.0 and good[1, 0] == 0.0 and (good[2] == 0.5).all()
    assert (goodness(torch.full((4, 7), 22.34), 5.0) == 0.5).all()
    assert goodness(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), 0.5).tolist() == [[0.0, 1.0], [0.0, 1.0]]


# -- loss --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.1, 0.7])
def test_the_policy_loss_and_its_gradient_follow_the_protocol(beta):
    z, clean, velocity, old = (draw(i, 5, 2, 3, 4).double() for i in range(4))
    sigma, good = torch.tensor([1.0, 0.9, 0.5, 0.2, 0.05]).double(), torch.tensor([0.0, 0.3, 0.5, 0.8, 1.0]).double()
    velocity.requires_grad_()
    actual = policy_loss(z, sigma, clean, velocity, old, good, beta)
    s = column(wide(sigma))
    expected = loss(wide(z), s, wide(clean), wide(velocity), wide(old), wide(good), beta)
    np.testing.assert_allclose(wide(actual), expected, rtol=1e-12)
    gradient = np.zeros(velocity.shape)  # the denominators are constants
    for sign, share in ((1, wide(good)), (-1, 1 - wide(good))):
        v = (1 - sign * beta) * wide(old) + sign * beta * wide(velocity)
        error = wide(z) - s * v - wide(clean)
        size = column(np.abs(error).mean((1, 2, 3)))
        gradient += column(share) * 2 * error * -s * sign / size / error[0].size
    (found,) = torch.autograd.grad(actual.sum(), velocity)
    np.testing.assert_allclose(wide(found), gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_where_new_is_old_and_nothing_is_better_there_is_no_gradient(beta):
    z, clean, old = (draw(i, 4, 2, 3, 4).double() for i in range(3))
    for good, still in ((0.5, True), (0.6, False)):
        velocity = old.clone().requires_grad_()
        value = policy_loss(z, torch.full((4,), 0.7).double(), clean, velocity, old, torch.full((4,), good), beta)
        (gradient,) = torch.autograd.grad(value.sum(), velocity)
        assert (gradient.abs().max() < 1e-15) == still


def test_a_perfect_endpoint_does_not_divide_by_zero():
    z, clean = draw(0, 2, 2, 3, 4), draw(1, 2, 2, 3, 4)
    velocity = ((z - clean) / 0.5).requires_grad_()
    value = policy_loss(z, torch.tensor([0.5, 0.5]), clean, velocity, velocity.detach(), torch.ones(2), 1.0).sum()
    assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value, velocity)[0]).all()


@pytest.mark.parametrize("overrides", [{}, {"beta": 0.1, "kl_weight": 0.5}, {"sampling_steps": 5}])
def test_a_step_follows_the_protocol(world, monkeypatch, overrides):
    job, method = awake(world, **overrides)
    c, old, new = method.config, [w.clone() for w in method.old], weights(job)
    rollouts = record(diffusion_nft, "sample_and_score", monkeypatch)
    noises, placed, calls = record(job, "noise", monkeypatch), [], []
    velocity = job.policy.velocity

    def spy(z, sigma, text):
        result = velocity(z, sigma, text)
        calls.append((z, sigma, result))
        placed.append(weights(job))
        return result

    monkeypatch.setattr(job.policy, "velocity", spy)
    (log,) = advance(job, method, 1)

    steps, (clean, rewards) = c.sampling_steps, rollouts[0][1]
    trained = steps - 1
    rolled, olds, (of_all, *learnt) = calls[:steps], calls[steps : steps + trained], calls[steps + trained :]
    frozen = [tuple(part.unflatten(0, (6, trained))[:, k] for part in of_all) for k in range(trained)]  # in one call
    assert len(learnt) == trained and all(result.requires_grad for *_, result in learnt)
    assert not any(result.requires_grad for *_, result in rolled + olds + frozen)
    assert all(same(seen, old) for seen in placed[: steps + trained])  # the old adapter samples, and is compared with
    assert all(same(seen, new) for seen in placed[steps + trained :])

    sigmas, drawn = wide(job.policy.sigmas(steps))[:-1], {arguments[1]: result for arguments, result in noises}
    order = next(share.rows for (share, stream), _ in noises if stream == "noise-0")
    assert sorted(order.tolist()) == list(range(6))
    good = wide(goodness(rewards.view(2, 3), 5.0).flatten())[order]
    z0, losses, divergences = wide(clean)[order], [], []
    for k in range(trained):
        z, sigma, v = learnt[k]
        assert all(torch.equal(z, other[k][0]) and torch.equal(sigma, other[k][1]) for other in (olds, frozen))
        s = column(wide(sigma))
        np.testing.assert_allclose(wide(z), (1 - s) * z0 + s * wide(drawn[f"noise-{k}"]), rtol=1e-5, atol=1e-6)
        losses.append(loss(wide(z), s, z0, wide(v), wide(olds[k][2]), good, c.beta).mean())
        divergences.append(((wide(v) - wide(frozen[k][2])) ** 2).mean())
    levels = np.stack([wide(sigma) for _, sigma, _ in learnt], 1)
    assert all(len(set(row)) == trained and set(row) <= set(sigmas) for row in levels)  # all but one level of each
    assert len({tuple(row) for row in levels}) > 1
    assert log["policy_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert log["kl"] == pytest.approx(np.mean(divergences), rel=1e-5)
    assert log["loss"] == pytest.approx(5 * np.mean(losses) + c.kl_weight * np.mean(divergences), rel=1e-5)
    assert log["reward"] == pytest.approx(wide(rewards).mean())


# -- the lagging copy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"updates": 2}, {"old_flat": 2, "old_rate": 0.3, "old_limit": 0.7}])
def test_the_old_adapter_follows_and_lags_more_and_more(world, settings):
    job, method = prepare(world, "diffusion_nft", **{"old_rate": 0.1, "old_limit": 0.25} | settings)
    c, expected = method.config, [wide(w) for w in weights(job)]
    for epoch in range(1, 6):
        advance(job, method, 1)
        updates = epoch * c.updates
        decay = 0.0 if updates < c.old_flat else min((updates - c.old_flat) * c.old_rate, c.old_limit)
        expected = [decay * e + (1 - decay) * wide(w) for e, w in zip(expected, weights(job), strict=True)]
        for value, held in zip(expected, method.old, strict=True):
            np.testing.assert_allclose(wide(held), value, rtol=1e-5, atol=1e-7)
    assert job.meter.updates == updates


def test_the_copy_survives_a_resume_and_shares_nothing_with_the_state(world):
    job, method = awake(world)
    advance(job, method, 2)
    state, again = method.state_dict(), prepare(world, "diffusion_nft")[1]
    again.load_state_dict(state)
    assert same(again.old, method.old) and again.taken == method.taken == 2
    kept = [w.clone() for w in again.old]
    advance(job, method, 1)
    assert same(again.old, kept) and not same(method.old, kept)


def test_a_step_leaves_no_other_weights_in_place(world, monkeypatch):
    job, method = awake(world)
    before = weights(job)
    monkeypatch.setattr(job, "update", lambda: None)
    method.step(job)
    assert same(weights(job), before)


# -- the epoch ---------------------------------------------------------------------------------------------------------


def test_where_nothing_is_better_nothing_is_learnt_but_for_rounding(world, monkeypatch):
    """At new = old and r = .5 the two policies cancel; the distance to the pretrained velocity is zero at first."""
    norms = {}
    for reward in (Constant(), Brightness()):
        job, method = world.job(reward=reward), small("diffusion_nft", kl_weight=0.0)
        method.setup(job)
        fakes.learner(job).fill([p + 0.1 * draw(i, *p.shape) for i, p in enumerate(job.parameters)])
        method.old = weights(job)
        norms[type(reward)] = advance(job, method, 1)[0]["grad_norm"]
    assert norms[Constant] < 1e-5 * norms[Brightness]


@pytest.mark.parametrize("updates", [1, 2])
def test_every_image_trains_once_whatever_its_reward(world, monkeypatch, updates):
    job, method = prepare(world, "diffusion_nft", updates=updates)
    calls = record(method, "update", monkeypatch)
    advance(job, method, 1)
    rows = [arguments[4] for arguments, _ in calls]
    assert len(rows) == updates and sorted(torch.cat(rows).tolist()) == list(range(6))


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_an_epoch_is_charged_for_its_rollout_and_three_velocities_a_level(world, micro_batch):
    job = world.job(micro_batch=micro_batch, evaluation_batch=1)
    method = small("diffusion_nft")
    method.setup(job)
    advance(job, method, 1)
    samples, steps, trained = 6, 3, 2
    assert job.meter.images == job.meter.reward_calls == samples
    assert job.meter.backwards == samples * trained
    assert job.meter.forwards == samples * (steps + 3 * trained)  # no guidance; old, pretrained and new velocity


def test_micro_batches_give_one_gradient(world):
    def gradient(micro_batch: int | None) -> torch.Tensor:
        job = world.job(reward=Places(), micro_batch=micro_batch, evaluation_batch=1)
        method = small("diffusion_nft", kl_weight=0.1)
        method.setup(job)
        fakes.learner(job).fill([p + 0.1 * draw(i, *p.shape) for i, p in enumerate(job.parameters)])
        job.update = lambda: None
        method.step(job)
        return torch.cat([p.grad.flatten().double() for p in job.parameters]) / fakes.learner(job).items

    one, several = gradient(None), gradient(4)
    assert (one - several).norm() < 1e-4 * one.norm()


def test_the_pretrained_weights_stay_as_they_are(world):
    job, method = prepare(world, "diffusion_nft")
    base = [p for name, p in job.policy.transformer.named_parameters() if "lora_" not in name]
    before = [p.detach().clone() for p in base]
    advance(job, method, 2)
    assert same(base, before)
