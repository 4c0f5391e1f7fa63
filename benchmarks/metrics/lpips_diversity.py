"""How much the pictures of a prompt differ to the eye, by LPIPS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from benchmarks import lpips
from benchmarks.diversity import Diversity

SIDE = 512
"""Of the pictures that ``flops_per_image`` counts: the paper's."""


class LpipsDiversity(Diversity):
    """Mean LPIPS (0.1, AlexNet) over all pairs of a prompt's n pictures, from 0 (all alike) upwards.

    2 / (n (n - 1)) · Σ_{i<j} LPIPS(x_i, x_j), on pictures at the size they have. The SOAR paper plans to measure
    "per-prompt LPIPS variance" (arXiv 2604.12617, section 3.5, Q3) and does not say of what. LPIPS is a squared
    Euclidean distance between weighted features, so the mean over pairs is exactly twice the unbiased variance of the
    pictures in that space: this is that variance in LPIPS's own units. It does not depend on n in expectation.
    """

    name = "lpips_diversity"
    label = "LPIPS diversity"
    version = 1
    low = 0.0
    assets: ClassVar = lpips.ASSETS

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        return lpips.flops(SIDE)

    def prepare(self) -> None:
        """Load the model. Raises BenchError with how to get what is missing."""
        lpips.load()

    def release(self) -> None:
        lpips.forget()

    def spread(self, images: Sequence[np.ndarray]) -> float:
        distances = lpips.load().distances(images)
        return float(distances.sum() / (len(images) * (len(images) - 1)))
