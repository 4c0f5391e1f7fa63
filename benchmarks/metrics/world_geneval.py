"""GenEval on the shape world: exact detection, scored by GenEval's own rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks.geneval_rule import Detection, in_words, is_correct
from benchmarks.remembered import BATCHES, Remembered, digest
from benchmarks.shape_detector import detect


class WorldGenEval(Metric):
    """Share of pictures that show what the prompt says: 0 or 1 per picture, overall = mean of six task means.

    Source of the rule: djghosh13/geneval @ af4902f; of the overall score: Flow-GRPO and the SOAR paper.
    Facts: ``include`` and ``exclude`` clauses. Version 2: twelve shapes and ten colours.
    """

    name = "world_geneval"
    label = "GenEval"
    version = 2
    low, high = 0.0, 1.0
    grouped = True
    needs_facts: ClassVar = ("include",)

    def __init__(self) -> None:
        self._found: Remembered[list[Detection]] = Remembered(BATCHES)

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [
            float(is_correct(self._detect(image), prompt.facts["include"], prompt.facts.get("exclude", ())))
            for image, prompt in zip(images, prompts, strict=True)
        ]

    def observations(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[str]:
        return [
            in_words(self._detect(image), prompt.facts["include"])
            for image, prompt in zip(images, prompts, strict=True)
        ]

    def _detect(self, image: np.ndarray) -> list[Detection]:
        return self._found.get(digest(image), lambda: detect(image))
