"""Flow-GRPO (Liu et al. 2025): policy gradient on groups of SDE samples, with a LoRA adapter.

Each iteration draws groups of images per prompt with a stochastic sampler, turns rewards into advantages within the
group, and takes clipped policy-gradient updates over the sampling steps. Formulas in ``docs/protocol.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench import flow
from bench.lora import LoRAConfig
from bench.machine.transfer import beside
from bench.method import Needs, PostTrainingMethod, Traits
from bench.rollout import draw_groups, velocities
from bench.trajectories import Paths, TransitionKind, Transitions, sample_paths

if TYPE_CHECKING:
    from torch import Tensor

    from bench.backbone.condition import TextCondition
    from bench.batches import PromptBatch
    from bench.flow import Scale
    from bench.job import Job


class FlowGRPOConfig(LoRAConfig):
    """Defaults are flow_grpo's for SD3.5-Medium (``config/grpo.py`` and ``train_sd3.py`` @ ac4c86e).

    Its successors are variants, with their released settings in a ``[variant.NAME]`` table or ``--set``:
    Fast: ``window = 2, noise_level = 0.8, clip_range = 1e-5, kl_weight = 0`` (``pickscore_sd3_fast`` @ 31c71b9).
    CPS: Fast's and ``sde_kind = "cps"``, released with ``window = 3, guidance_scale = 1`` (``*_fast_nocfg`` @ 31c71b9).
    Guard: ``guard = true, clip_range = 2e-6, kl_weight = 0, lr = 1e-4`` (``config/grpo_guard.py`` of the fork
    zhtmike/flow_grpo @ 2e2f712, where advantages are over each group's own deviation; that is not built).
    """

    prompts: int = Field(48, gt=0, description="prompts per epoch")
    group_size: int = Field(24, gt=1, description="images per prompt")
    updates: int = Field(2, gt=0, description="optimizer updates per epoch")
    sampling_steps: int = Field(10, gt=1, description="T, steps of the training sampler; all but the last are trained")
    window: int = Field(
        0, ge=0, description="Fast: only this many steps from one of 0..T/2 on are stochastic and trained; 0: all"
    )
    guidance_scale: float = Field(4.5, ge=1, description="in sampling and in training")
    detach_unconditional: bool = Field(
        True, description="no gradient through guidance's unconditional branch; later flow_grpo (74db691) has one"
    )
    sde_kind: TransitionKind = Field("flow_sde", description="stochastic step; cps: arXiv 2509.05952")
    noise_level: float = Field(0.7, gt=0, description="a of the stochastic step")
    guard: bool = Field(False, description="GRPO-Guard (arXiv 2510.22319): normalised ratios, losses divided by -dt")
    clip_range: float = Field(1e-4, gt=0, description="of the ratio; tiny because log-probabilities are means")
    old_as_trained: bool = Field(
        False, description="old values of later updates from forwards of the training's own shape, which costs those; "
        "set it where the logged noise comes near clip_range (bfloat16 with Fast's or Guard's)"
    )  # fmt: skip
    advantage_clip: float = Field(5.0, gt=0, description="advantages are clipped to ± this")
    kl_weight: float = Field(0.01, ge=0, description="beta: .04 GenEval and OCR, .01 PickScore, .02 ClipScore")
    ema_decay: float = Field(0.9, ge=0, lt=1, description="EMA weights are evaluated; train_sd3.py")
    ema_every: int = Field(8, gt=0, description="updates between EMA steps; train_sd3.py")

    @field_validator("window")
    @classmethod
    def _fits(cls, window: int, info: ValidationInfo) -> int:
        if window >= info.data.get("sampling_steps", window + 1):
            raise ValueError("the window must be shorter than sampling_steps; the last step is never trained")
        return window

    @model_validator(mode="after")
    def _noise_fits(self) -> FlowGRPOConfig:
        flow.check_noise_level(self.sde_kind, self.noise_level)
        return self


class FlowGRPO(PostTrainingMethod):
    """Flow-GRPO: online policy gradient on a reward (LoRA)."""

    Config = FlowGRPOConfig
    # An embedded run has some fifty updates.
    embedded: ClassVar = {"prompts": 4, "group_size": 8, "sampling_steps": 6, "lr": 1e-3, "ema_every": 1}
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
        job.train_lora(**self.config.lora())

    def step(self, job: Job) -> None:
        c = self.config
        sigmas = job.policy.sigmas(c.sampling_steps).tolist()
        by = Transitions(c.sde_kind, c.noise_level, c.guard, sigmas, c.guidance_scale)
        batch, trained = draw_groups(job, c.prompts, c.group_size), self.trained_steps(job)
        paths, rewards = sample_paths(
            job, batch, by, trained=trained, shared_by=c.group_size if c.window else None,
            keep_unconditional=c.guidance_scale != 1 and c.detach_unconditional,
        )  # fmt: skip
        rewards = rewards.cpu()  # the host has to know which rows are visited
        advantages = flow.group_advantages(rewards.view(c.prompts, c.group_size), clip=c.advantage_clip).flatten()
        kept = torch.nonzero(advantages).flatten()
        job.log("reward", rewards.mean())
        job.log("reward_std", rewards.std())
        job.log("kept", float(len(kept)))
        order = kept[torch.randperm(len(kept), generator=job.rng("order"))]
        turns = order.tensor_split(min(c.updates, max(len(order), 1)))
        if c.old_as_trained:
            paths = self.as_trained(job, batch, by, paths, turns[1:])
        for update, rows in enumerate(turns):
            if len(rows):
                self.update(job, batch, by, paths, advantages[batch.rows], rows, on_policy=update == 0)

    def trained_steps(self, job: Job) -> range:
        """Sampling steps that this iteration trains."""
        steps, length = self.config.sampling_steps, self.config.window
        if not length:
            return range(steps - 1)
        latest = min(steps // 2, steps - 1 - length)  # the last step is never stochastic
        first = int(torch.randint(latest + 1, (1,), generator=job.rng("window")))
        job.log("window", first)
        return range(first, first + length)

    def update(
        self, job: Job, batch: PromptBatch, by: Transitions, paths: Paths, advantages: Tensor, rows: Tensor,
        *, on_policy: bool,
    ) -> None:  # fmt: skip
        """One optimizer update on the samples in ``rows``; ``advantages`` are those of this process's samples."""
        c = self.config
        for part in job.parts(batch, rows):
            text, own = batch[part].text, paths[part]
            advantage = beside(advantages[part], own.latents)
            free = self.unconditional(job, own, by, text, on_policy=on_policy)
            frozen = self.reference(job, own, by, text)
            for k, i in enumerate(paths.steps):
                z, after, sigma = own.latents[:, k], own.latents[:, k + 1], by.sigmas[i]
                old = None if on_policy else own.memory[:, k]
                known = None if free is None else free[:, k]
                with job.more(i < paths.steps[-1]):
                    velocity = job.policy.guided_velocity(
                        z, sigma, text, c.guidance_scale,
                        detach_unconditional=c.detach_unconditional, unconditional=known,
                    )  # fmt: skip
                    mean, std = by.moments(z, velocity, i)
                    ratio = by.ratio(after, mean, std, old)
                    if on_policy:
                        self.log_noise(job, by, after, mean.detach(), std, own.memory[:, k])
                    loss = flow.clipped_objective(ratio, advantage, c.clip_range).sum()
                    if c.guard:
                        loss = loss / by.span(i)
                    if frozen is not None:
                        divergence = by.divergence(mean, by.moments(z, frozen[:, k], i)[0], std, i).sum()
                        loss = loss + c.kl_weight * divergence
                        job.log("kl", divergence, len(part))
                    job.accumulate(loss, len(part))
                job.log("clipped", ((ratio - 1).abs() > c.clip_range).sum(), len(part))
                if k == 0:
                    job.log("ratio", ratio.sum(), len(part))
        job.update()

    def unconditional(
        self, job: Job, paths: Paths, by: Transitions, text: TextCondition, *, on_policy: bool
    ) -> Tensor | None:
        """Unconditional velocities (n, K, C, H, W) of a micro-batch at all steps, where no gradient leads there."""
        c = self.config
        if on_policy and paths.unconditional is not None:
            return paths.unconditional
        if c.guidance_scale == 1 or not c.detach_unconditional:
            return None
        policy, states = job.policy, paths.latents[:, :-1]
        return velocities(
            job, lambda z, sigma, _: policy.unconditional_velocity(z, sigma), states, paths.levels(by), text
        )

    def reference(self, job: Job, paths: Paths, by: Transitions, text: TextCondition) -> Tensor | None:
        """Guided velocities (n, K, C, H, W) of the frozen policy at all steps, where the loss has a divergence."""
        if not self.config.kl_weight:
            return None
        policy, states, scale = job.policy, paths.latents[:, :-1], self.config.guidance_scale
        with policy.reference():
            return velocities(
                job, lambda z, sigma, own: policy.guided_velocity(z, sigma, own, scale), states, paths.levels(by), text
            )

    def as_trained(self, job: Job, batch: PromptBatch, by: Transitions, paths: Paths, turns: Sequence[Tensor]) -> Paths:
        """Paths that remember what forwards of an update's shape say of the old policy, for the rows of ``turns``.

        To be called before the first update. flow_grpo samples and trains in batches of one size (``config/grpo.py``
        @ ac4c86e), so that its ratios have no such noise.
        """
        c, memory, known = self.config, paths.memory.clone(), torch.zeros(len(batch), dtype=torch.bool)
        for rows in turns:
            for part in job.parts(batch, rows):  # with gradients on: cut as for a backward
                fresh = torch.nonzero(~known[part]).flatten()  # a repeated one only keeps another process company
                with torch.no_grad():
                    text, own = batch[part].text, paths[part]
                    free = self.unconditional(job, own, by, text, on_policy=False)
                    for k, i in enumerate(paths.steps):
                        velocity = job.policy.guided_velocity(
                            own.latents[:, k], by.sigmas[i], text, c.guidance_scale,
                            unconditional=None if free is None else free[:, k],
                        )  # fmt: skip
                        mean, std = by.moments(own.latents[:, k], velocity, i)
                        kept = by.memory(own.latents[:, k + 1], mean, std)
                        memory[beside(part[fresh], memory), k] = kept[beside(fresh, kept)]
                known[part] = True
        return Paths(paths.steps, paths.latents, memory, paths.unconditional)

    @staticmethod
    @torch.no_grad()
    def log_noise(job: Job, by: Transitions, after: Tensor, mean: Tensor, std: Scale, sampled: Tensor) -> None:
        """Log how far rounding alone moves a ratio: the old policy in this forward, against itself while sampling.

        The two forwards have other shapes, and so other kernels. A change of the policy must be larger to be seen.
        """
        job.log("noise", (by.ratio(after, mean, std, sampled) - 1).abs().sum(), len(after))
