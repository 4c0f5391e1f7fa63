"""LeapAlign (arXiv 2604.15311): the gradient of a reward, through two leaps instead of a whole trajectory.

An image is sampled by the ODE without gradient but for two of its steps, k and the less noisy j. Their velocities make
two leaps, from x_k to x_j and from x_j to x_0, which stand in for the steps between: each leap's end has the value of
the real latents and the gradient of the leap. The sampler's levels are the release's, which are not those of an
evaluation. Formulas in ``docs/protocol.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, field_validator

from bench import flow
from bench.errors import JobFailure
from bench.method import AdamWConfig, Needs, PostTrainingMethod, Traits
from bench.sampling.levels import SHIFTED

if TYPE_CHECKING:
    from torch import Tensor

    from bench.batches import PromptBatch
    from bench.job import Job


class LeapAlignConfig(AdamWConfig):
    """Defaults are FlowBP's for SD3.5-Medium (RuoyuWang-2077/FlowBP @ 34c93f9, ``configs/final/sd35``)."""

    prompts: int = Field(64, gt=0, description="images per update, one of each prompt")
    sampling_steps: int = Field(25, gt=1, description="of the ODE")
    guidance_scale: float = Field(3.5, ge=1, description="in sampling and in the two leaps")
    detach_unconditional: bool = Field(
        False, description="no gradient through guidance's unconditional branch; released as cfg_detach_neg, off"
    )
    nested: float = Field(0.3, ge=0, le=1, description="alpha, share of the gradient that enters j's forward by x_j")
    distance_floor: float = Field(0.1, gt=0, description="tau, least distance that a leap's weight counts")
    reward_ceiling: float | None = Field(
        0.55, description="the loss is relu(ceiling - reward); .55 fits HPSv2.1. none: the reward itself, on any scale"
    )
    lr: float = Field(1e-5, gt=0, description="AdamW, constant")
    weight_decay: float = Field(1e-4, ge=0, description="FlowBP's, as the learning rate")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="EMA weights are evaluated")
    ema_warmup: bool = Field(False, description="the release's decay is constant from the first update on")

    @field_validator("reward_ceiling", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        """TOML has no null."""
        return None if value == "none" else value


class LeapAlign(PostTrainingMethod):
    """LeapAlign: ascends a differentiable reward through two leaps of the trajectory (full parameters)."""

    Config = LeapAlignConfig
    embedded: ClassVar = {"prompts": 16, "sampling_steps": 10, "ema_decay": 0.9, "reward_ceiling": None}
    needs = Needs(prompts=True, differentiable_reward=True)
    traits = Traits(
        training_signal="Reward gradient",
        on_policy="yes",
        signal_density="Dense (two steps of a trajectory)",
        credit_assignment="by the gradient",
        reward_hacking="possible",
        resolves_model_bias="partial",
        trains="all parameters",
        paper="arXiv 2604.15311",
    )

    def setup(self, job: Job) -> None:
        job.train_full(**self.config.adamw())

    def step(self, job: Job) -> None:
        c = self.config
        batch = job.prompts(c.prompts)
        k, j = sorted(torch.randperm(c.sampling_steps, generator=job.rng("leaps"))[:2].tolist())
        rewards = []
        for part in job.parts(batch):
            share = batch[part]
            x0, distance = self.sample(job, share, k, j)
            reward = job.differentiable_reward(job.decode_with_gradient(x0), share.prompts)
            regret = -reward if c.reward_ceiling is None else torch.relu(c.reward_ceiling - reward)
            job.accumulate((regret / distance).sum(), len(share))
            job.log("reward", reward.sum(), len(share))
            job.log("distance", distance.sum(), len(share))
            rewards.append(reward.detach())
        least = float(job.gather(torch.cat(rewards)[: len(batch)], batch).min())  # the same on every process
        if c.reward_ceiling is not None and least >= c.reward_ceiling and job.untrained:
            raise JobFailure(
                f"no reward is under reward_ceiling {c.reward_ceiling:g} (the least is {least:.3g}), so there is "
                "nothing to learn; set it for this reward, or to none"
            )
        job.update()

    def sample(self, job: Job, share: PromptBatch, k: int, j: int) -> tuple[Tensor, Tensor]:
        """Clean latents (N, C, H, W) with the gradient of the leaps, and the sum of their distances (N,)."""
        c, sigmas = self.config, job.policy.sigmas(self.config.sampling_steps, SHIFTED).tolist()
        x, distance = job.noise(share, "start"), torch.zeros(len(share), device=job.device)
        leap = x
        for i in range(c.sampling_steps):
            with torch.set_grad_enabled(i in (k, j)):
                start = x
                if i == j:
                    distance = distance + self._distance(leap, x)
                    start = x + (leap - leap.detach())
                inner = start.detach() + c.nested * (start - start.detach())
                velocity = job.policy.guided_velocity(
                    inner, sigmas[i], share.text, c.guidance_scale, detach_unconditional=c.detach_unconditional
                )
                if i == k:
                    leap = flow.euler(x, velocity, sigmas[k], sigmas[j])
                elif i == j:
                    leap = flow.endpoint(start, velocity, sigmas[j])
            x = flow.euler(x, velocity.detach(), sigmas[i], sigmas[i + 1])
        return x + (leap - leap.detach()), distance + self._distance(leap, x)

    def _distance(self, leap: Tensor, real: Tensor) -> Tensor:
        """Mean distance of a leap's end from the real latents, at least the floor: (N,)."""
        return (leap.detach() - real).abs().flatten(1).mean(1).clamp_min(self.config.distance_floor)
