"""Mean brightness of a picture, which drifts when a reward is hacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks.luma import luma


class Brightness(Metric):
    """Mean luma of a picture, from 0 (black) to 1 (white).

    To be read against the base model's; the prompt is not read.
    """

    name = "brightness"
    label = "Brightness"
    version = 1
    low, high = 0.0, 1.0
    ranked = False

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [float(luma(image).mean()) for image in images]
