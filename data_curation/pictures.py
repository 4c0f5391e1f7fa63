"""Encoded pictures of a corpus to pixels, through the project's one decoder. Whatever is wrong ends in BadPair."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from bench.corpus import BadPair
from bench.records import pictures

SUFFIXES = pictures.SUFFIXES

UNREAD = frozenset((
    ".avif", ".avifs", ".webp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf",
    ".jpx", ".jxr", ".svg", ".svgz", ".ico", ".icns", ".cur", ".psd", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
    ".pfm", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".qoi", ".dds", ".pcx",
    ".xbm", ".xpm", ".sgi", ".wmf", ".emf", ".eps", ".mpo",
)).difference(SUFFIXES)  # fmt: skip
"""How the names of other pictures end: they are left out, and counted."""

MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|....ftyp(avi|hei|mif)|8BPS", re.DOTALL)
"""First bytes of encoded pictures, for files whose names do not show the format."""


def decode(data: bytes) -> Image.Image:
    """Decode a picture to RGB, turned as its EXIF says; transparent parts lie on white. Raises BadPair."""
    with _of_a_pair():
        return pictures.decode(data)


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels as ``decode`` will have them, from the header alone. Raises BadPair."""
    with _of_a_pair():
        return pictures.dimensions(data)


def cover(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize a picture to cover ``size`` (width, height) and crop it to the centre: uint8 (H, W, 3)."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = size[0] / scale, size[1] / scale
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS, box=box))


def limited(length: int) -> None:
    """Raise BadPair if an encoded picture has too many bytes to be one."""
    with _of_a_pair():
        pictures.limited(length)


@contextmanager
def _of_a_pair() -> Iterator[None]:
    try:
        yield
    except pictures.BadPicture as error:
        raise BadPair(f"it cannot be read as a picture ({error.kind})" if error.kind else str(error)) from error
