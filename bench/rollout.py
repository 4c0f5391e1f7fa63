"""Rollouts that methods share: sample prompts and score the samples; velocities at many states. Nothing has a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.batches import PromptBatch
from bench.errors import JobFailure

if TYPE_CHECKING:
    from bench.job import Job

Draw = Callable[[PromptBatch], tuple[Tensor, tuple[Tensor, ...]]]
"""Samples a micro-batch: its clean latents (n, C, H, W), and tensors (n, …) to keep."""
Velocity = Callable[[Tensor, Tensor, TextCondition], Tensor]
"""(states (M, C, H, W), levels (M,), conditions (M)) → velocities like the states."""


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

    Raises:
        JobFailure: a sample is NaN or infinite. Its picture would be black, and its reward a number like any other.
    """
    drawn, scores, finite = [], [], []
    for part in job.parts(batch):
        share = batch[part]
        latents, tensors = draw(share)
        drawn.append(tensors)
        finite.append(torch.isfinite(latents).flatten(1).all(1))
        scores.append(job.reward_later(job.decode(latents), share.prompts))
    known, rewards = torch.cat(finite), torch.cat([wait() for wait in scores])
    rewards = job.gather(rewards.masked_fill(~known, math.nan)[: len(batch)], batch)  # padding comes last
    if not torch.isfinite(rewards).all():  # which every process finds alike
        raise JobFailure("the model's samples are NaN or infinite: it has diverged; a lower learning rate may help")
    mine = tuple(torch.cat(kind)[: len(batch)] for kind in zip(*drawn, strict=True))
    return mine, rewards


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


@torch.no_grad()
def velocities(job: Job, velocity: Velocity, states: Tensor, levels: Tensor, text: TextCondition) -> Tensor:
    """Velocities (n, K, C, H, W) at K states of each of a micro-batch's n rows.

    A GPU that takes one state of a few rows at a time waits for its host. Without a graph there is room for more:
    forwards are as large as an evaluation's.

    Args:
        velocity: such as ``job.policy.velocity``; no weight may change while it is called.
        states: (n, K, C, H, W).
        levels: (K,), or (n, K) where rows have their own.
        text: of the rows (n).
    """
    rows, count = states.shape[:2]
    flat, each = states.flatten(0, 1), levels.expand(rows, count).flatten()
    with job.policy.at_rest():
        pieces = job.pieces(rows * count, per_row=count)
        parts = [velocity(flat[piece], each[piece], text[piece // count]) for piece in pieces]
    of_states: Tensor = torch.cat(parts)[: rows * count].unflatten(0, (rows, count))  # padding comes last
    return of_states
