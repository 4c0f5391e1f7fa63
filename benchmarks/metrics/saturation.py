"""Mean saturation of a picture's colours, which drifts when a reward is hacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt


class Saturation(Metric):
    """Mean HSV saturation of a picture's pixels, from 0 (grey) to 1 (pure colours).

    A pixel's is (largest - smallest channel) / largest, and 0 where all are 0 (Smith 1978, "Color gamut transform
    pairs"). To be read against the base model's; the prompt is not read.
    """

    name = "saturation"
    label = "Saturation"
    version = 1
    low, high = 0.0, 1.0
    ranked = False

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [_saturation(image) for image in images]


def _saturation(image: np.ndarray) -> float:
    largest, smallest = image.max(axis=-1).astype(np.float64), image.min(axis=-1)
    return float(((largest - smallest) / np.maximum(largest, 1)).mean())
