"""What metrics of legible text have in common: an engine reads a picture once, and a formula scores it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks.ocr import ocr_accuracy, wanted_text
from benchmarks.remembered import BATCHES, Remembered, digest


class OCRAccuracy(Metric):
    """How much of the text in the prompt's quotes an engine reads, in [0, 1]. Formula: ``benchmarks/ocr.py``."""

    low, high = 0.0, 1.0
    needs_facts: ClassVar = ("word",)

    def __init__(self) -> None:
        self._texts: Remembered[str] = Remembered(BATCHES)

    @abstractmethod
    def read(self, image: np.ndarray) -> str:
        """Everything the engine reads in a uint8 (H, W, 3) picture, in its order, joined."""

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [
            ocr_accuracy(self._text(image), wanted_text(prompt.text))
            for image, prompt in zip(images, prompts, strict=True)
        ]

    def observations(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[str]:
        return [f'"{text}"' if (text := self._text(image)) else "no text" for image in images]

    def _text(self, image: np.ndarray) -> str:
        return self._texts.get(digest(image), lambda: self.read(image))
