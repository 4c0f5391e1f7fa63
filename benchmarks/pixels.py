"""Pictures as tensors: antialiased resizing, cropping, padding and CLIP's normalisation, with a gradient throughout.

Resizing is ``torch.nn.functional.interpolate`` with antialiasing, which is what torchvision's ``resize`` does to
tensors. Bicubic values may leave [0, 1] a little, as they do there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Per channel; openai/CLIP @ d05afc4, ``clip/clip.py``. BLIP, open_clip's ViT-H-14 and ImageReward have the same."""


def from_picture(image: np.ndarray) -> Tensor:
    """A uint8 (H, W, 3) picture as float32 (1, 3, H, W) in [0, 1]."""
    return torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def shorter_side(pixels: Tensor, side: int, mode: str = "bicubic") -> Tensor:
    """Resized so that the shorter side is ``side``; the longer is rounded down, as torchvision and CLIP do."""
    height, width = pixels.shape[-2:]
    short = min(height, width)
    return _resized(pixels, int(side * height / short), int(side * width / short), mode)


def longest_side(pixels: Tensor, side: int) -> Tensor:
    """Resized so that the longer side is ``side``, then padded with zeros to a square (HPSv2's ``ResizeMaxSize``)."""
    height, width = pixels.shape[-2:]
    scale = side / max(height, width)
    pixels = _resized(pixels, round(height * scale), round(width * scale), "bicubic")
    down, right = side - pixels.shape[-2], side - pixels.shape[-1]
    return F.pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2))


def centre(pixels: Tensor, side: int) -> Tensor:
    """The middle ``side`` x ``side``. Of an odd margin the larger half comes last, as in transformers' CLIP."""
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    return pixels[..., top : top + side, left : left + side]


def normalised(pixels: Tensor) -> Tensor:
    """Values in [0, 1] with CLIP's mean and deviation taken out."""
    mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


def _resized(pixels: Tensor, height: int, width: int, mode: str) -> Tensor:
    if pixels.shape[-2:] == (height, width):
        return pixels
    return F.interpolate(pixels, (height, width), mode=mode, align_corners=False, antialias=True)
