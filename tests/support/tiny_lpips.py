"""AlexNet and LPIPS heads of random weights under the real checkpoints' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.rng import numpy_generator
from benchmarks.lpips import WIDTHS


def make_alexnet(path: Path) -> None:
    """Save one of the real size without its classifier, which LPIPS does not use: 10 MB in place of 244.

    Weights are drawn with He's deviation, so that every level has something to say.
    """
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in alexnet().features.state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        deviation = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        noise = numpy_generator(16, 0, 0, f"alexnet {name}").normal(0, deviation, shape)
        weights[f"features.{name}"] = torch.from_numpy(noise).float()
    torch.save(weights, path)


def make_heads(path: Path) -> None:
    """Save one weight in [0, 1] for each channel of each level."""
    torch.save(
        {
            f"lin{level}.model.1.weight": torch.from_numpy(
                numpy_generator(17, level, 0, "lpips head").uniform(0, 1, (1, width, 1, 1))
            ).float()
            for level, width in enumerate(WIDTHS)
        },
        path,
    )
