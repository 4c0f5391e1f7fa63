"""ClipScore as the SOAR release computes it, to compare with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from bench.suite import Prompt
from benchmarks import clip_vit
from benchmarks.metrics.clipscore import ClipScore


class ClipScoreReleased(ClipScore):
    """``exp(logit_scale)·cos / 100`` by openai/clip-vit-large-patch14, pictures resized bilinearly as tensors.

    The model's scale is 100, so that this is the cosine. Source: HY-SOAR @ 59f0e02, ``soar/flow_grpo/clip_scorer.py``.
    torchvision resizes bilinearly there because its ``Resize`` was not told otherwise, antialiased since torchvision
    0.17 (the release pins 0.21). The release gives it pictures that were never 8-bit; here they are.
    """

    name = "clipscore_released"
    label = "ClipScore (released)"
    version = 1

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        clip = clip_vit.load()
        cosines = (clip.embed_images_as_tensors(images, "bilinear") * clip.embed_prompts(prompts)).sum(1)
        return [float(cosine) for cosine in cosines * clip.scale / 100]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, which computes on tensors too: equal to it on 8-bit pictures, to float32 round-off."""
        clip = clip_vit.load()
        embeds = clip.embed_pixels(pixels, "bilinear")
        return ((embeds * clip.embed_prompts(prompts).to(embeds)).sum(1) * clip.scale / 100).to(pixels.device)
