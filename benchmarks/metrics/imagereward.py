"""ImageReward v1.0, BLIP fitted to people's rankings of generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import inference
from benchmarks.blip_reward import BlipReward


class ImageReward(Metric):
    """How well people like a picture for its prompt; about -2 to 2, normalised to mean 0 and deviation 1 over its data.

    Source: Xu et al. 2023 (arXiv 2304.05977), image-reward 1.5 ``ImageReward.score``: each picture with its own prompt,
    cut at 35 tokens; pictures resized bicubically in PIL to 224 px and cropped; ``(r - 0.16717) / 1.03334``. The
    paper's release scores every picture with every prompt of a batch and keeps the diagonal: the same number.
    """

    name = "imagereward"
    label = "ImageReward"
    version = 1
    assets: ClassVar = ("imagereward_v1", "bert_vocabulary")
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        """Both encoders', since the text is read together with its picture."""
        return self._model().flops

    def prepare(self) -> None:
        """Load the model. Raises BenchError with how to get what is missing."""
        self._model()

    def release(self) -> None:
        inference.forget(BlipReward, *self.assets)

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [float(reward) for reward in self._model().score(images, [prompt.text for prompt in prompts])]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, resized as tensors and not rounded to 8 bits: within 5e-3 on the tests' models."""
        return self._model().score_pixels(pixels, [prompt.text for prompt in prompts]).to(pixels.device)

    def _model(self) -> BlipReward:
        return inference.loaded(BlipReward, *self.assets)
