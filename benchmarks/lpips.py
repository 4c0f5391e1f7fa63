"""LPIPS, the perceptual distance of two pictures: AlexNet's features under learnt weights.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924), in its
version 0.1. Source: richzhang/PerceptualSimilarity @ 082bb24, ``lpips/lpips.py`` and ``lpips/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from benchmarks import inference, pixels

ASSETS = ("lpips_alexnet", "lpips_heads")
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Per channel, for values in [-1, 1]: ``ScalingLayer``."""
EPSILON = 1e-10
"""Added to the length of a feature vector before it is divided by it: ``normalize_tensor``."""
WIDTHS = (64, 192, 384, 256, 256)
"""Channels after AlexNet's five rectifiers, where its features are taken."""


class Lpips:
    """LPIPS 0.1 with AlexNet, on the current GPU, or on the CPU where there is none.

    Args:
        trunk: torchvision's checkpoint of AlexNet; its classifier is not used.
        heads: ``weights/v0.1/alex.pth``, one weight for each channel.

    Raises:
        BenchError: one of them is something else.
    """

    def __init__(self, trunk: Path, heads: Path) -> None:
        self.device = inference.device()
        weights = _read(trunk, "no AlexNet of torchvision")
        convolutions = {
            name.removeprefix("features."): weight for name, weight in weights.items() if name.startswith("features.")
        }
        self.trunk = _trunk()
        try:
            self.trunk.load_state_dict(convolutions, assign=True)
        except RuntimeError as error:
            raise BenchError(f"{trunk} is no AlexNet of torchvision") from error
        self.trunk.float().eval().requires_grad_(False).to(self.device)
        named = _read(heads, f"no LPIPS heads for {WIDTHS} channels")
        try:
            self.heads = [
                named[f"lin{level}.model.1.weight"].reshape(width, 1, 1).float().to(self.device)
                for level, width in enumerate(WIDTHS)
            ]
        except (KeyError, RuntimeError) as error:
            raise BenchError(f"{heads} is no LPIPS heads for {WIDTHS} channels") from error

    def features(self, image: np.ndarray) -> list[Tensor]:
        """Of a uint8 (H, W, 3) picture: (channels, h, w) at five levels, each vector of channels of length 1."""
        scaled = (2 * pixels.from_picture(image) - 1 - _per_channel(SHIFT)) / _per_channel(SCALE)
        taken, value = [], scaled.to(self.device)
        for layer in self.trunk:
            value = layer(value)
            if isinstance(layer, nn.ReLU):
                taken.append(value[0] / (value[0].norm(dim=0) + EPSILON))
        return taken

    def distances(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """LPIPS of all pairs: symmetric (n, n) with zeros on its diagonal.

        Of two pictures: the sum over the levels of the mean over positions of the squared difference of their features,
        summed over channels with the level's weights.

        Raises:
            ValueError: pictures of different sizes, or not uint8 (H, W, 3).
        """
        inference.check_pictures(images)
        if len({image.shape for image in images}) > 1:
            raise ValueError(f"LPIPS compares pictures of one size, not {sorted({im.shape[:2] for im in images})}")
        matrix = np.zeros((len(images), len(images)))
        with torch.no_grad(), inference.exact():
            features = [self.features(image) for image in images]
            for row, one in enumerate(features):
                for column, other in enumerate(features[:row]):
                    matrix[row, column] = matrix[column, row] = float(
                        sum(
                            (head * (a - b) ** 2).sum(0).mean()
                            for head, a, b in zip(self.heads, one, other, strict=True)
                        )
                    )
        return matrix


def load() -> Lpips:
    """The assets' LPIPS, or their stand-ins'."""
    return inference.loaded(Lpips, *ASSETS)


def forget() -> None:
    """Free what ``load`` holds."""
    inference.forget(Lpips, *ASSETS)


@cache
def flops(side: int) -> float:
    """FLOPs of the features of a square picture."""
    from bench.flops import count

    trunk, picture = _trunk().eval(), torch.empty(1, 3, side, side, device="meta")
    with torch.no_grad():
        return count(lambda: trunk(picture))


def _trunk() -> nn.Sequential:
    """AlexNet's convolutions without weights, up to the last rectifier."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        layers: nn.Sequential = alexnet().features[:-1]
    return layers


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _read(path: Path, otherwise: str) -> Mapping[str, Any]:
    try:
        weights: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return dict(weights)
    except inference.UNREAD as error:
        raise BenchError(f"{path} is {otherwise}") from error
