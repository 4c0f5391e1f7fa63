"""Diffusion-DPO's loss, redone in float64, its identity at the reference, and the pairs that it makes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import advance, same, session_of, small, weights
from observed import column, prepare, record, wide

from bench import flow
from bench.experiment.config import read_experiment
from bench.experiment.recipe import recipe


def test_where_the_policy_is_the_reference_the_loss_is_log_2(world):
    job, method = prepare(world, "dpo")
    (log,) = advance(job, method, 1)
    assert log["loss"] == pytest.approx(math.log(2), abs=1e-7) and log["margin"] == 0


def test_the_loss_follows_the_formula(world, monkeypatch):
    job, method = prepare(world, "dpo", beta=30.0)
    advance(job, method, 3)  # away from the reference
    noises, calls = record(job, "noise", monkeypatch), record(job.policy, "velocity", monkeypatch)
    taken = record(job, "preference_pairs", monkeypatch)
    (log,) = advance(job, method, 1)
    assert len(taken) == 1
    (pairs, stream), z1 = noises[0]
    assert stream == "noise"
    both = np.concatenate([wide(pairs.winners), wide(pairs.losers)])
    noise = np.concatenate([wide(z1)] * 2)  # the same for both pictures of a pair, as is the level
    (z, sigma, text), reference = calls[0]
    (z_again, sigma_again, _), velocity = calls[1]
    assert torch.equal(z, z_again) and torch.equal(sigma, sigma_again) and not reference.requires_grad
    assert torch.equal(sigma[:4], sigma[4:]) and torch.equal(text.prompt_embeds[:4], text.prompt_embeds[4:])
    s = column(wide(sigma))
    np.testing.assert_allclose(wide(z), (1 - s) * both + s * noise, rtol=1e-5, atol=1e-6)
    e, e_ref = (((wide(v) - (noise - both)) ** 2).mean((1, 2, 3)) for v in (velocity, reference))
    inner = (e[:4] - e_ref[:4]) - (e[4:] - e_ref[4:])
    expected = np.log1p(np.exp(0.5 * 30.0 * inner)).mean()  # -log sigmoid(-x) = log(1 + exp(x))
    assert expected != pytest.approx(math.log(2), abs=1e-3)
    assert log["loss"] == pytest.approx(expected, rel=1e-5)
    assert log["margin"] == pytest.approx(-inner.mean(), rel=1e-3)
    assert log["accuracy"] == pytest.approx((inner < 0).mean())


def test_a_step_learns_to_prefer_the_winner(world):
    job, method = prepare(world, "dpo", beta=2000.0, lr=1e-2)
    logs = advance(job, method, 12)
    assert np.mean([log["loss"] for log in logs[-4:]]) < 0.9 * math.log(2)


def test_the_preferred_picture_comes_first(world):
    """Winners and losers as the data has them: swapping them turns the gradient of the first step round."""
    given, steps = world.data.preferences, []
    for pairs in (given.pairs, given.pairs.flip(1)):
        job, method = world.job(data=replace(world.data, preferences=replace(given, pairs=pairs))), small("dpo")
        method.setup(job)
        before = weights(job)
        advance(job, method, 1)
        steps.append([after - held for after, held in zip(weights(job), before, strict=True)])
    moved = [(a, b) for a, b in zip(*steps, strict=True) if a.abs().max() > 1e-3]
    assert moved
    for a, b in moved:  # Adam's first step is the sign of the gradient times the learning rate
        assert ((a.sign() == -b.sign()) | (a.abs() < 1e-3) | (b.abs() < 1e-3)).float().mean() > 0.95


def test_pairs_of_the_reference_are_best_and_worst_of_a_group(world, monkeypatch):
    job, method = prepare(world, "dpo", pairs_from="reference", batch_size=2, group_size=4, sampling_steps=2)
    advance(job, method, 2)
    decoded, rewards = record(job, "sample", monkeypatch), record(job, "gather", monkeypatch)
    learned = record(method, "learn", monkeypatch)
    advance(job, method, 1)
    groups, latents = rewards[0][1].view(2, 4), decoded[0][1]
    best, worst = groups.argmax(1), groups.argmin(1)
    offset = torch.tensor([0, 4])
    (_, share, winners, losers, text, _), _ = learned[0]
    assert torch.equal(winners, latents[offset + best]) and torch.equal(losers, latents[offset + worst])
    assert torch.equal(text.prompt_embeds, share.text.prompt_embeds)


def test_pairs_of_the_reference_are_drawn_without_the_adapter_and_charged(world, monkeypatch):
    free = dict(pairs_from="reference", batch_size=2, group_size=4, sampling_steps=2)
    drawn = []
    for trained in (0, 3):
        job, method = prepare(world, "dpo", **free)
        advance(job, small("dpo"), trained)  # the adapter moves
        session_of(job).ledger.step = 7  # the same noise
        spy = record(job, "sample", monkeypatch)
        session = session_of(job)
        at = session.position()
        session.go_to(at | {"cursors": at["cursors"] | {"prompts": 0}})  # the same prompts
        before = job.meter.counts()
        advance(job, method, 1)
        drawn.append(spy[0][1])
    assert torch.equal(*drawn)
    spent = {key: value - before[key] for key, value in job.meter.counts().items()}
    assert spent["images"] == spent["reward_calls"] == 8
    # 8 images x 2 steps x 2 branches, then two pictures of two pairs by the reference and by the policy
    assert spent["forwards"] == 32 + 4 + 4 and spent["backwards"] == 4


def test_groups_of_equal_rewards_prefer_nothing(world):
    class Even:
        name, flops_per_image = "even", 0.0

        def score(self, images, prompts):
            return [1.0] * len(images)

    job = world.job(reward=Even())
    method = small("dpo", pairs_from="reference", batch_size=2, group_size=3, sampling_steps=2)
    method.setup(job)
    before = weights(job)
    (log,) = advance(job, method, 1)
    assert log["gap"] == 0 and job.meter.updates == 0 and same(before, weights(job))


def test_what_it_needs_follows_from_where_its_pairs_come_from():
    offline = recipe(read_experiment(None, {"methods": ("dpo",)}), "dpo", "embedded").needs
    own = recipe(read_experiment(None, {"methods": ("dpo",)}, ("dpo.pairs_from=reference",)), "dpo", "embedded").needs
    assert offline.preference_pairs and not offline.reward and not offline.prompts
    assert own.reward and own.prompts and not own.preference_pairs


def test_the_margin_and_the_loss_by_hand():
    error, reference = torch.tensor([1.0, 4.0, 2.0, 2.0]), torch.tensor([2.0, 3.0, 1.0, 2.0])
    # pair one: winner 1 better than the reference, loser 1 worse: 2. Pair two: winner 1 worse, loser as it: -1.
    assert flow.preference_margin(error, reference).tolist() == [2.0, -1.0]
    loss = flow.preference_loss(torch.tensor([2.0, 0.0], dtype=torch.float64), 3.0)
    np.testing.assert_allclose(loss.numpy(), [math.log1p(math.exp(-3.0)), math.log(2)], rtol=1e-12)
