"""Diffusion-DPO (Wallace et al. 2023) for flow matching: prefer one of two pictures of a prompt, against a reference.

Pairs are given (offline preference data), or made here: the best and the worst by a reward of a group that the
reference draws, whose whole cost is charged. Formulas in ``docs/protocol.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field

from bench import flow, matching
from bench.lora import LoRAConfig
from bench.machine.transfer import beside
from bench.method import Needs, PostTrainingMethod, Traits
from bench.rollout import draw_groups, sample_and_score

if TYPE_CHECKING:
    from torch import Tensor

    from bench.backbone.loader import TextCondition
    from bench.batches import Rows
    from bench.job import Job


class DPOConfig(LoRAConfig):
    """Loss and pairs as flow_grpo's DPO for SD3.5-Medium; where a source is given, the value is from there."""

    pairs_from: Literal["data", "reference"] = Field(
        "data", description="offline preference data; or best and worst of a group of the reference's samples"
    )
    beta: float = Field(100.0, gt=0, description="flow_grpo's; 5000 for SD 1.5 in Wallace et al., section 5.1")
    batch_size: int = Field(32, gt=0, description="preference pairs per update; 32 as the other methods")
    group_size: int = Field(24, gt=1, description="samples of which the best and the worst make a pair; flow_grpo's")
    sampling_steps: int = Field(40, gt=0, description="of the reference's samples; as in evaluations")
    guidance_scale: float = Field(4.5, ge=1, description="of the reference's samples; as the other methods")
    passes: int = Field(1, gt=0, description="updates on each batch of the reference's pairs, with other noise")


class DPO(PostTrainingMethod):
    """Diffusion-DPO: learns from preferred and rejected pictures of one prompt (LoRA)."""

    Config = DPOConfig
    embedded: ClassVar = {"group_size": 8, "sampling_steps": 10, "lr": 1e-4}
    needs = Needs(preference_pairs=True)
    traits = Traits(
        training_signal="Preference pairs",
        on_policy="no",
        signal_density="Dense",
        credit_assignment="not needed",
        reward_hacking="possible",
        resolves_model_bias="partial",
        trains="LoRA",
        paper="arXiv 2311.12908",
    )

    @classmethod
    def needs_of(cls, config: DPOConfig) -> Needs:
        """Preference data, or prompts and a reward to make pairs with."""
        return cls.needs if config.pairs_from == "data" else Needs(prompts=True, reward=True)

    def setup(self, job: Job) -> None:
        job.train_lora(**self.config.lora())

    def step(self, job: Job) -> None:
        c = self.config
        if c.pairs_from == "data":
            for pairs in job.preference_pairs(c.batch_size):
                self.learn(job, pairs, pairs.winners, pairs.losers, pairs.text)
            job.update()
            return
        batch = draw_groups(job, c.batch_size, c.group_size)
        with job.policy.reference():
            latents, rewards = sample_and_score(job, batch, steps=c.sampling_steps, guidance_scale=c.guidance_scale)
        groups = rewards.cpu().view(c.batch_size, c.group_size)  # the host has to know which rows are visited
        (best, winner), (worst, loser) = groups.max(1), groups.min(1)
        job.log("reward", groups.mean())
        job.log("gap", (best - worst).mean())
        decided = torch.nonzero(best > worst).flatten()  # a group of equal rewards prefers nothing
        first = decided * c.group_size
        winners, to_loser = first + winner[decided], loser - winner
        for number in range(c.passes if len(decided) else 0):
            for part in job.parts(batch, winners):
                share = batch[part]
                other = part + to_loser[share.rows // c.group_size]  # a group stays on one process
                winning, losing = latents[beside(torch.stack([part, other]), latents)]
                self.learn(job, share, winning, losing, share.text, f"-{number}")
            job.update()

    def learn(
        self, job: Job, rows: Rows, winners: Tensor, losers: Tensor, text: TextCondition, stream: str = ""
    ) -> None:
        """The loss on a micro-batch of pairs, with one noise and level for both pictures of a pair."""
        z1, _, sigma = matching.draw(job, rows, stream)
        both, noise, level = torch.cat([winners, losers]), z1.repeat(2, 1, 1, 1), sigma.repeat(2)
        z, condition = flow.interpolate(both, noise, level), text[torch.arange(len(rows)).repeat(2)]
        with torch.no_grad(), job.policy.reference():
            reference = flow.velocity_error(job.policy.velocity(z, level, condition), noise - both)
        error = flow.velocity_error(job.policy.velocity(z, level, condition), noise - both)
        margin = flow.preference_margin(error, reference)
        job.accumulate(flow.preference_loss(margin, self.config.beta).sum(), len(rows))
        job.log("margin", margin.sum(), len(rows))
        job.log("accuracy", (margin > 0).sum(), len(rows))
