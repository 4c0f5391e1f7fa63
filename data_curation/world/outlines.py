"""Outlines of the shapes: polygons in the unit square [-1, 1]², y pointing down."""

from __future__ import annotations

import numpy as np

from data_curation.world import vocabulary as V

RING_HOLE = 0.52
"""Radius of a ring's hole, as a share of the ring's."""

_Point = tuple[float, float]


def _arc(start: float, stop: float, count: int, x: float = 0.0, y: float = 0.0, radius: float = 1.0) -> list[_Point]:
    """``count`` points on a circle, from one angle to another (radians; y points down)."""
    angles = np.linspace(start, stop, count)
    return [(float(x + radius * np.cos(t)), float(y + radius * np.sin(t))) for t in angles]


def _moon() -> list[_Point]:
    """A crescent that opens to the right: a circle less a smaller one, moved left so that the rest is centred."""
    away, radius, centred = 0.55, 0.8, 0.2
    x = (1 - radius**2 + away**2) / (2 * away)  # where the circles meet
    y = float(np.sqrt(1 - x**2))
    outer, inner = float(np.arctan2(y, x)), float(np.arctan2(y, x - away))
    far = 2 * np.pi
    points = _arc(outer, far - outer, 64) + _arc(far - inner, inner, 48, x=away, radius=radius)
    return [(px + centred, py) for px, py in points]


def _star() -> list[_Point]:
    radii = np.where(np.arange(10) % 2 == 0, 1.05, 0.45)
    angles = np.pi * np.arange(10) / 5 - np.pi / 2
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[_Point]:
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    x = 16 * np.sin(turn) ** 3 / 16.5
    y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16.5
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def _cross(arm: float = 0.34) -> list[_Point]:
    corner = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    return [(float(x), float(y)) for x, y in corner] + [(float(-x), float(-y)) for x, y in corner]


_POINTS: dict[str, list[_Point]] = {
    "circle": _arc(0, 2 * np.pi, 96),
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0, -0.95), (1, 0.8), (-1, 0.8)],
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
    "ring": _arc(0, 2 * np.pi, 96),
    "diamond": [(0, -1), (0.86, 0), (0, 1), (-0.86, 0)],
    "moon": _moon(),
    "bow": [(-1, -0.8), (-0.2, -0.2), (0.2, -0.2), (1, -0.8), (1, 0.8), (0.2, 0.2), (-0.2, 0.2), (-1, 0.8)],
    "bolt": [(-0.2, -1), (-0.85, 0.25), (-0.2, 0.25), (-0.5, 1), (0.85, -0.35), (0.2, -0.35), (0.7, -1)],
    "flag": [(-0.8, -1), (0.95, -0.45), (-0.35, 0.1), (-0.35, 1), (-0.8, 1)],
}

OUTLINES = {shape: np.array(_POINTS[shape], np.float64) for shape in V.SHAPES}
"""Shape to its corners, float64 (n, 2). A ring has its outer circle here."""
