"""Pictures and captions through a backbone's encoders, so that a row does not depend on its neighbours in a batch.

The kernels of a matrix product or convolution are chosen by the size of the batch, and sums come out in another order
with another kernel: on the CPU, latents of a batch of 1 differ from those of a batch of 8 by 4e-6. Batches of one size,
the last one padded, give the same bits whatever is encoded together: in one process or several, from a cache or ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.backbone.loader import at_once

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone

TEXT_BATCH = 16
"""Captions encoded at once. On the CPU 16 take 1.4 times as long per caption as 256, 1 takes 8 times as long."""


def encode_pictures(backbone: Backbone, images: np.ndarray) -> Tensor:
    """Float32 latents (N, C, H, W) of uint8 pictures (N, height, width, 3)."""
    batch = at_once(*images.shape[1:3])
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padding = np.repeat(part[-1:], batch - len(part), axis=0)
        parts.append(backbone.encode_images(np.concatenate([part, padding]))[: len(part)])
    return torch.cat(parts)


def encode_texts(backbone: Backbone, texts: Sequence[str], dtype: torch.dtype) -> TextCondition:
    """Conditions of captions in ``dtype``."""
    parts = []
    for start in range(0, len(texts), TEXT_BATCH):
        part = list(texts[start : start + TEXT_BATCH])
        padding = part[-1:] * (TEXT_BATCH - len(part))
        condition = backbone.encode_prompts(part + padding)[: len(part)]
        parts.append(TextCondition(condition.prompt_embeds.to(dtype), condition.pooled_prompt_embeds.to(dtype)))
    return TextCondition.cat(parts)
