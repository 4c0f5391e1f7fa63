"""What draws a suite's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone
from bench.backbone.policy import Policy
from bench.prompt import Prompt
from bench.rng import torch_generator
from bench.sampling.remedies import remedy
from bench.suite import Sampler

TEXTS = 64
"""Prompts encoded together."""


class Painter(Protocol):
    """What draws a suite's images: the policy of a job, the base model, or another pipeline for context."""

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[np.ndarray | None]:
        """uint8 (H, W, 3) pictures, one per prompt and seed of its starting noise; None for one that is no number."""
        ...


class PolicyPainter:
    """Draws with a policy, by the suite's sampler. Conditions of prompts are encoded once."""

    def __init__(self, policy: Policy, backbone: Backbone, sampler: Sampler, conditions: Conditions) -> None:
        self._policy, self._backbone, self.sampler, self._conditions = policy, backbone, sampler, conditions

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray | None]:
        shape = self._backbone.latent_shape_of(self.sampler.resolution, self.sampler.resolution)
        noise = torch.stack([torch.randn(shape, generator=torch_generator(seed)) for seed in seeds])
        device, text = self._policy.engine.device, self._conditions[[p.text for p in prompts]]
        latents = self._policy.sample(
            noise.to(device),
            text.to(device),
            steps=self.sampler.steps,
            guidance_scale=self.sampler.guidance_scale,
            levels=self.sampler.levels,
            solver=self.sampler.solver,
            remedy=remedy(self.sampler.remedy),
        )
        finite = torch.isfinite(latents).flatten(1).all(1).tolist()
        pictures = self._backbone.decode(torch.nan_to_num(latents))
        return [picture if known else None for picture, known in zip(pictures, finite, strict=True)]


class Conditions:
    """Conditions of a suite's prompts by text, encoded at once and kept in the precision that they were computed in.

    The paper's 1,771 prompts are 5 GB in bfloat16 on each process, and would be twice that in float32.
    """

    def __init__(self, backbone: Backbone, texts: Sequence[str]) -> None:
        distinct, dtype = sorted(set(texts)), backbone.engine.dtype
        self._of: dict[str, TextCondition] = {}
        with backbone.text_encoders():
            for start in range(0, len(distinct), TEXTS):
                part = distinct[start : start + TEXTS]
                made = backbone.encode_prompts(part)
                made = TextCondition(made.prompt_embeds.to(dtype), made.pooled_prompt_embeds.to(dtype))
                self._of |= {text: made[i : i + 1] for i, text in enumerate(part)}

    def __getitem__(self, texts: Sequence[str]) -> TextCondition:
        """Float32, a row for each text."""
        rows = TextCondition.cat([self._of[text] for text in texts])
        return TextCondition(rows.prompt_embeds.float(), rows.pooled_prompt_embeds.float())
