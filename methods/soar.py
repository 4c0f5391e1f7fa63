"""SOAR (arXiv 2604.12617): learn to steer back from where the model's own sampling step leads.

For each pair: one guided ODE step without gradient from the noisy state, re-noised to K levels with the same noise,
each supervised towards the clean latents in closed form. Formulas in ``docs/protocol.md``.

``aux_weighting`` multiplies each point's error and leaves the loss's denominator as it is. Weights have mean 1 for
levels uniform in [0, 1]. The levels here are uniform in [sigma', 1], so lambda counts for more or less: with shift 3
and 40 steps the mean weight is 2.21 for ``sigma_squared``, 1.15 for ``clipped`` and 0.66 for ``mid``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from bench import flow, matching
from bench.method import Needs, PostTrainingMethod, Traits

if TYPE_CHECKING:
    from torch import Tensor

    from bench.batches import Pairs
    from bench.job import Job


class SOARConfig(matching.MatchingConfig):
    """Defaults are the paper's (sections 2.3 and 3.1, default configuration) and its released command."""

    aux_weight: float = Field(1.0, ge=0, description="lambda, weight of the correction loss; 0 is SFT")
    aux_weighting: Literal["inherited", "sigma_squared", "clipped", "mid"] = Field(
        "inherited", description="w(sigma'') of the correction loss; the paper has w = 1 and leaves others open (Q4)"
    )
    aux_knee: float = Field(0.2, gt=0, le=1, description="level below which ``clipped`` weighs less; not the paper's")
    aux_points: int = Field(6, gt=0, description="K, re-noised points per rollout")
    rollout_steps: int = Field(40, gt=1, description="the rollout is one step of a sampler with this many")
    guidance_scale: float = Field(4.5, ge=1, description="classifier-free guidance of the rollout")
    sde_branches: int = Field(0, ge=0, description="extra stochastic rollouts; Table 3 tries 1")
    sde_kind: Literal["simple", "sde", "cps", "flow_sde"] = Field("cps", description="kind of stochastic step")
    sde_scale: float = Field(0.5, gt=0, description="noise scale of stochastic steps; released code")
    fresh_noise: bool = Field(False, description="re-noise with new noise instead of the pair's own; Table 3")

    @model_validator(mode="after")
    def _noise_fits(self) -> SOARConfig:
        flow.check_noise_level(self.sde_kind, self.sde_scale)
        return self


class SOAR(PostTrainingMethod):
    """SOAR: self-correction of the model's own off-trajectory states (full parameters)."""

    Config = SOARConfig
    embedded: ClassVar = {"lr": 3e-4}
    needs = Needs(pairs=True)
    traits = Traits(
        training_signal="Supervised (trajectory correction)",
        on_policy="yes (single step)",
        signal_density="Dense",
        credit_assignment="not needed",
        reward_hacking="no",
        resolves_model_bias="yes",
        trains="all parameters",
        paper="arXiv 2604.12617",
    )
    trained_probes = ("heldout_loss", "one_step_gap")

    def setup(self, job: Job) -> None:
        job.train_full(**self.config.adamw())

    def step(self, job: Job) -> None:
        for pairs in job.pairs(self.config.batch_size):
            z1, u, sigma = matching.draw(job, pairs)
            z = flow.interpolate(pairs.latents, z1, sigma)
            with job.more(self.config.aux_weight > 0):
                velocity = job.policy.velocity(z, sigma, pairs.text)
                base = flow.velocity_error(velocity, z1 - pairs.latents).sum()
                job.accumulate(base, len(pairs))  # frees the base loss's graph before a larger one is built
            if self.config.aux_weight:
                job.log("base_loss", base, len(pairs))
                self._correct(job, pairs, *self.auxiliary(job, pairs, z, z1, u, velocity.detach()))
        job.update()

    def _correct(self, job: Job, pairs: Pairs, states: Tensor, levels: Tensor, rows: Tensor) -> None:
        """The correction loss, in as many forwards as memory asks for."""
        c = self.config
        for piece in job.pieces(len(states), per_row=c.aux_points * (1 + c.sde_branches)):
            z, sigma, row = states[piece], levels[piece], rows[piece]
            target = (z - pairs.latents[row]) / flow.per_sample(sigma, z)
            errors = flow.velocity_error(job.policy.velocity(z, sigma, pairs.text[row]), target)
            weights = flow.correction_weight(c.aux_weighting, sigma, knee=c.aux_knee)
            job.accumulate(c.aux_weight * (weights * errors).sum(), c.aux_weight * len(piece))
            job.log("correction_loss", errors.sum(), len(piece))  # unweighted, so that weightings can be compared

    @torch.no_grad()
    def auxiliary(
        self, job: Job, pairs: Pairs, z: Tensor, z1: Tensor, u: Tensor, velocity: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Re-noised off-trajectory states (M, C, H, W), their noise levels (M,), and the pair each comes from (M,).

        ``velocity`` is the conditional velocity at ``z``, which the base loss has already paid for.
        """
        c, shift = self.config, job.policy.shift
        sigma = flow.shift_time(u, shift)
        sigma_next = flow.shift_time((u - 1 / c.rollout_steps).clamp_min(0), shift)
        if c.guidance_scale != 1:
            velocity = flow.guide(job.policy.unconditional_velocity(z, sigma), velocity, c.guidance_scale)
        landings = [flow.euler(z, velocity, sigma, sigma_next)]
        for branch in range(c.sde_branches):
            noise = job.noise(pairs, f"branch-{branch}")
            landings.append(flow.stochastic_step(c.sde_kind, z, velocity, sigma, sigma_next, noise, c.sde_scale))
        states, levels, rows = [], [], []
        for path, landing in enumerate(landings):
            # A sampler's last step is deterministic, so a stochastic branch has no point where u' = 0.
            kept = torch.arange(len(z), device=z.device) if path == 0 else torch.nonzero(sigma_next > 0).flatten()
            anchor = job.noise(pairs, f"fresh-{path}") if c.fresh_noise else z1
            draws = job.uniform(pairs, f"levels-{path}", c.aux_points)
            for draw in draws.T:
                low = sigma_next[kept]
                level = low + (1 - low) * draw[kept].clamp_min(1e-3)  # at sigma'' = 0 no velocity leads anywhere
                states.append(flow.interpolate(landing[kept], anchor[kept], (level - low) / (1 - low)))
                levels.append(level)
                rows.append(kept)
        return torch.cat(states), torch.cat(levels), torch.cat(rows)
