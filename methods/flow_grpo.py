"""Flow-GRPO (Liu et al. 2025): policy gradient on groups of SDE samples, with a LoRA adapter.

Each iteration draws groups of images per prompt with a stochastic sampler, turns rewards into advantages within the
group, and takes clipped policy-gradient updates over the sampling steps. Formulas in ``docs/protocol.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from bench import flow
from bench.method import AdamWConfig, Needs, PostTrainingMethod, Traits

if TYPE_CHECKING:
    from torch import Tensor

    from bench.backbone.loader import TextCondition
    from bench.batches import PromptBatch
    from bench.job import Job

LORA_TARGETS = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
"""flow_grpo's target modules for SD3.5 (flow_grpo @ ac4c86e)."""


class FlowGRPOConfig(AdamWConfig):
    """Defaults are flow_grpo's for SD3.5-Medium (``config/grpo.py`` and ``train_sd3.py`` @ ac4c86e)."""

    prompts: int = Field(48, gt=0, description="prompts per epoch")
    group_size: int = Field(24, gt=1, description="images per prompt")
    updates: int = Field(2, gt=0, description="optimizer updates per epoch")
    sampling_steps: int = Field(10, gt=1, description="T, steps of the training sampler; all but the last are trained")
    guidance_scale: float = Field(4.5, ge=1, description="in sampling and in training")
    detach_unconditional: bool = Field(
        True, description="no gradient through guidance's unconditional branch; later flow_grpo (74db691) has one"
    )
    noise_level: float = Field(0.7, gt=0, description="a of the SDE step")
    clip_range: float = Field(1e-4, gt=0, description="of the ratio; tiny because log-probabilities are means")
    advantage_clip: float = Field(5.0, gt=0)
    kl_weight: float = Field(0.01, ge=0, description="beta: .04 GenEval and OCR, .01 PickScore, .02 ClipScore")
    lora_rank: int = Field(32, gt=0)
    lora_alpha: float = Field(64, gt=0)
    lr: float = Field(3e-4, gt=0, description="AdamW, constant")
    weight_decay: float = Field(1e-4, ge=0)
    ema_decay: float = Field(0.9, ge=0, lt=1, description="EMA weights are evaluated")
    ema_every: int = Field(8, gt=0, description="updates between EMA steps")


@dataclass(frozen=True)
class Trajectories:
    """Sampled paths: latents (T + 1, N, C, H, W); of each step, log-probabilities (T, N) and the unconditional
    velocity (T, N, C, H, W)."""

    latents: Tensor
    log_probs: Tensor
    unconditional: Tensor


