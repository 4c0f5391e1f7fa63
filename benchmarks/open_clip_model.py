"""open_clip's ViT-H-14 from a checkpoint: picture and text embeddings for HPSv2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.suite import Prompt
from benchmarks import inference, pixels

PICTURE_HEAD, TEXT_HEAD = 80, 64
"""Width of an attention head: the one size of ViT-H-14 that its weights do not show."""


class OpenClip:
    """A CLIP with ViT-H-14's heads on the current GPU, or on the CPU; its other sizes are read from its weights.

    Args:
        checkpoint: of ``torch.save`` with the weights under ``state_dict``. Nothing but tensors is unpickled.

    Raises:
        BenchError: the file holds something else.
    """

    def __init__(self, checkpoint: Path) -> None:
        import open_clip

        try:
            weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
            sizes = sizes_of(weights)
            with torch.device("meta"):
                model: Any = open_clip.CLIP(**sizes)
            model.load_state_dict(weights, assign=True)
        except inference.UNREAD as error:
            reason = inference.why_unread(error)
            raise BenchError(f"{checkpoint} is no checkpoint of open_clip's ViT-H-14: {reason}") from error
        model.attn_mask = torch.full((model.context_length,) * 2, -torch.inf).triu(1)  # no weight, so not in the file
        self.device = inference.device()
        self.model: Any = model.float().eval().requires_grad_(False).to(self.device)
        self.side: int = sizes["vision_cfg"]["image_size"]
        self.tokenizer: Any = open_clip.SimpleTokenizer(context_length=model.context_length)
        self._sizes = sizes

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """L2-normalised embeddings of uint8 (H, W, 3) pictures: float32 (N, width) on the CPU."""
        inference.check_pictures(images)
        return inference.in_batches(
            lambda part: self._embed(torch.cat([self._fit(pixels.from_picture(image)) for image in part])), images
        )

    def embed_pixels(self, pictures: Tensor) -> Tensor:
        """The same on the model's device for pictures (N, 3, H, W) in [0, 1], with a gradient to them."""
        with inference.exact():
            return self._embed(self._fit(pictures))

    def _fit(self, pictures: Tensor) -> Tensor:
        return pixels.normalised(pixels.longest_side(pictures.to(self.device).float(), self.side))

    def _embed(self, prepared: Tensor) -> Tensor:
        features: Tensor = self.model.encode_image(prepared, normalize=True)
        return features

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Tensor:
        """L2-normalised embeddings of the prompts' texts: float32 (N, width) on the CPU, cut at the model's tokens."""

        def embed(part: list[str]) -> Tensor:
            features: Tensor = self.model.encode_text(self.tokenizer(part).to(self.device), normalize=True)
            return features

        return inference.once_per_text(lambda texts: inference.in_batches(embed, texts), prompts)

    @cached_property
    def vision_flops(self) -> float:
        """FLOPs of embedding one picture."""
        import open_clip

        from bench.flops import count

        with torch.device("meta"):
            twin = open_clip.CLIP(**self._sizes)
            picture = torch.empty(1, 3, self.side, self.side)
        return count(lambda: twin.encode_image(picture))


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``open_clip.CLIP`` that fit these weights. KeyError where one is absent."""
    patches = weights["visual.conv1.weight"]
    text = weights["token_embedding.weight"]
    places = len(weights["visual.positional_embedding"]) - 1
    if patches.shape[0] % PICTURE_HEAD or text.shape[1] % TEXT_HEAD:
        raise ValueError(f"its widths {patches.shape[0]} and {text.shape[1]} are no multiples of a head's")
    return dict(
        embed_dim=weights["text_projection"].shape[1],
        vision_cfg=dict(
            image_size=round(places**0.5) * patches.shape[2],
            patch_size=patches.shape[2],
            width=patches.shape[0],
            layers=inference.layers(weights, "visual.transformer.resblocks."),
            head_width=PICTURE_HEAD,
            mlp_ratio=_mlp_ratio(weights, "visual."),
        ),
        text_cfg=dict(
            context_length=len(weights["positional_embedding"]),
            vocab_size=text.shape[0],
            width=text.shape[1],
            layers=inference.layers(weights, "transformer.resblocks."),
            heads=text.shape[1] // TEXT_HEAD,
            mlp_ratio=_mlp_ratio(weights, ""),
        ),
    )


def _mlp_ratio(weights: Mapping[str, Tensor], tower: str) -> float:
    inner, outer = weights[f"{tower}transformer.resblocks.0.mlp.c_fc.weight"].shape
    return inner / outer
