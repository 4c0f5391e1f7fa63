"""ReflexFlow (arXiv 2512.04904): learn from the bias that a simulated sampling step of the model itself reveals.

In this project's notation (sigma = 1 - t, and velocities point from data to noise), per pair:

1. ``v = v_theta(z_sigma, sigma)``, and a level further down the path, ``sigma' = sigma (1 - U)``, U uniform.
2. The biased state ``z^ = z_sigma + (sigma' - sigma) v`` of one Euler step without guidance, and the velocity there,
   ``v^ = v_theta(z^, sigma')``.
3. Anti-Drift Rectification: the rectified target ``(z^ - z0) / sigma'`` leads from the biased state to the data. Its
   direction counts: ``L_ADR = | v^ / |v^| - (z^ - z0) / |z^ - z0| |²``.
4. Frequency Compensation: the bias ``delta = sg[v_theta(z_sigma', sigma') - v^]`` is found to carry the low frequencies
   that early steps miss, so it weighs the base loss: ``L_FC = mean w(delta) (v - (z1 - z0))²``.
5. ``L = beta1 L_ADR + L_FC``.

The paper's text was not at hand, so no equation numbers are given. The above follows its abstract; the overview figure
of its later version, DEFAR (arXiv 2606.28226, same authors; wuliwuliy/DEFAR @ f11bc11), which shows 2 to 4; what others
write of DEFAR's Algorithm 1 (the draw of sigma', the norms); and SimpleTuner @ bc8e6ab, which says that its beta1 is
the paper's. SimpleTuner takes the base loss at the biased state, where it stands here at ``z_sigma`` as in 4. This
project's reading are the density of sigma (supervised fine-tuning's) and w: SimpleTuner has
``1 + alpha delta / |delta|_1``. Here the sign is dropped, since it depends on which way velocities point; the mean
takes the sum's place, since with SD3.5's 65,536 latents w would be 1; and w has mean 1 (``flow.bias_weight``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from bench import flow, matching
from bench.method import Needs, PostTrainingMethod, Traits

if TYPE_CHECKING:
    from torch import Tensor

    from bench.batches import Pairs
    from bench.job import Job


class ReflexFlowConfig(matching.MatchingConfig):
    """Optimizer and batch are supervised fine-tuning's, so that the objective is all that differs."""

    anti_drift_weight: float = Field(10.0, ge=0, description="beta1, of L_ADR; SimpleTuner, as in the paper; 0: none")
    frequency_alpha: float = Field(
        1.0, ge=0, description="how much the bias weighs the base loss; SimpleTuner's 1, in this project's w; 0: w = 1"
    )
    through_rollout: bool = Field(
        False, description="gradient through the simulated step too, as in DEFAR's Algorithm 1; SimpleTuner has none"
    )


class ReflexFlow(PostTrainingMethod):
    """ReflexFlow: rectified directions and bias-weighted flow matching after a simulated step (full parameters)."""

    Config = ReflexFlowConfig
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
        paper="arXiv 2512.04904",
    )
    trained_probes = ("heldout_loss", "one_step_gap")

    def setup(self, job: Job) -> None:
        job.train_full(**self.config.adamw())

    def step(self, job: Job) -> None:
        c = self.config
        for pairs in job.pairs(c.batch_size):
            z1, _, sigma = matching.draw(job, pairs)
            z = flow.interpolate(pairs.latents, z1, sigma)
            velocity = job.policy.velocity(z, sigma, pairs.text)
            drift: Tensor | float = 0.0
            weight: Tensor | float = 1.0
            if c.anti_drift_weight or c.frequency_alpha:
                drift, weight = self.simulate(job, pairs, z, z1, sigma, velocity)
            base = flow.velocity_error(velocity, z1 - pairs.latents, weight).sum()
            job.accumulate(base + c.anti_drift_weight * drift, len(pairs))
        job.update()

    def simulate(
        self, job: Job, pairs: Pairs, z: Tensor, z1: Tensor, sigma: Tensor, velocity: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """Sum of L_ADR after a simulated step, and the weights (N, C, H, W) that the bias there gives, or 1."""
        c = self.config
        level = sigma * (1 - job.uniform(pairs, "simulated"))
        biased = flow.euler(z, velocity if c.through_rollout else velocity.detach(), sigma, level)
        with torch.set_grad_enabled(c.anti_drift_weight > 0):
            off_path = job.policy.velocity(biased, level, pairs.text)
            drift = flow.direction_error(off_path, biased - pairs.latents).sum()
        job.log("anti_drift_loss", drift, len(pairs))
        if not c.frequency_alpha:
            return drift, 1.0
        with torch.no_grad():
            on_path = job.policy.velocity(flow.interpolate(pairs.latents, z1, level), level, pairs.text)
            job.log("squared_bias", flow.velocity_error(on_path, off_path).sum(), len(pairs))
            return drift, flow.bias_weight(on_path - off_path, c.frequency_alpha)
