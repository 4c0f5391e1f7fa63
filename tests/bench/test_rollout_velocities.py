"""Velocities at many states are those of one state after the other, in fewer forwards; casts are made once."""

from __future__ import annotations

import fakes
import pytest
import torch
from dispatched import Dispatched
from fakes import small

from bench.backbone.condition import TextCondition
from bench.machine.engine import Engine
from bench.rollout import velocities


@pytest.mark.parametrize(
    ("micro_batch", "evaluation_batch", "sizes"), [(None, 1, [12]), (4, 5, [4, 4, 4]), (4, 12, [12])]
)
def test_all_states_of_a_micro_batch_go_through_the_model_together(world, micro_batch, evaluation_batch, sizes):
    job = world.job(micro_batch=micro_batch, evaluation_batch=evaluation_batch)
    small("sft").setup(job)
    draw = torch.Generator().manual_seed(0)
    states, levels = torch.randn(4, 3, 4, 4, 4, generator=draw), torch.tensor([0.9, 0.5, 0.2])
    text, seen = world.text(4), []

    def velocity(z: torch.Tensor, sigma: torch.Tensor, own: TextCondition) -> torch.Tensor:
        seen.append(len(z))
        return job.policy.velocity(z, sigma, own)

    before = job.meter.forwards
    for _ in job.parts(job.prompts(4)):  # one micro-batch, of all four
        found = velocities(job, velocity, states, levels, text)
    assert seen == sizes and job.meter.forwards == before + 12 and not found.requires_grad
    for k, level in enumerate(levels):
        with torch.no_grad():
            expected = job.policy.velocity(states[:, k], float(level), text)
        torch.testing.assert_close(found[:, k], expected, rtol=1e-4, atol=1e-5)
    each = torch.stack([levels, levels.flip(0), levels, levels.flip(0)])
    again = velocities(job, velocity, states, each, text)
    torch.testing.assert_close(again[0], found[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(again[1], found[1])


def test_a_sampler_casts_each_weight_once(tiny_pipeline):
    half = fakes.World(tiny_pipeline, Engine(dtype=torch.bfloat16))
    job = half.job()
    small("sft").setup(job)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with Dispatched() as dispatched:
        sampled = job.sample(noise, half.text(2), steps=3, guidance_scale=2.0)
    casts = [
        id(given[0])
        for name, given in dispatched.calls
        if name == "aten::_to_copy" and isinstance(given[0], torch.nn.Parameter)
    ]
    assert casts and len(casts) == len(set(casts))
    for number, parameter in enumerate(job.parameters):  # a weight that changes afterwards is cast anew
        if number == 0:
            parameter.data.mul_(2.0)
    assert not torch.equal(job.sample(noise, half.text(2), steps=3, guidance_scale=2.0), sampled)


def test_a_condition_is_given_in_the_precision_that_the_transformer_takes(tiny_pipeline):
    condition = TextCondition(torch.randn(2, 3, 4), torch.randn(2, 4))
    given = condition.for_transformer(Engine(dtype=torch.bfloat16))
    assert given.prompt_embeds.dtype == torch.bfloat16 and given.pooled_prompt_embeds.dtype == torch.float32
    assert torch.equal(given.prompt_embeds, condition.prompt_embeds.bfloat16())
    assert torch.equal(condition.for_transformer(Engine()).prompt_embeds, condition.prompt_embeds)
