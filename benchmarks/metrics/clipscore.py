"""ClipScore by OpenAI's CLIP ViT-L/14, as in the SOAR paper's suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import clip_vit


class ClipScore(Metric):
    """Cosine of picture and prompt embeddings of openai/clip-vit-large-patch14, in [-1, 1]; about 0.2 to 0.35.

    No factor of 2.5 and no clamping (Hessel et al. 2021 have both). Version 1 prepares pictures as openai/CLIP does,
    bicubic in PIL; ``clipscore_released`` resizes tensors bilinearly, as the paper's release does. A prompt is cut at
    77 tokens.
    """

    name = "clipscore"
    label = "ClipScore"
    version = 1
    low, high = -1.0, 1.0
    assets: ClassVar = (clip_vit.ASSET,)
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        """The picture tower's; a prompt is embedded once for all its pictures, and its share is not charged."""
        return clip_vit.vision_flops()

    def prepare(self) -> None:
        """Load the model. Raises BenchError with how to get it where it is missing."""
        clip_vit.load()

    def release(self) -> None:
        """Free the model, for every metric that stands on it."""
        clip_vit.forget()

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        clip = clip_vit.load()
        cosines = (clip.embed_images(images) * clip.embed_prompts(prompts)).sum(1)
        return [float(cosine) for cosine in cosines]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, resized as tensors and not rounded to 8 bits: within 1e-4 on the tests' models."""
        clip = clip_vit.load()
        embeds = clip.embed_pixels(pixels)
        return (embeds * clip.embed_prompts(prompts).to(embeds)).sum(1).to(pixels.device)