class FlowGRPO(PostTrainingMethod):
    """Flow-GRPO: online policy gradient on a reward (LoRA)."""

    Config = FlowGRPOConfig
    embedded: ClassVar = {
        "prompts": 4,
        "group_size": 8,
        "sampling_steps": 6,
        "lr": 1e-3,
        "ema_every": 1,  # an embedded run has some fifty updates
    }
    needs = Needs(prompts=True, reward=True)
    traits = Traits(
        training_signal="Reward function",
        on_policy="yes",
        signal_density="Sparse (terminal)",
        credit_assignment="needed",
        reward_hacking="possible",
        resolves_model_bias="partial",
        trains="LoRA",
        paper="arXiv 2505.05470",
    )

    def setup(self, job: Job) -> None:
        c = self.config
        job.train_lora(rank=c.lora_rank, alpha=c.lora_alpha, target_modules=LORA_TARGETS, **c.adamw())

    def step(self, job: Job) -> None:
        c = self.config
        batch = job.prompts(c.prompts, repeat=c.group_size)
        paths, scores = self._sample(job, batch)
        rewards = job.gather(scores, batch)
        advantages = flow.group_advantages(rewards.view(c.prompts, c.group_size), clip=c.advantage_clip).flatten()
        kept = torch.nonzero(advantages).flatten().cpu()
        job.log("reward", rewards.mean())
        job.log("reward_std", rewards.std())
        job.log("kept", float(len(kept)))
        order = kept[torch.randperm(len(kept), generator=job.rng("order"))]
        for update, rows in enumerate(order.tensor_split(min(c.updates, max(len(order), 1)))):
            if len(rows):
                self._update(job, batch, paths, advantages[batch.rows], rows, on_policy=update == 0)

    @torch.no_grad()
    def _sample(self, job: Job, batch: PromptBatch) -> tuple[Trajectories, Tensor]:
        """What was sampled, and its rewards."""
        c, sigmas, paths, scores = self.config, job.policy.sigmas(self.config.sampling_steps), [], []
        for part in job.parts(batch):
            share = batch[part]
            latents, log_probs, unconditional = [job.noise(share, "start")], [], []
            for i in range(c.sampling_steps):
                if c.guidance_scale == 1:
                    free = velocity = job.policy.velocity(latents[-1], sigmas[i], share.text)
                else:
                    free, bound = job.policy.branches(latents[-1], sigmas[i], share.text)
                    velocity = flow.guide(free, bound, c.guidance_scale)
                mean, std = self._moments(latents[-1], velocity, sigmas, i)
                latents.append(mean + std * job.noise(share, f"sde-{i}"))
                log_probs.append(flow.gaussian_log_prob(latents[-1], mean, std))
                unconditional.append(free)
            paths.append([torch.stack(latents), torch.stack(log_probs), torch.stack(unconditional)])
            scores.append(job.reward_later(job.decode(latents[-1]), share.prompts))
        rewards = torch.cat([wait() for wait in scores])[: len(batch)]
        return Trajectories(*(torch.cat(kind, 1)[:, : len(batch)] for kind in zip(*paths, strict=True))), rewards

    def _velocity(
        self, job: Job, z: Tensor, sigma: Tensor, text: TextCondition, unconditional: Tensor | None
    ) -> Tensor:
        """Guided velocity with the gradient that the configuration asks for.

        ``unconditional`` is the sampling policy's, which spares a forward while the policy is still that one.
        """
        c = self.config
        if c.guidance_scale == 1 or not c.detach_unconditional:
            return job.policy.guided_velocity(z, sigma, text, c.guidance_scale)
        if unconditional is None:
            with torch.no_grad():
                unconditional = job.policy.unconditional_velocity(z, sigma)
        return flow.guide(unconditional, job.policy.velocity(z, sigma, text), c.guidance_scale)

    def _moments(self, z: Tensor, velocity: Tensor, sigmas: Tensor, i: int) -> tuple[Tensor, Tensor]:
        return flow.flow_sde_moments(
            z, velocity, sigmas[i], sigmas[i + 1], noise_level=self.config.noise_level, sigma_cap=float(sigmas[1])
        )

    def _update(
        self, job: Job, batch: PromptBatch, paths: Trajectories, advantages: Tensor, rows: Tensor, *, on_policy: bool
    ) -> None:
        """One optimizer update on the samples in ``rows``; ``advantages`` are those of this process's samples."""
        c, sigmas = self.config, job.policy.sigmas(self.config.sampling_steps)
        trained = range(c.sampling_steps - 1)
        for part in job.parts(batch, rows):
            advantage, text = advantages[part], batch[part].text
            for i in trained:
                with job.more(i < trained[-1]):
                    z, z_next = paths.latents[i, part], paths.latents[i + 1, part]
                    known = paths.unconditional[i, part] if on_policy else None
                    mean, std = self._moments(z, self._velocity(job, z, sigmas[i], text, known), sigmas, i)
                    log_prob = flow.gaussian_log_prob(z_next, mean, std)
                    # Right after sampling the old policy is this policy. Taking its log-probability from this very
                    # forward makes the ratio exactly 1 there, where a forward of another batch size would differ in
                    # the last bits.
                    old = log_prob.detach() if on_policy else paths.log_probs[i, part]
                    ratio = torch.exp(log_prob - old)
                    clipped = ratio.clamp(1 - c.clip_range, 1 + c.clip_range)
                    loss = torch.maximum(-advantage * ratio, -advantage * clipped).sum()
                    if c.kl_weight:
                        with torch.no_grad(), job.policy.reference():
                            frozen = job.policy.guided_velocity(z, sigmas[i], text, c.guidance_scale)
                        reference_mean, _ = self._moments(z, frozen, sigmas, i)
                        spread = std / (sigmas[i] - sigmas[i + 1]).sqrt()
                        divergence = ((mean - reference_mean) ** 2 / (2 * spread**2)).flatten(1).mean(1).sum()
                        loss = loss + c.kl_weight * divergence
                        job.log("kl", divergence, len(part))
                    job.accumulate(loss, len(part))
                job.log("clipped", ((ratio - 1).abs() > c.clip_range).sum(), len(part))
                if i == 0:
                    job.log("ratio", ratio.sum(), len(part))
        job.update()
