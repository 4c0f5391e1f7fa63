"""Aspect-ratio buckets: the few shapes that pictures of all shapes are brought to, so that a batch can be stacked."""

from __future__ import annotations

import math
from functools import cache

STEP, FINE_STEP = 64, 16
"""Sides are multiples of 64 px (SDXL, arXiv:2307.01952, section 2.3). Below 256 px that would leave squares only, so
multiples of 16 there: a latent side is 8 times smaller and the transformer takes patches of two."""

WIDEST = 4.0
"""Longest side over shortest; SDXL's list of buckets (appendix I) goes from 0.25 to 4."""

AREA_ERROR = 0.25
"""A bucket further than this from resolution² is no bucket; it happens only where a side is a step or two."""


@cache
def buckets(resolution: int) -> tuple[tuple[int, int], ...]:
    """Every (width, height) in pixels for pictures of about ``resolution``² pixels, from tall to wide.

    SD3 is trained on batches of one shape with H·W ≈ S² (arXiv:2403.03206, section 5.3.2, "Positional encodings for
    varying aspect ratios"): each width takes the height that comes nearest, and the other way round. The resolution's
    own square is always there.
    """
    step = STEP if resolution >= 4 * STEP else FINE_STEP
    side = resolution / step
    sizes = {(resolution, resolution)}
    for long in range(math.ceil(side), math.floor(side * math.sqrt(WIDEST)) + 1):
        short = max(1, round(side * side / long))
        if 1 < long / short <= WIDEST and abs(long * short / side**2 - 1) <= AREA_ERROR:
            sizes |= {(long * step, short * step), (short * step, long * step)}
    return tuple(sorted(sizes, key=lambda size: (size[0] / size[1], size)))


def nearest(width: float, height: float, resolution: int) -> tuple[int, int]:
    """The bucket whose aspect ratio is nearest to a picture's, on the logarithm so that tall and wide count alike."""
    ratio = math.log(width / height)
    return min(buckets(resolution), key=lambda size: abs(math.log(size[0] / size[1]) - ratio))
