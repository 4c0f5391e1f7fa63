"""Contrast of a picture, which drifts when a reward is hacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks.luma import luma


class Contrast(Metric):
    """Standard deviation of a picture's luma, from 0 (constant) to 0.5 (half black, half white).

    Known as RMS contrast (Peli 1990, "Contrast in complex images"). To be read against the base model's; the prompt is
    not read.
    """

    name = "contrast"
    label = "Contrast"
    version = 1
    low, high = 0.0, 0.5
    ranked = False

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [float(luma(image).std()) for image in images]
