"""ClipScore on the shape world, by a small CLIP trained on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import inference, world_clip


class WorldClipScore(Metric):
    """Cosine of picture and prompt embeddings, in [-1, 1].

    As in the SOAR paper's suite: no factor of 2.5 and no clamping (Hessel et al. 2021 have both).
    """

    name = "world_clipscore"
    label = "ClipScore"
    version = 2
    low, high = -1.0, 1.0
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        return world_clip.vision_flops()

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        text_embeds = inference.once_per_text(world_clip.embed_texts, prompts)
        return [float(v) for v in (world_clip.embed_images(images) * text_embeds).sum(1)]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, not rounded to 8 bits."""
        text_embeds = inference.once_per_text(world_clip.embed_texts, prompts)
        return (world_clip.embed_pixels(pixels) * text_embeds).sum(1).to(pixels.device)
