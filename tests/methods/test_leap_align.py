"""LeapAlign's two leaps: their values are the sampler's, and their gradient is redone by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import advance, learner, session_of, small, weights
from observed import prepare, record, wide

from bench.errors import JobFailure
from bench.experiment.config import read_experiment
from bench.experiment.recipe import recipe
from bench.sampling.levels import sigmas

SETTINGS = {"prompts": 3, "sampling_steps": 5, "guidance_scale": 1.0}


def levels(steps: int) -> np.ndarray:
    """The release's: 1, 1 - 1/steps, ..., 1/steps after the shift of 3, and 0."""
    times = np.array([(steps - i) / steps for i in range(steps)])
    return np.append(3 * times / (1 + 2 * times), 0.0)


class Linear:
    """A policy whose velocity is ``a z``, so that gradients can be written down."""

    def __init__(self) -> None:
        self.a = torch.tensor(0.7, requires_grad=True)

    def sigmas(self, steps, name):
        return torch.from_numpy(sigmas(name, steps, 3.0))

    def guided_velocity(self, z, sigma, text, guidance_scale, *, detach_unconditional):
        return self.a * z


@pytest.mark.parametrize(("k", "j"), [(0, 1), (1, 3), (0, 4), (3, 4)])
@pytest.mark.parametrize("nested", [0.0, 0.3, 1.0])
def test_the_gradient_is_that_of_two_leaps(world, k, j, nested):
    job, method = prepare(world, "leap_align", **SETTINGS, nested=nested)
    share = job.prompts(3)
    noise = wide(job.noise(share, "start"))
    session_of(job).model.policy = policy = Linear()
    x0, distance = method.sample(job, share, k, j)

    s, a = levels(5), 0.7
    x = [noise]
    for i in range(5):
        x.append(x[-1] + (s[i + 1] - s[i]) * a * x[-1])
    np.testing.assert_allclose(wide(x0), x[5], rtol=1e-5)
    first = x[k] + (s[j] - s[k]) * a * x[k]
    second = x[j] - s[j] * a * x[j]
    size = [np.maximum(np.abs(leap - real).mean((1, 2, 3)), 0.1) for leap, real in ((first, x[j]), (second, x[5]))]
    np.testing.assert_allclose(wide(distance), size[0] + size[1], rtol=1e-4)

    into_j = (s[j] - s[k]) * x[k]  # d x̂_j / da
    slope = into_j - s[j] * (x[j] + a * nested * into_j)
    direction = torch.linspace(-1, 1, x0[0].numel()).reshape(x0[0].shape)
    (gradient,) = torch.autograd.grad((x0 * direction).sum(), policy.a)
    assert float(gradient) == pytest.approx(float((slope * direction.double().numpy()).sum()), rel=1e-4)


def test_what_it_rewards_is_what_the_sampler_draws(world, monkeypatch):
    job, method = prepare(world, "leap_align", prompts=3, sampling_steps=4, guidance_scale=2.0)
    share = job.prompts(3)
    calls = record(job.policy, "guided_velocity", monkeypatch)
    x0, _ = method.sample(job, share, 1, 2)
    assert [float(arguments[1]) for arguments, _ in calls] == pytest.approx([1, 0.9, 0.75, 0.5])
    plain, s = job.noise(share, "start"), levels(4)
    for i in range(4):
        velocity = job.policy.guided_velocity(plain, s[i], share.text, 2.0).detach()
        plain = plain + (s[i + 1] - s[i]) * velocity
    torch.testing.assert_close(x0.detach(), plain, rtol=1e-5, atol=1e-6)
    assert x0.requires_grad


def test_the_average_has_the_releases_constant_decay(world):
    """With a warm-up, the first update would leave 2/11 of the start, where it is .995 here."""
    job, method = prepare(world, "leap_align", **SETTINGS, lr=1e-2, reward_ceiling=None)
    expected = [wide(w) for w in weights(job)]
    for _ in range(3):
        advance(job, method, 1)
        expected = [0.995 * e + 0.005 * wide(w) for e, w in zip(expected, weights(job), strict=True)]
    for value, held in zip(expected, learner(job).ema, strict=True):
        np.testing.assert_allclose(wide(held), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ceiling", [0.55, None, 0.531])
def test_the_loss_is_the_regret_over_the_distance(world, monkeypatch, ceiling):
    job, method = prepare(world, "leap_align", **SETTINGS, reward_ceiling=ceiling)
    scores, sampled = record(job, "differentiable_reward", monkeypatch), record(method, "sample", monkeypatch)
    (log,) = advance(job, method, 1)
    reward, distance = wide(scores[0][1]), wide(sampled[0][1][1])
    regret = -reward if ceiling is None else np.maximum(ceiling - reward, 0)
    assert log["loss"] == pytest.approx((regret / distance).mean(), abs=1e-6)
    assert log["reward"] == pytest.approx(reward.mean(), rel=1e-6)


@pytest.mark.parametrize(("detach", "backwards"), [(False, 4), (True, 2)])
def test_two_steps_are_charged_with_their_backward(world, detach, backwards):
    job, method = prepare(
        world, "leap_align", prompts=3, sampling_steps=4, guidance_scale=2.0, detach_unconditional=detach
    )
    advance(job, method, 1)
    assert job.meter.forwards == 3 * 4 * 2 and job.meter.backwards == 3 * backwards
    assert job.meter.images == job.meter.reward_calls == 3


def test_the_ceiling_is_taken_away_by_a_word_that_toml_can_write():
    config = read_experiment(None, {"methods": ("leap_align",)}, ("leap_align.reward_ceiling=none",))
    (stage,) = recipe(config, "leap_align", "full").stages
    assert stage.config.reward_ceiling is None and stage.method.Config().reward_ceiling == 0.55


def test_it_ascends_its_reward(world):
    job, method = prepare(world, "leap_align", prompts=4, sampling_steps=4, reward_ceiling=None, lr=3e-3)
    logs = advance(job, method, 15)
    assert np.mean([log["reward"] for log in logs[-3:]]) > np.mean([log["reward"] for log in logs[:3]]) + 0.01


def test_a_reward_above_the_ceiling_from_the_start_ends_the_job(world):
    """Aesthetic scores are 5 to 6, and the default ceiling is HPSv2.1's: a budget would be spent on nothing."""
    job, method = prepare(world, "leap_align", **SETTINGS, reward_ceiling=0.0)
    with pytest.raises(JobFailure, match=r"no reward is under reward_ceiling 0 \(the least is 0\.\d+\)"):
        method.step(job)
    job, method = prepare(world, "leap_align", **SETTINGS, reward_ceiling=None)
    method.step(job)
    assert job.meter.updates == 1


def test_the_ceiling_is_held_against_the_first_rewards_of_a_later_stage_too(world, tmp_path):
    job, earlier = prepare(world, "sft")
    advance(job, earlier, 1)
    session = session_of(job)
    session.model.save(tmp_path / "from", merge=True)
    session.model.restart(tmp_path / "from")
    method = small("leap_align", **SETTINGS, reward_ceiling=0.0)
    method.setup(job)
    with pytest.raises(JobFailure, match="no reward is under reward_ceiling 0"):
        method.step(job)
