"""What metrics of diversity share: one number for all pictures of a prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt


class Diversity(Metric):
    """A metric of how much the pictures of one prompt differ. The prompt's text is not read."""

    per_prompt = True

    @abstractmethod
    def spread(self, images: Sequence[np.ndarray]) -> float:
        """The number for two or more uint8 pictures (H, W, 3)."""

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        """The same number for each picture. ValueError for one picture alone, and for pictures of several prompts."""
        texts = {prompt.text for prompt in prompts}
        if len(images) < 2 or len(texts) > 1:
            raise ValueError(
                f"{self.name} compares two or more pictures of one prompt; here are {len(images)} of {len(texts)}"
            )
        return [self.spread(images)] * len(images)
