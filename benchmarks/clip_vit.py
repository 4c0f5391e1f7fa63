"""A CLIP of transformers, loaded once: picture and text embeddings for the metrics that stand on one.

What is part of those metrics' version 1: pictures prepared as openai/CLIP prepares them (shorter side to the model's
size with PIL's bicubic filter on 8-bit pixels, centre crop, CLIP's mean and deviation), float32 without TF32 or
autocast, texts cut at the model's 77 tokens. ``CLIPImageProcessor`` of transformers 5 resizes tensors instead and gives
other numbers; ``CLIPImageProcessorPil`` is the one used here.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from bench.suite import Prompt
from benchmarks import inference, pixels

ASSET = "clip_vit_l14"
"""OpenAI's CLIP ViT-L/14, which clipscore and aesthetic stand on."""


class ClipViT:
    """A CLIP on the current GPU, or on the CPU where there is none.

    Args:
        folder: of a transformers CLIP: config, safetensors weights, tokenizer, preprocessor.
        processor: folder of the tokenizer and the preprocessor, where ``folder`` has none.

    Raises:
        BenchError: the folder holds something else, or weights that do not fill the model.
    """

    def __init__(self, folder: Path, processor: Path | None = None) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        quiet()
        _config(folder)
        self.device = inference.device()
        beside = processor or folder
        try:
            model, info = CLIPModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _no_clip(folder, str(error)) from error
        try:
            self.processor: Any = CLIPImageProcessorPil.from_pretrained(beside, local_files_only=True)
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(beside, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise _no_clip(beside, str(error)) from error
        if absent := sorted(info["missing_keys"]):
            raise _no_clip(folder, f"{len(absent)} of its weights are absent, {absent[0]} first")
        self.model: Any = model.eval().requires_grad_(False).to(self.device)
        self.side: int = model.config.vision_config.image_size
        self.tokens: int = model.config.text_config.max_position_embeddings
        self.width: int = model.config.projection_dim
        self.scale = float(model.logit_scale.detach().exp())

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """What the picture tower is given for uint8 (H, W, 3) pictures of any size: float32 (N, 3, side, side)."""
        from PIL import Image

        inference.check_pictures(images)
        prepared: Tensor = self.processor([Image.fromarray(im) for im in images], return_tensors="pt").pixel_values
        return prepared

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """L2-normalised embeddings of uint8 (H, W, 3) pictures: float32 (N, width) on the CPU."""
        return inference.in_batches(lambda part: self.embed_prepared(self.prepare(part)), images)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised embeddings of texts: float32 (N, width) on the CPU. Padding is the same in every batch."""

        def embed(part: Sequence[str]) -> Tensor:
            ids = self.tokenizer(
                list(part), padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
            ).to(self.device)
            return _normalised(self.model.get_text_features(input_ids=ids.input_ids, attention_mask=ids.attention_mask))

        return inference.in_batches(embed, texts)

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Tensor:
        """A row of ``embed_texts`` for each prompt."""
        return inference.once_per_text(self.embed_texts, prompts)

    def embed_prepared(self, prepared: Tensor) -> Tensor:
        """L2-normalised embeddings (N, width) of prepared pictures, on the model's device, all at once."""
        return _normalised(self.model.get_image_features(pixel_values=prepared.to(self.device)))

    def embed_pixels(self, pictures: Tensor, mode: str = "bicubic") -> Tensor:
        """``embed_images`` for tensors (N, 3, H, W) in [0, 1], resized as tensors, with a gradient to them."""
        with inference.exact():
            return self.embed_prepared(self._fit(pictures, mode))

    def embed_images_as_tensors(self, images: Sequence[np.ndarray], mode: str) -> Tensor:
        """``embed_images``, but resized as ``embed_pixels`` does."""
        inference.check_pictures(images)
        return inference.in_batches(
            lambda part: self.embed_prepared(torch.cat([self._fit(pixels.from_picture(im), mode) for im in part])),
            images,
        )

    def _fit(self, pictures: Tensor, mode: str) -> Tensor:
        resized = pixels.shorter_side(pictures.to(self.device).float(), self.side, mode)
        return pixels.normalised(pixels.centre(resized, self.side))


def load(weights: str = ASSET, *processor: str) -> ClipViT:
    """The CLIP of an asset or its stand-in, with the asset that holds its tokenizer and preprocessor, if another."""
    return inference.loaded(ClipViT, weights, *processor)


def forget(weights: str = ASSET, *processor: str) -> None:
    """Free what ``load`` holds."""
    inference.forget(ClipViT, weights, *processor)


def vision_flops(weights: str = ASSET) -> float:
    """FLOPs of embedding one picture, from the configuration alone."""
    return _vision_flops(assets.path(weights).resolve())


@cache
def _vision_flops(folder: Path) -> float:
    from transformers import CLIPModel

    from bench.flops import count

    config = _config(folder)
    with torch.device("meta"):
        twin: Any = CLIPModel(config).eval()
        picture = torch.empty(1, 3, config.vision_config.image_size, config.vision_config.image_size)
    with torch.no_grad():
        return count(lambda: twin.get_image_features(pixel_values=picture))


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


def _normalised(features: Any) -> Tensor:
    features = getattr(features, "pooler_output", features)  # transformers 5 wraps them, 4 did not
    return torch.nn.functional.normalize(features.float(), dim=-1)
