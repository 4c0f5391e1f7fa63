"""Rollouts: every row sampled from its own noise, decoded, scored with its own prompt, and charged."""

from __future__ import annotations

import fakes
import pytest
import torch
from fakes import Places
from observed import record

from bench.errors import JobFailure
from bench.lora import LoRAConfig
from bench.rollout import draw_groups, one_of_each, roll_out, sample_and_score


@pytest.fixture
def job(world):
    job = world.job(reward=Places())
    job.train_lora(**LoRAConfig(lora_rank=2, lora_alpha=4).lora())
    return job


def test_samples_are_the_odes_and_rewards_are_those_of_their_images(job, monkeypatch):
    batch = job.prompts(2, repeat=3)
    decodes, scored = record(job, "decode", monkeypatch), record(job, "reward_later", monkeypatch)
    latents, rewards = sample_and_score(job, batch, steps=2, guidance_scale=3.0)
    assert torch.equal(rewards, torch.arange(6.0)) and not latents.requires_grad
    assert torch.equal(decodes[0][0][0], latents)
    ((images, prompts), _), *_ = scored
    assert images is decodes[0][1] and prompts == batch.prompts
    expected = job.policy.sample(job.noise(batch, "start"), batch.text, steps=2, guidance_scale=3.0)
    assert torch.equal(latents, expected)


def test_a_group_of_one_draws_nothing(job):
    """A plugin's configuration may allow it."""
    with pytest.raises(JobFailure, match="a group of 1 has nothing to compare with: group_size must be at least 2"):
        draw_groups(job, 2, 1)
    assert len(draw_groups(job, 2, 3).prompts) == 6


def test_samples_that_are_no_numbers_end_the_job(world):
    """Their pictures would be black, and each reward the same."""
    job = world.job(reward=Places(), micro_batch=2)

    def draw(share):
        latents = job.noise(share, "start")
        return latents.where((share.rows != 4)[:, None, None, None], torch.nan), (latents,)

    with pytest.raises(JobFailure, match="the model's samples are NaN or infinite: it has diverged"):
        roll_out(job, job.prompts(2, repeat=3), draw)


def test_a_rollout_is_charged_once(job):
    sample_and_score(job, job.prompts(2, repeat=3), steps=4, guidance_scale=3.0)
    meter = job.meter
    assert (meter.forwards, meter.backwards, meter.images, meter.reward_calls) == (2 * 4 * 6, 0, 6, 6)


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_keep_rows_and_rewards_in_order(world, size):
    job = world.job(reward=Places(), micro_batch=size, evaluation_batch=1)
    batch, rows = job.prompts(2, repeat=3), []

    def draw(share):
        rows.append(share.rows.tolist())
        return job.noise(share, "start"), (share.rows, torch.stack([share.rows, -share.rows], 1))

    (first, second), rewards = roll_out(job, batch, draw)
    assert rows == [[0], [1], [2], [3], [4], [5]] if size == 1 else rows == [[0, 1, 2, 3], [4, 5]]
    assert first.tolist() == list(range(6)) and second[:, 1].tolist() == [0, -1, -2, -3, -4, -5]
    assert rewards.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_under_the_reference_the_samples_are_the_pretrained_models(job):
    batch = job.prompts(2, repeat=2)
    before, _ = sample_and_score(job, batch, steps=2, guidance_scale=1.0)
    fakes.learner(job).fill([p + 0.5 for p in job.parameters])
    with job.policy.reference():
        reference, _ = sample_and_score(job, batch, steps=2, guidance_scale=1.0)
    trained, _ = sample_and_score(job, batch, steps=2, guidance_scale=1.0)
    assert torch.equal(before, reference) and not torch.allclose(trained, reference, rtol=1e-3)


def test_one_row_of_each_prompt_is_numbered_by_itself(job):
    batch = job.prompts(3, repeat=2)
    ones = one_of_each(batch, 2)
    assert ones.prompts == batch.prompts[::2] and len({prompt.id for prompt in ones.prompts}) == 3
    assert ones.rows.tolist() == [0, 1, 2] and ones.shares == ((0, 3),)
    assert torch.equal(ones.text[batch.of].prompt_embeds, batch.text.prompt_embeds)
    assert torch.equal(torch.cat([ones[part].rows for part in job.parts(ones)]), ones.rows)
