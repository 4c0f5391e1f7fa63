"""Sharpness of a picture, which falls where guidance is missing or a reward washes details out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks.luma import luma


class Sharpness(Metric):
    """Mean modified Laplacian of a picture's luma, from 0 (no detail) to 4 (a chequerboard of black and white pixels).

    |2 Y(x, y) - Y(x-1, y) - Y(x+1, y)| + |2 Y(x, y) - Y(x, y-1) - Y(x, y+1)|, averaged over the pixels that have all
    four neighbours (Nayar and Nakagawa 1994, "Shape from focus", doi:10.1109/34.308479, with a step of one pixel).
    Noise counts as detail, and the value depends on the resolution. To be read against the base model's; the prompt is
    not read.
    """

    name = "sharpness"
    label = "Sharpness"
    version = 1
    low, high = 0.0, 4.0
    ranked = False

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [_sharpness(luma(image)) for image in images]


def _sharpness(light: np.ndarray) -> float:
    inner = 2 * light[1:-1, 1:-1]
    across = np.abs(inner - light[1:-1, :-2] - light[1:-1, 2:])
    down = np.abs(inner - light[:-2, 1:-1] - light[2:, 1:-1])
    return float((across + down).mean())
