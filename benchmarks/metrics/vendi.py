"""Vendi score of the pictures of a prompt, on CLIP's embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from benchmarks import clip_vit
from benchmarks.diversity import Diversity
from benchmarks.vendi import vendi_score


class Vendi(Diversity):
    """How many different pictures a prompt's n pictures amount to, from 1 to n.

    Vendi score (``benchmarks/vendi.py``) of the picture embeddings of openai/clip-vit-large-patch14, prepared as
    ``clipscore`` prepares them. It depends on n and on the embedding, which the Vendi paper leaves to the user: compare
    values of the same n only. The SOAR paper plans a "distribution-level Vendi Score" (arXiv 2604.12617, section 3.5,
    Q3); this one is of each prompt's pictures, so that different prompts cannot pass for diversity.
    """

    name = "vendi"
    label = "Vendi"
    version = 1
    low = 1.0
    assets: ClassVar = (clip_vit.ASSET,)

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        return clip_vit.vision_flops()

    def prepare(self) -> None:
        """Load the model. Raises BenchError with how to get it where it is missing."""
        clip_vit.load()

    def release(self) -> None:
        """Free the model, for every metric that stands on it."""
        clip_vit.forget()

    def spread(self, images: Sequence[np.ndarray]) -> float:
        return vendi_score(clip_vit.load().embed_images(images))
