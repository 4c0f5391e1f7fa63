"""PickScore v1, a CLIP ViT-H/14 fitted to people's choices between generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import clip_vit


class PickScore(Metric):
    """``exp(logit_scale)·cos`` of picture and prompt by yuvalkirstain/PickScore_v1; about 18 to 24.

    Source: Kirstain et al. 2023 (arXiv 2305.01569) and the model card's script, with the tokenizer and preprocessor of
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K. The paper's release divides by 26 to train on it; tables print the undivided
    value, as here. Version 1 prepares pictures in PIL, in float32.
    """

    name = "pickscore"
    label = "PickScore"
    version = 1
    digits = 2
    assets: ClassVar = ("pickscore_v1", "clip_vit_h14_processor")
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        """The picture tower's; a prompt is embedded once for all its pictures, and its share is not charged."""
        return clip_vit.vision_flops(self.assets[0])

    def prepare(self) -> None:
        """Load the model. Raises BenchError with how to get it where it is missing."""
        clip_vit.load(*self.assets)

    def release(self) -> None:
        clip_vit.forget(*self.assets)

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        clip = clip_vit.load(*self.assets)
        cosines = (clip.embed_images(images) * clip.embed_prompts(prompts)).sum(1)
        return [float(score) for score in clip.scale * cosines]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, resized as tensors and not rounded to 8 bits: cosines within 1e-4 on the tests' models."""
        clip = clip_vit.load(*self.assets)
        embeds = clip.embed_pixels(pixels)
        return (clip.scale * (embeds * clip.embed_prompts(prompts).to(embeds)).sum(1)).to(pixels.device)
