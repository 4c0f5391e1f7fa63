"""The world's CLIP, loaded once: image and text embeddings for the metrics that stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file

from bench.backbone.loader import quiet
from benchmarks.pretrain_clip import MAX_TOKENS, image_embeds, pixel_embeds

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

FOLDER = Path(__file__).parent / "world_clip_weights"


@cache
def model() -> CLIPModel:
    """The judge of the embedded world, loaded once and frozen."""
    from transformers import CLIPModel

    quiet()
    return CLIPModel.from_pretrained(FOLDER).eval().requires_grad_(False)


@cache
def _tokenizer() -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(FOLDER)


@cache
def aesthetic_head() -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (1, 96) and bias (1,) of the linear head."""
    tensors = load_file(FOLDER / "aesthetic_head.safetensors")
    return tensors["weight"], tensors["bias"]


def embed_images(images: Sequence[np.ndarray]) -> torch.Tensor:
    """L2-normalised embeddings (N, 96) of uint8 (64, 64, 3) pictures, in batches of 128."""
    parts = [np.stack(images[i : i + 128]) for i in range(0, len(images), 128)]
    return torch.cat([image_embeds(model(), part) for part in parts])


def embed_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """L2-normalised embeddings (N, 96) of pictures (N, 3, 64, 64) in [0, 1], with a gradient to them."""
    return pixel_embeds(model(), 2 * pixels.cpu() - 1)


@torch.no_grad()
def embed_texts(texts: Sequence[str]) -> torch.Tensor:
    """L2-normalised embeddings (N, 96) of texts."""
    ids = _tokenizer()(list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    embeds = model().get_text_features(input_ids=ids.input_ids)
    embeds = getattr(embeds, "pooler_output", embeds)
    return torch.nn.functional.normalize(embeds, dim=-1)


@cache
def vision_flops() -> float:
    """FLOPs of embedding one picture."""
    from bench.flops import count, meta_twin

    twin = meta_twin(model())
    side = model().config.vision_config.image_size
    pixels = torch.empty(1, 3, side, side, device="meta")
    return count(lambda: twin.get_image_features(pixel_values=pixels))  # type: ignore[operator]
