"""HPS v2.1, open_clip's ViT-H-14 fitted to people's choices between generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import inference
from benchmarks.open_clip_model import OpenClip


class HPSv2(Metric):
    """Cosine of picture and prompt by ``HPS_v2.1_compressed.pt``, in [-1, 1]; about 0.2 to 0.35.

    Source: Wu et al. 2023 (arXiv 2306.09341), hpsv2x 1.2.0 ``img_score.py`` with ``light_augmentation``. Pictures are
    resized there after they became tensors: bicubic until the longer side fits, then black on both sides of the shorter
    one. Version 1 does that antialiased, as torchvision has done since 0.17, and so does the paper's release (HY-SOAR @
    59f0e02, ``hpsv2_scorer.py``). It computes in float32; the package autocasts to float16 on a GPU, and not on a CPU.
    """

    name = "hpsv2"
    label = "HPSv2.1"
    version = 1
    low, high = -1.0, 1.0
    digits = 4
    assets: ClassVar = ("hpsv2_1",)
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        """The picture tower's; a prompt is embedded once for all its pictures, and its share is not charged."""
        return self._model().vision_flops

    def prepare(self) -> None:
        """Load the model. Raises BenchError with how to get it where it is missing."""
        self._model()

    def release(self) -> None:
        inference.forget(OpenClip, *self.assets)

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        model = self._model()
        cosines = (model.embed_images(images) * model.embed_prompts(prompts)).sum(1)
        return [float(cosine) for cosine in cosines]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, which computes on tensors too: equal to it on 8-bit pictures, to float32 round-off."""
        model = self._model()
        embeds = model.embed_pixels(pixels)
        return (embeds * model.embed_prompts(prompts).to(embeds)).sum(1).to(pixels.device)

    def _model(self) -> OpenClip:
        return inference.loaded(OpenClip, *self.assets)
