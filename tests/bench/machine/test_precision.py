"""A step in bfloat16 is that of float32 within stated bounds, and what has to be exact stays float32.

bfloat16 keeps 8 bits, so one rounding is up to 0.4 %. The bounds are for the tests' world of two blocks. Its weights
are random: products nearly cancel there, which makes rounding look larger than in a trained model.
"""

from __future__ import annotations

import fakes
import pytest
import torch
from fakes import Places, small

from bench import matching
from bench.machine.engine import Engine
from bench.trajectories import Transitions, sample_paths

LOSS = 0.02
"""Relative, of a first step's loss."""
CANCELS = 0.02
"""The same for a policy gradient, absolute: its terms are of size one and nearly cancel."""
ANGLE = 0.97
"""Least cosine between the gradients of the first update."""

CASES = {
    "sft": {},
    "soar": {"rollout_steps": 3},
    "input_perturbation": {},
    "mixflow": {},
    "reflexflow": {},
    "flow_grpo": {"clip_range": 0.9},
    "diffusion_nft": {},
    "dpo": {},
    "leap_align": {"prompts": 3, "reward_ceiling": None},
}


@pytest.fixture(scope="module")
def half(tiny_pipeline):
    return fakes.World(tiny_pipeline, Engine(dtype=torch.bfloat16))


def first_update(world, name: str) -> tuple[dict[str, float], torch.Tensor]:
    """What the first step logs, and the gradient of its first update. Rewards hang on no pixel."""
    reward = None if name == "leap_align" else Places()
    job, method = world.job(reward=reward, micro_batch=2), small(name, **CASES[name])
    method.setup(job)
    learner, found = fakes.learner(job), []
    average = learner.average

    def seen(items: float) -> float:
        norm = average(items)
        found.append(torch.cat([p.grad.flatten().double() for p in job.parameters if p.grad is not None]))
        return norm

    learner.average = seen
    (logs,) = fakes.advance(job, method, 1)
    return logs, found[0]


@pytest.mark.parametrize("name", CASES)
def test_a_step_in_bfloat16_is_near_that_of_float32(world, half, name):
    (fine, gradient), (coarse, other) = first_update(world, name), first_update(half, name)
    bound = {"abs": CANCELS} if name == "flow_grpo" else {"rel": LOSS}
    assert coarse["loss"] == pytest.approx(fine["loss"], **bound)
    assert coarse["grad_norm"] != fine["grad_norm"]  # it did compute in bfloat16
    assert torch.nn.functional.cosine_similarity(gradient, other, dim=0) > ANGLE


def test_the_first_ratio_is_one_in_bfloat16_too(half):
    job, method = half.job(reward=Places(), micro_batch=2), small("flow_grpo", updates=1)
    method.setup(job)
    (logs,) = fakes.advance(job, method, 1)
    assert logs["ratio"] == 1.0 and logs["clipped"] == 0.0
    assert 0 <= logs["noise"] < 0.05


def test_what_has_to_be_exact_stays_float32(half):
    job, method = half.job(reward=Places(), micro_batch=2), small("flow_grpo")
    method.setup(job)
    c = method.config
    by = Transitions(c.sde_kind, c.noise_level, c.guard, job.policy.sigmas(3).tolist(), c.guidance_scale)
    assert job.policy.sigmas(3).dtype == torch.float32
    paths, rewards = sample_paths(job, job.prompts(2, repeat=3), by, trained=range(2), keep_unconditional=True)
    kept = paths.latents, paths.memory, paths.unconditional, rewards
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    fakes.advance(job, method, 1)
    learner = fakes.learner(job)
    states = [value for state in learner.optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in (*job.parameters, *states, *learner.ema)} == {torch.float32}
    job = half.job()
    (pairs,) = job.pairs(4)
    noise, time, level = matching.draw(job, pairs)
    velocity = job.policy.velocity(pairs.latents, level, pairs.text)
    exact = pairs.latents, noise, time, level, noise - pairs.latents, velocity  # the target is the last but one
    assert {tensor.dtype for tensor in exact} == {torch.float32}
