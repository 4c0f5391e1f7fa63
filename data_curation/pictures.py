"""Encoded pictures to pixels. Data from the web is damaged in every way there is; all of them end in BadPair."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
from PIL import Image, ImageOps, features

from bench.corpus import BadPair

Image.init()

FORMATS = ("JPEG", "PNG", "BMP", *(form for form in ("WEBP", "AVIF") if features.check(form.lower())))
"""What is decoded, whatever a file is called: formats that need no further program and hold no scripts. Pillow reads
WebP and AVIF where it was built with their libraries, as its wheels are."""

SUFFIXES = tuple(suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS)
"""How the names of such pictures end, in lower case."""

UNREAD = frozenset((
    ".avif", ".avifs", ".webp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf",
    ".jpx", ".jxr", ".svg", ".svgz", ".ico", ".icns", ".cur", ".psd", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
    ".pfm", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".qoi", ".dds", ".pcx",
    ".xbm", ".xpm", ".sgi", ".wmf", ".emf", ".eps", ".mpo",
)).difference(SUFFIXES)  # fmt: skip
"""How the names of other pictures end: they are left out, and counted."""

MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|....ftyp(avi|hei|mif)|8BPS", re.DOTALL)
"""How encoded pictures begin, for files whose names do not tell."""

MAX_PIXELS = 89_478_485
"""Above this a picture is taken for a decompression bomb; Pillow warns from here on (a quarter of a GiB of RGB)."""

MAX_BYTES = 1 << 28
"""Above this an encoded picture is not even read."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held; 5 to 8 swap width and height."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # ``_open`` refuses what this warns of


def decode(data: bytes) -> Image.Image:
    """Decode a picture to RGB, turned as its EXIF says; transparent parts lie on white. Raises BadPair."""
    picture = _open(data)
    try:
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        return picture.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(error) from error


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels as ``decode`` will have them, from the header alone. Raises BadPair."""
    picture = _open(data)
    try:
        turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:
        raise _unreadable(error) from error
    return picture.size[::-1] if turned else picture.size


def cover(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize a picture to cover ``size`` (width, height) and crop it to the centre: uint8 (H, W, 3)."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = size[0] / scale, size[1] / scale
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS, box=box))


def limited(length: int) -> None:
    """Raise BadPair if an encoded picture has too many bytes to be one."""
    if length > MAX_BYTES:
        raise BadPair(f"its picture takes {length} bytes, more than the {MAX_BYTES} allowed")


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadPair("its picture is empty")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged data
        raise _unreadable(error) from error
    if width * height > MAX_PIXELS:
        raise BadPair(f"its picture would take {width} x {height} pixels, more than the {MAX_PIXELS} allowed")
    if picture.mode.startswith(("I", "F")):
        # Pillow would clip these to 8 bits: nearly white pictures that nobody asked for.
        raise BadPair(f"its pixels are of mode {picture.mode}, which has no 8-bit form; save it with 8 bits")
    return picture


def _unreadable(error: Exception) -> BadPair:
    return BadPair(f"it cannot be read as a picture ({type(error).__name__})")
