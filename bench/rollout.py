"""Rollouts that methods share: sample a batch of prompts, decode, and score while the next ones are sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.batches import PromptBatch
from bench.errors import JobFailure

if TYPE_CHECKING:
    from bench.job import Job

Draw = Callable[[PromptBatch], tuple[Tensor, tuple[Tensor, ...]]]
"""Samples a micro-batch: its clean latents (n, C, H, W), and tensors (n, …) to keep."""


def draw_groups(job: Job, prompts: int, size: int) -> PromptBatch:
    """The step's next prompts, each ``size`` times in a row: groups whose samples are held against each other.

    Raises:
        JobFailure: a group of one, before anything is sampled.
    """
    if size < 2:
        raise JobFailure(f"a group of {size} has nothing to compare with: group_size must be at least 2")
    return job.prompts(prompts, repeat=size)


@torch.no_grad()
def roll_out(job: Job, batch: PromptBatch, draw: Draw) -> tuple[tuple[Tensor, ...], Tensor]:
    """Samples of a batch of prompts, and their rewards. Charged: what ``draw`` does, decoding and scoring.

    Returns:
        What ``draw`` keeps of this process's share, each (n, …), and the rewards of all rows in order, (total,), the
        same on every process.
    """
    drawn, scores = [], []
    for part in job.parts(batch):
        share = batch[part]
        latents, tensors = draw(share)
        drawn.append(tensors)
        scores.append(job.reward_later(job.decode(latents), share.prompts))
    rewards = torch.cat([wait() for wait in scores])[: len(batch)]  # padding comes last
    mine = tuple(torch.cat(kind)[: len(batch)] for kind in zip(*drawn, strict=True))
    return mine, job.gather(rewards, batch)


def sample_and_score(job: Job, batch: PromptBatch, *, steps: int, guidance_scale: float) -> tuple[Tensor, Tensor]:
    """Samples of the ODE from the stream ``start``, and their rewards.

    Returns:
        Clean latents of this process's share (n, C, H, W), and the rewards of all rows in order (total,).
    """

    def draw(share: PromptBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
        noise = job.noise(share, "start")
        latents = job.sample(noise, share.text, steps=steps, guidance_scale=guidance_scale)
        return latents, (latents,)

    (latents,), rewards = roll_out(job, batch, draw)
    return latents, rewards


def one_of_each(batch: PromptBatch, repeat: int) -> PromptBatch:
    """A batch's prompts with one row each instead of ``repeat``, numbered by themselves: ``of`` finds a row's again."""
    shares = tuple((first // repeat, end // repeat) for first, end in batch.shares)
    of, rows = batch.of[::repeat], batch.rows[::repeat] // repeat
    return PromptBatch(batch.distinct, of, batch.prompts[::repeat], rows, shares, batch.latent_shape)
