"""Supervised fine-tuning: go on with flow matching on the curated pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench import flow, matching
from bench.method import Needs, PostTrainingMethod, Traits

if TYPE_CHECKING:
    from bench.job import Job


class SFTConfig(matching.MatchingConfig):
    """Defaults are the SOAR paper's for SD3.5-Medium (section 3.1) and its released command."""


class SFT(PostTrainingMethod):
    """Supervised fine-tuning with the flow-matching loss (full parameters)."""

    Config = SFTConfig
    embedded: ClassVar = {"lr": 3e-4}  # a 3.6 M model takes larger steps than one of 2.2 B
    needs = Needs(pairs=True)
    traits = Traits(
        training_signal="Supervised (ground-truth trajectory)",
        on_policy="no",
        signal_density="Dense",
        credit_assignment="not needed",
        reward_hacking="no",
        resolves_model_bias="no",
        trains="all parameters",
        paper="Lipman et al. 2023; Esser et al. 2024",
    )
    trained_probes = ("heldout_loss",)

    def setup(self, job: Job) -> None:
        job.train_full(**self.config.adamw())

    def step(self, job: Job) -> None:
        for pairs in job.pairs(self.config.batch_size):
            z1, _, sigma = matching.draw(job, pairs)
            velocity = job.policy.velocity(flow.interpolate(pairs.latents, z1, sigma), sigma, pairs.text)
            job.accumulate(flow.velocity_error(velocity, z1 - pairs.latents).sum(), len(pairs))
        job.update()
