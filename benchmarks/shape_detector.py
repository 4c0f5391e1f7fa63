"""Exact detection on pictures of the shape world: segment by chroma, name the colour by hue and the shape by overlap.

Nothing is learned, so a generated picture cannot fool it by texture: an object counts only if its silhouette
overlaps the true silhouette of its shape (intersection over union, the detection's confidence).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from benchmarks.geneval_rule import Detection
from data_curation.world import vocabulary as V
from data_curation.world.render import shape_mask

CHROMA = 0.24
"""Least max-minus-min channel difference (of 1) of a foreground pixel; grounds and shadows stay below 0.16."""
MIN_OVERLAP = 0.75
"""Least silhouette overlap for an object to count; the least of a true shape among 6,000 scenes is 0.81."""
MIN_SIDE = 8
"""Least side of an object's box in pixels; the smallest drawn shapes are 13 px wide."""
COVERED = 0.5
"""Least coverage of a pixel of a silhouette, so that a dull colour has the silhouette of a bright one."""
_GRID, _REACH = 24, 1.4
"""Cells along a side of the grid on which silhouettes are compared, and half its side in roots of their area."""


def _hue(rgb: np.ndarray) -> np.ndarray:
    """Hue in turns, [0, 1)."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.asarray((np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b) / (2 * np.pi)) % 1.0)


@cache
def _hues() -> np.ndarray:
    return _hue(np.array(list(V.COLORS.values()), np.float64))


def _normalised(mask: np.ndarray) -> np.ndarray:
    """A silhouette around its centroid, scaled to equal area, as the coverage of each cell of a grid.

    Centroid and area hardly depend on how pixels round off a thin tip; a box does.
    """
    height, width = mask.shape
    area = mask.sum()
    half = _REACH * np.sqrt(area)
    y = mask.sum(1) @ (np.arange(height) + 0.5) / area
    x = mask.sum(0) @ (np.arange(width) + 0.5) / area
    edges_y = np.clip(np.linspace(y - half, y + half, _GRID + 1), 0, height)
    edges_x = np.clip(np.linspace(x - half, x + half, _GRID + 1), 0, width)
    integral = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sampled = ndimage.map_coordinates(integral, np.meshgrid(edges_y, edges_x, indexing="ij"), order=1)
    covered = sampled[1:, 1:] - sampled[:-1, 1:] - sampled[1:, :-1] + sampled[:-1, :-1]
    return np.asarray(covered / (2 * half / _GRID) ** 2)


@cache
def _templates() -> np.ndarray:
    """Silhouettes: shapes x grid x grid."""
    return np.stack([_normalised(shape_mask(shape, 64, 64, 40, size=128).astype(np.float64)) for shape in V.SHAPES])


def detect(pixels: np.ndarray) -> list[Detection]:
    """Find the shapes in a picture.

    Args:
        pixels: uint8 array (H, W, 3).

    Returns:
        Detections, most confident first; boxes in pixels.
    """
    rgb = pixels.astype(np.float64) / 255
    chroma = rgb.max(-1) - rgb.min(-1)
    solid = chroma > CHROMA
    distance = np.abs(_hue(rgb)[..., None] - _hues())
    nearest = np.minimum(distance, 1 - distance).argmin(-1)
    detections = []
    labels, count = ndimage.label(solid)
    for label in range(1, count + 1):
        blob = labels == label
        sizes = np.bincount(nearest[blob], minlength=len(V.COLORS))
        # Touching things of two colours are parted by colour; stray edge pixels stay with the main one.
        parts = [c for c in range(len(V.COLORS)) if sizes[c] >= max(0.2 * blob.sum(), 30)]
        for color in parts:
            part = blob & (nearest == color) if len(parts) > 1 else blob
            detections += _name(part, chroma, list(V.COLORS)[color])
    return sorted(detections, key=lambda d: -d.confidence)


def _name(part: np.ndarray, chroma: np.ndarray, color: str) -> list[Detection]:
    labels, count = ndimage.label(part)
    if count > 1:
        part = labels == 1 + np.bincount(labels[part])[1:].argmax()
    part = part & _covered(part, chroma)
    ys, xs = np.nonzero(part)
    box = float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)
    if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
        return []
    grid, templates = _normalised(part.astype(np.float64)), _templates()
    overlap = np.minimum(grid, templates).sum((1, 2)) / np.maximum(grid, templates).sum((1, 2))
    best = int(overlap.argmax())
    if overlap[best] < MIN_OVERLAP:
        return []
    return [Detection(V.SHAPES[best], color, box, float(overlap[best]))]


def _covered(part: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Pixels of a part that its colour covers: those with enough of the greatest chroma beside them."""
    own = np.where(part, chroma, 0.0)
    return np.asarray(own >= COVERED * ndimage.maximum_filter(own, 3))
