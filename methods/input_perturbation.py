"""Input perturbation (Ning et al. 2023): fine-tune on inputs that are noisier than their targets say.

Carried over from noise prediction to velocities: with a second Gaussian noise xi, the input is
``(1 - sigma) z0 + sigma (z1 + gamma xi)`` and the target stays ``z1 - z0`` (arXiv 2301.11706; forever208/DDPM-IP @
035eaef, README). xi stands in for the error that a sampler's own steps leave in its states. gamma = 0 is supervised
fine-tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bench import flow, matching
from bench.method import Needs, PostTrainingMethod, Traits

if TYPE_CHECKING:
    from bench.job import Job


class InputPerturbationConfig(matching.MatchingConfig):
    """Optimizer and batch are supervised fine-tuning's, so that gamma is all that differs."""

    gamma: float = Field(0.1, ge=0, description="strength; DDPM-IP's commands have 0.1, and 0.15 on CIFAR-10; 0 is SFT")


class InputPerturbation(PostTrainingMethod):
    """Input perturbation: flow matching on inputs with extra noise (full parameters)."""

    Config = InputPerturbationConfig
    embedded: ClassVar = {"lr": 3e-4}
    needs = Needs(pairs=True)
    traits = Traits(
        training_signal="Supervised (perturbed trajectory)",
        on_policy="no",
        signal_density="Dense",
        credit_assignment="not needed",
        reward_hacking="no",
        resolves_model_bias="partial",
        trains="all parameters",
        paper="arXiv 2301.11706",
    )

    def setup(self, job: Job) -> None:
        job.train_full(**self.config.adamw())

    def step(self, job: Job) -> None:
        for pairs in job.pairs(self.config.batch_size):
            z1, _, sigma = matching.draw(job, pairs)
            perturbed = z1 + self.config.gamma * job.noise(pairs, "perturbation")
            velocity = job.policy.velocity(flow.interpolate(pairs.latents, perturbed, sigma), sigma, pairs.text)
            job.accumulate(flow.velocity_error(velocity, z1 - pairs.latents).sum(), len(pairs))
        job.update()
