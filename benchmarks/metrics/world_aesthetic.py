"""Aesthetic score on the shape world: a linear head on the world CLIP's picture embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import world_clip


class WorldAesthetic(Metric):
    """How shaded, shadowed, harmonious and balanced a picture is: about 0 (flat) to 10, not clamped.

    The head was fitted to 10 x the style with which training scenes were drawn, as the LAION predictor was fitted to
    people's ratings (christophschuhmann/improved-aesthetic-predictor). The prompt is not looked at.
    """

    name = "world_aesthetic"
    label = "Aesthetic"
    version = 2
    digits = 2
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        return world_clip.vision_flops()

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        weight, bias = world_clip.aesthetic_head()
        return [float(v) for v in (world_clip.embed_images(images) @ weight.T + bias)[:, 0]]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, not rounded to 8 bits."""
        weight, bias = world_clip.aesthetic_head()
        return (world_clip.embed_pixels(pixels) @ weight.T + bias)[:, 0].to(pixels.device)
