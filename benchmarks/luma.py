"""Luma: how bright a pixel is, for the metrics of brightness and contrast."""

from __future__ import annotations

import numpy as np

WEIGHTS = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue in Y' (ITU-R BT.601, section 2.5.1), which JPEG and PIL's mode L take too."""


def luma(image: np.ndarray) -> np.ndarray:
    """Y' (H, W) in [0, 1] of a uint8 picture (H, W, 3)."""
    return image @ (WEIGHTS / 255)
