"""Vendi score of the pictures of a prompt, on the embeddings of the world's CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import world_clip
from benchmarks.diversity import Diversity
from benchmarks.vendi import vendi_score


class WorldVendi(Diversity):
    """How many different pictures a prompt's n pictures amount to, from 1 to n, by the embedded world's CLIP.

    ``vendi`` with another embedding; the two are not comparable. Compare values of the same n only.
    """

    name = "world_vendi"
    label = "Vendi"
    version = 2
    low = 1.0

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        return world_clip.vision_flops()

    def spread(self, images: Sequence[np.ndarray]) -> float:
        return vendi_score(world_clip.embed_images(images))
