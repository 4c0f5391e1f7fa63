"""MixFlow (Li et al. 2025, arXiv 2512.19311): the model is told a level, and its input is noisier than that.

A sampler's states are found to lie nearest to the path at a higher level than the sampler believes ("slow flow"). So
per pair, with U and U' uniform in [0, 1):

1. The level ``sigma`` that the model is told: ``1 - sqrt(U)``, then the timestep shift.
2. The slowed level ``m = sigma + U' gamma (1 - sigma)``, at which the input lies.
3. ``loss = mean (v_theta(z_m, sigma) - (z1 - z0))²``.

Source: the formulas and the code that the authors show for RAE (mixflowgen.github.io @ 2ffeb75; its model card on the
hub shows the same). There gamma is 0.4. SimpleTuner calls 0.8 the paper's default and shifts the level as in 1.
(bghira/SimpleTuner @ 0a03ecf, ``documentation/experimental/MIXFLOW.md``). Not verified, since the paper's text was not
at hand: 0.8 in the paper itself, and how its text-to-image models draw their levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from bench import flow, matching
from bench.method import Needs, PostTrainingMethod, Traits

if TYPE_CHECKING:
    from torch import Tensor

    from bench.batches import Pairs
    from bench.job import Job


class MixFlowConfig(matching.MatchingConfig):
    """Optimizer and batch are supervised fine-tuning's, so that the objective is all that differs."""

    gamma: float = Field(
        0.8, ge=0, le=1, description="how far towards noise the input may lie; 0.4 in the code shown for RAE"
    )
    density: Literal["beta", "logit_normal"] = Field(
        "beta", description="of the level before the shift: 1 - sqrt(U), or SFT's; with gamma 0 the latter is SFT"
    )


class MixFlow(PostTrainingMethod):
    """MixFlow: flow matching on inputs from higher levels than the model is told (full parameters)."""

    Config = MixFlowConfig
    embedded: ClassVar = {"lr": 3e-4}
    needs = Needs(pairs=True)
    traits = Traits(
        training_signal="Supervised (slowed trajectory)",
        on_policy="no",
        signal_density="Dense",
        credit_assignment="not needed",
        reward_hacking="no",
        resolves_model_bias="partial",
        trains="all parameters",
        paper="arXiv 2512.19311",
    )

    def setup(self, job: Job) -> None:
        job.train_full(**self.config.adamw())

    def step(self, job: Job) -> None:
        for pairs in job.pairs(self.config.batch_size):
            z1, sigma = self._draw(job, pairs)
            slowed = sigma + job.uniform(pairs, "slowed") * self.config.gamma * (1 - sigma)
            velocity = job.policy.velocity(flow.interpolate(pairs.latents, z1, slowed), sigma, pairs.text)
            job.accumulate(flow.velocity_error(velocity, z1 - pairs.latents).sum(), len(pairs))
        job.update()

    def _draw(self, job: Job, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Noise z1 (N, C, H, W), and the level (N,) that the model is told."""
        if self.config.density == "logit_normal":
            z1, _, sigma = matching.draw(job, pairs)
            return z1, sigma
        u = 1 - job.uniform(pairs, "time").sqrt()
        return job.noise(pairs, "noise"), flow.shift_time(u, job.policy.shift)
