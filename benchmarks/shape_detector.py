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
MIN_OVERLAP = 0.72
"""Least silhouette overlap for an object to count."""
MIN_SIDE = 8
"""Least side of an object's box in pixels; the smallest drawn shapes are 17 px wide."""
_GRID = 24


def _hue(rgb: np.ndarray) -> np.ndarray:
    """Hue in turns, [0, 1)."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.asarray((np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b) / (2 * np.pi)) % 1.0)


@cache
def _hues() -> np.ndarray:
    return _hue(np.array(list(V.COLORS.values()), np.float64))


def _normalised(mask: np.ndarray) -> np.ndarray:
    """Soft mask cropped to its box and resampled to a square grid (area-exact for up- and down-sampling)."""
    height, width = mask.shape
    edges_y, edges_x = np.linspace(0, height, _GRID + 1), np.linspace(0, width, _GRID + 1)
    integral = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sampled = ndimage.map_coordinates(integral, np.meshgrid(edges_y, edges_x, indexing="ij"), order=1)
    area = sampled[1:, 1:] - sampled[:-1, 1:] - sampled[1:, :-1] + sampled[:-1, :-1]
    return np.asarray(np.clip(area / ((height / _GRID) * (width / _GRID)), 0, 1))


def _crop(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    ys, xs = np.nonzero(mask > 0.5)
    box = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    return mask[box[1] : box[3], box[0] : box[2]], box


@cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    """Silhouettes (shapes x grid x grid) and their width / height."""
    masks, aspects = [], []
    for shape in V.SHAPES:
        crop, _ = _crop(shape_mask(shape, 64, 64, 50, size=128))
        masks.append(_normalised(crop))
        aspects.append(crop.shape[1] / crop.shape[0])
    return np.stack(masks), np.array(aspects)


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
    found = []
    labels, count = ndimage.label(solid)
    for label in range(1, count + 1):
        blob = labels == label
        sizes = np.bincount(nearest[blob], minlength=len(V.COLORS))
        # Touching things of two colours are parted by colour; stray edge pixels stay with the main one.
        parts = [c for c in range(len(V.COLORS)) if sizes[c] >= max(0.2 * blob.sum(), 30)]
        for color in parts:
            part = blob & (nearest == color) if len(parts) > 1 else blob
            found += _name(part, chroma, list(V.COLORS)[color])
    return sorted(found, key=lambda d: -d.confidence)


def _name(part: np.ndarray, chroma: np.ndarray, color: str) -> list[Detection]:
    labels, count = ndimage.label(part)
    if count > 1:
        part = labels == 1 + np.bincount(labels[part])[1:].argmax()
    crop, box = _crop(part.astype(np.float64))
    if min(crop.shape) < MIN_SIDE:
        return []
    templates, aspects = _templates()
    grid = _normalised(crop)
    overlap = np.minimum(grid, templates).sum((1, 2)) / np.maximum(grid, templates).sum((1, 2))
    skew = np.abs(np.log(crop.shape[1] / crop.shape[0] / aspects))
    overlap = overlap * np.where(skew < 0.3, 1.0, 0.0)
    best = int(overlap.argmax())
    if overlap[best] < MIN_OVERLAP:
        return []
    x0, y0, x1, y1 = map(float, box)
    return [Detection(V.SHAPES[best], color, (x0, y0, x1, y1), float(overlap[best]))]
