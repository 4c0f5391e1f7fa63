"""LAION's aesthetic predictor: an MLP on the picture embedding of OpenAI's CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench import assets
from bench.errors import BenchError
from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import clip_vit, inference

ASSET = "aesthetic_head"
WIDTH = 768
"""Of CLIP L/14's embedding, which the head was fitted to."""


class Head(nn.Module):
    """Linear layers 768-1024-128-64-16-1 without activations between them, as the checkpoint's names number them.

    Source: christophschuhmann/improved-aesthetic-predictor @ 6934dd8, ``simple_inference.py``; the dropouts are idle
    here but count in the names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, embeds: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of L2-normalised embeddings (N, 768)."""
        scores: torch.Tensor = self.layers(embeds)
        return scores[:, 0]


@cache
def load_head(path: Path) -> Head:
    """Read a head; nothing but tensors is unpickled. BenchError for a checkpoint of another architecture."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        head = Head()
        head.load_state_dict(weights)
    except inference.UNREAD as error:
        raise BenchError(f"{path} is no aesthetic head of linear layers {WIDTH}-1024-128-64-16-1") from error
    return head.eval().requires_grad_(False)


class Aesthetic(Metric):
    """How people rated pictures like this one, about 5 to 6 for generated ones and not clamped. The prompt is not read.

    The checkpoint is ``sac+logos+ava1-l14-linearMSE``, its value raw. Version 1 prepares pictures as openai/CLIP does,
    and so does the paper's release (HY-SOAR @ 59f0e02: ``CLIPProcessor`` of transformers 4.40, which resizes in PIL).
    """

    name = "aesthetic"
    label = "Aesthetic"
    version = 1
    digits = 2
    assets: ClassVar = (clip_vit.ASSET, ASSET)
    differentiable = True

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        return clip_vit.vision_flops() + _head_flops()

    def prepare(self) -> None:
        """Load both models. Raises BenchError with how to get what is missing."""
        self._models()

    def release(self) -> None:
        """Free the CLIP, for every metric that stands on it; the head is small."""
        clip_vit.forget()

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        clip, head = self._models()
        with torch.no_grad(), inference.exact():
            return [float(score) for score in head(clip.embed_images(images))]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As ``score``, resized as tensors and not rounded to 8 bits: within 2e-3 on the tests' models."""
        clip, head = self._models()
        embeds = clip.embed_pixels(pixels)
        with inference.exact():
            scores: Tensor = head(embeds.cpu())
        return scores.to(pixels.device)

    def _models(self) -> tuple[clip_vit.ClipViT, Head]:
        head = load_head(assets.path(ASSET))
        clip = clip_vit.load()
        if clip.width != WIDTH:
            raise BenchError(f"the aesthetic head takes embeddings of width {WIDTH}; this CLIP's have {clip.width}")
        return clip, head


@cache
def _head_flops() -> float:
    from bench.flops import count

    with torch.device("meta"):
        head, embeds = Head().eval(), torch.empty(1, WIDTH)
    with torch.no_grad():
        return count(lambda: head(embeds))
