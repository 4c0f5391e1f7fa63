"""DiffusionNFT (Zheng et al. 2025): learn from rewards on the forward process, without likelihoods or guidance.

Each iteration samples groups of images by the ODE with a lagging copy of the adapter. Rewards become probabilities of
being good; two implicit policies, one towards the new velocity and one away from it, are fitted to the noised images in
that proportion. Formulas in ``docs/protocol.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench import flow
from bench.lora import LoRAConfig
from bench.machine.transfer import beside, sent
from bench.method import Needs, PostTrainingMethod, Traits
from bench.rollout import draw_groups, sample_and_score, velocities

if TYPE_CHECKING:
    from bench.batches import PromptBatch
    from bench.job import Job


class DiffusionNFTConfig(LoRAConfig):
    """Defaults are the released ones for SD3.5-Medium (NVlabs/DiffusionNFT @ 24af555, ``config/nft.py``).

    The release samples with a second-order multistep solver (``dpm2``) in as many steps; here it is the Euler steps of
    every other rollout and evaluation.
    """

    prompts: int = Field(48, gt=0, description="prompts per epoch")
    group_size: int = Field(24, gt=1, description="images per prompt")
    updates: int = Field(1, gt=0, description="optimizer updates per epoch; 2 for OCR")
    sampling_steps: int = Field(10, gt=1, description="T of the rollout; an image trains at all but one of its levels")
    guidance_scale: float = Field(1.0, ge=1, description="of the rollout; training has no guidance")
    beta: float = Field(1.0, gt=0, description="step of the implicit policies; .1 for OCR and several rewards")
    advantage_clip: float = Field(5.0, gt=0, description="advantages of ± this are certainly good or bad")
    kl_weight: float = Field(1e-4, ge=0, description="of the squared distance to the pretrained velocity")
    old_rate: float = Field(1e-3, ge=0, description="the old adapter's decay grows by this per update; .0075 for OCR")
    old_limit: float = Field(0.5, ge=0, lt=1, description="and no further than this; .999 for OCR")
    old_flat: int = Field(0, ge=0, description="updates before it starts to grow; 75 for OCR")
    ema_decay: float = Field(0.9, ge=0, lt=1, description="EMA weights are evaluated")


def goodness(rewards: Tensor, clip: float) -> Tensor:
    """Probabilities of being good, ``clip(A / (2 clip) + .5, 0, 1)``: like ``rewards`` (prompts, group)."""
    return (flow.group_advantages(rewards, clip=clip) / (2 * clip) + 0.5).clamp(0, 1)


def policy_loss(
    z: Tensor, sigma: Tensor, clean: Tensor, velocity: Tensor, old: Tensor, good: Tensor, beta: float
) -> Tensor:
    """``(r L+ + (1 - r) L-) / beta`` per sample: (N,).

    ``v± = (1 ∓ beta) v_old ± beta v``, ``x± = z - sigma v±``, ``L± = mean (x± - x0)² / mean|x± - x0|``, where the
    divisor is a constant of at least 1e-5.
    """

    def distance(velocity: Tensor) -> Tensor:
        error = flow.endpoint(z, velocity, sigma) - clean
        return error.pow(2).flatten(1).mean(1) / error.detach().abs().flatten(1).mean(1).clamp_min(1e-5)

    towards, away = (1 - beta) * old + beta * velocity, (1 + beta) * old - beta * velocity
    return (good * distance(towards) + (1 - good) * distance(away)) / beta


class DiffusionNFT(PostTrainingMethod):
    """DiffusionNFT: reward-weighted contrast of velocities on the forward process (LoRA)."""

    Config = DiffusionNFTConfig
    embedded: ClassVar = {"prompts": 4, "group_size": 8, "sampling_steps": 6, "lr": 2e-4}
    needs = Needs(prompts=True, reward=True)
    traits = Traits(
        training_signal="Reward function",
        on_policy="nearly (lagging copy)",
        signal_density="Dense, from a terminal reward",
        credit_assignment="not needed",
        reward_hacking="possible",
        resolves_model_bias="partial",
        trains="LoRA",
        paper="arXiv 2509.16117",
    )

    def setup(self, job: Job) -> None:
        job.train_lora(**self.config.lora())
        self.old = [p.detach().clone() for p in job.parameters]
        self.taken = 0  # updates

    def step(self, job: Job) -> None:
        c = self.config
        batch = draw_groups(job, c.prompts, c.group_size)
        with job.swapped(self.old):
            clean, rewards = sample_and_score(job, batch, steps=c.sampling_steps, guidance_scale=c.guidance_scale)
        good = goodness(rewards.view(c.prompts, c.group_size), c.advantage_clip).flatten()
        job.log("reward", rewards.mean())
        job.log("reward_std", rewards.std())
        order = torch.randperm(len(good), generator=job.rng("order"))
        for rows in order.tensor_split(min(c.updates, len(order))):
            self.update(job, batch, clean, good[beside(batch.rows, good)], rows)
        decay = min(max(self.taken - c.old_flat, 0) * c.old_rate, c.old_limit)
        flow.ema_update(self.old, job.parameters, decay)

    def update(self, job: Job, batch: PromptBatch, clean: Tensor, good: Tensor, rows: Tensor) -> None:
        """One optimizer update on the samples in ``rows``; ``clean`` and ``good`` are this process's."""
        c, sigmas = self.config, sent(job.policy.sigmas(self.config.sampling_steps), job.device)
        for part in job.parts(batch, rows):
            share, on = batch[part], beside(part, clean)
            z0, chance = clean[on], good[on]
            order = job.uniform(share, "levels", c.sampling_steps).argsort(1)  # of every image, its own
            levels, text = sigmas[order[:, : c.sampling_steps - 1]], share.text
            states = torch.stack(
                [flow.interpolate(z0, job.noise(share, f"noise-{k}"), level) for k, level in enumerate(levels.T)], 1
            )
            # Before there is a graph, since the parameters change places. The old policy's forwards have the shape of
            # those that train, so that new and old are equal to the bit where their weights are.
            with job.swapped(self.old), job.policy.at_rest():
                old = [job.policy.velocity(z, level, text) for z, level in zip(states.unbind(1), levels.T, strict=True)]
            with job.policy.reference():
                frozen = velocities(job, job.policy.velocity, states, levels, text)
            for k, (z, level) in enumerate(zip(states.unbind(1), levels.T, strict=True)):
                with job.more(k < len(levels.T) - 1):
                    velocity = job.policy.velocity(z, level, text)
                    policy = policy_loss(z, level, z0, velocity, old[k], chance, c.beta).sum()
                    divergence = flow.velocity_error(velocity, frozen[:, k]).sum()
                    job.accumulate(c.advantage_clip * policy + c.kl_weight * divergence, len(part))
                job.log("policy_loss", policy, len(part))
                job.log("kl", divergence, len(part))
        job.update()
        self.taken += 1

    def state_dict(self) -> dict[str, Any]:
        return {"old": self.old, "taken": self.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.old, self.taken = [held.clone() for held in state["old"]], state["taken"]
