"""Draws a scene. Shapes are drawn from their outlines at four times the size and averaged down."""

from __future__ import annotations

import colorsys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_curation.world import vocabulary as V
from data_curation.world.outlines import OUTLINES, RING_HOLE
from data_curation.world.scene import SIZE as SIZE
from data_curation.world.scene import Scene

_OVER = 4  # supersampling


def shape_mask(shape: str, x: float, y: float, radius: float, size: int = SIZE) -> np.ndarray:
    """Coverage of a shape on a ``size`` x ``size`` grid: float32 in [0, 1].

    Raises:
        ValueError: there is no such shape.
    """
    if shape not in OUTLINES:
        raise ValueError(f"unknown shape {shape!r}; shapes are {', '.join(V.SHAPES)}")
    canvas = Image.new("L", (size * _OVER, size * _OVER))
    draw = ImageDraw.Draw(canvas)
    draw.polygon([((x + radius * a) * _OVER, (y + radius * b) * _OVER) for a, b in OUTLINES[shape]], fill=255)
    if shape == "ring":
        hole = RING_HOLE * radius
        draw.ellipse([(v * _OVER) for v in (x - hole, y - hole, x + hole, y + hole)], fill=0)
    small = np.asarray(canvas, np.float32).reshape(size, _OVER, size, _OVER).mean((1, 3))
    return np.asarray(small / 255.0)


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # ships DejaVu, so the letters are the same on every machine

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono-Bold.ttf"
    return ImageFont.truetype(str(path), pixels)


def _paint(picture: np.ndarray, mask: np.ndarray, color: np.ndarray) -> None:
    picture *= 1 - mask[..., None]
    picture += mask[..., None] * color


def _shifted(mask: np.ndarray, by: int) -> np.ndarray:
    out = np.zeros_like(mask)
    out[by:, by:] = mask[:-by, :-by]
    return out


def _ground(scene: Scene, grid_y: np.ndarray) -> np.ndarray:
    """Background: from flat dull grey to a soft vertical gradient in the hue opposite the first thing's."""
    s = scene.style
    if scene.things:
        hue = colorsys.rgb_to_hsv(*(v / 255 for v in V.COLORS[scene.things[0].color]))[0] + 0.5
    else:
        hue = scene.ground_hue
    tint = np.array(colorsys.hsv_to_rgb(hue % 1.0, 0.13, 0.97), np.float32)
    grey = np.full(3, 0.74, np.float32)
    base = (1 - s) * grey + s * tint
    return base[None, None] * (1 + 0.08 * s * (0.5 - grid_y))[..., None] * np.ones((SIZE, SIZE, 1), np.float32)


def render(scene: Scene) -> np.ndarray:
    """Picture of a scene: uint8 array (64, 64, 3)."""
    s = scene.style
    grid_y, grid_x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / (SIZE - 1)
    picture = _ground(scene, grid_y)
    if scene.prompt.word is not None:
        _draw_sign(picture, scene.prompt.word, scene.sign_y, s, grid_y)
    for thing in scene.things:
        mask = shape_mask(thing.shape, thing.x, thing.y, thing.radius)
        _paint(picture, 0.32 * s * _shifted(mask, 2), picture.mean((0, 1)) * 0.35)
        across = (grid_x * (SIZE - 1) - thing.x) + (grid_y * (SIZE - 1) - thing.y)
        light = 1.0 - 0.02 * s - 0.22 * s * np.clip(across / (1.4 * thing.radius), -1, 1)
        color = np.array(V.COLORS[thing.color], np.float32) / 255
        _paint(picture, mask, np.clip(color * light[..., None] + 0.06 * s * (light[..., None] - 1), 0, 1))
    pixels: np.ndarray = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels


def _draw_sign(picture: np.ndarray, word: str, middle: float, s: float, grid_y: np.ndarray) -> None:
    """A pale board with the word in capitals: 15 px per letter, starting at the board's left edge."""
    big = Image.new("L", (SIZE * _OVER, SIZE * _OVER))
    box = [_OVER, (middle - 15) * _OVER, 63 * _OVER - 1, (middle + 15) * _OVER - 1]
    ImageDraw.Draw(big).rounded_rectangle(box, 4 * _OVER, fill=255)
    board = np.asarray(big, np.float32).reshape(SIZE, _OVER, SIZE, _OVER).mean((1, 3)) / 255
    _paint(picture, 0.32 * s * _shifted(board, 2), picture.mean((0, 1)) * 0.35)
    _paint(picture, board, np.array([0.99, 0.98, 0.95], np.float32) * (1 + 0.1 * s * (0.4 - grid_y))[..., None])
    ink = Image.new("L", (SIZE * _OVER, SIZE * _OVER))
    draw = ImageDraw.Draw(ink)
    for i, letter in enumerate(word.upper()):
        draw.text(((9.5 + 15 * i) * _OVER, middle * _OVER), letter, fill=255, font=_font(22 * _OVER), anchor="mm")
    letters = np.asarray(ink, np.float32).reshape(SIZE, _OVER, SIZE, _OVER).mean((1, 3)) / 255
    _paint(picture, letters, np.array([0.10, 0.12, 0.18], np.float32) * (1 - 0.3 * s))
