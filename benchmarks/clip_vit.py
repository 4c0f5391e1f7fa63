"""OpenAI's CLIP ViT-L/14, loaded once: picture and text embeddings for the metrics that stand on it.

What is part of those metrics' version 1: pictures prepared as openai/CLIP prepares them (shorter side to the model's
size with PIL's bicubic filter on 8-bit pixels, centre crop, CLIP's mean and deviation), float32 without TF32 or
autocast, texts cut at the model's 77 tokens. ``CLIPImageProcessor`` of transformers 5 resizes tensors instead and gives
other numbers; ``CLIPImageProcessorPil`` is the one used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from bench import assets
from bench.backbone.loader import quiet
from bench.errors import BenchError

ASSET = "clip_vit_l14"
BATCH = 32
"""Pictures or texts embedded at once: about 1 GB of activations on a GPU."""


class ClipViT:
    """A CLIP on the current GPU, or on the CPU where there is none.

    Args:
        folder: of a transformers CLIP: config, safetensors weights, tokenizer, preprocessor.

    Raises:
        BenchError: the folder holds something else, or weights that do not fill the model.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        quiet()
        _config(folder)
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        try:
            model, info = CLIPModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
            self.processor: Any = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _no_clip(folder, str(error)) from error
        if absent := sorted(info["missing_keys"]):
            raise _no_clip(folder, f"{len(absent)} of its weights are absent, {absent[0]} first")
        self.model: Any = model.eval().requires_grad_(False).to(self.device)
        self.tokens: int = model.config.text_config.max_position_embeddings
        self.width: int = model.config.projection_dim

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """What the picture tower is given for uint8 (H, W, 3) pictures of any size: float32 (N, 3, side, side)."""
        from PIL import Image

        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"a picture is {image.dtype} {image.shape} and not uint8 (H, W, 3)")
        pixels: Tensor = self.processor([Image.fromarray(image) for image in images], return_tensors="pt").pixel_values
        return pixels

    @torch.no_grad()
    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """L2-normalised embeddings of uint8 (H, W, 3) pictures: float32 (N, width) on the CPU."""
        with exact():
            return _batched(
                lambda part: self.model.get_image_features(pixel_values=self.prepare(part).to(self.device)), images
            )

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised embeddings of texts: float32 (N, width) on the CPU. Padding is the same in every batch."""

        def embed(part: Sequence[str]) -> Any:
            ids = self.tokenizer(
                list(part), padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
            ).to(self.device)
            return self.model.get_text_features(input_ids=ids.input_ids, attention_mask=ids.attention_mask)

        with exact():
            return _batched(embed, texts)


def load() -> ClipViT:
    """The asset's CLIP, or its stand-in's; loaded once per process, however many metrics ask."""
    return _loaded(assets.path(ASSET).resolve())


_loaded = cache(ClipViT)


def vision_flops() -> float:
    """FLOPs of embedding one picture, from the configuration alone."""
    return _vision_flops(assets.path(ASSET).resolve())


@cache
def _vision_flops(folder: Path) -> float:
    from transformers import CLIPModel

    from bench.flops import count

    config = _config(folder)
    with torch.device("meta"):
        twin: Any = CLIPModel(config).eval()
        pixels = torch.empty(1, 3, config.vision_config.image_size, config.vision_config.image_size)
    with torch.no_grad():
        return count(lambda: twin.get_image_features(pixel_values=pixels))


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _no_clip(folder, str(error)) from error
    if config.model_type != "clip":
        raise _no_clip(folder, f"its config.json says {config.model_type!r}")
    return config


def _no_clip(folder: Path, reason: str) -> BenchError:
    return BenchError(f"{folder} is no CLIP model that transformers can load: {reason.strip().splitlines()[0]}")


def _batched(embed: Any, items: Sequence[Any]) -> Tensor:
    parts = []
    for start in range(0, len(items), BATCH):
        features = embed(items[start : start + BATCH])
        features = getattr(features, "pooler_output", features)  # transformers 5 wraps them, 4 did not
        parts.append(torch.nn.functional.normalize(features.float(), dim=-1).cpu())
    return torch.cat(parts)


@contextmanager
def exact() -> Iterator[None]:
    """Plain float32, whatever precision the training around a reward has chosen."""
    places: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed
