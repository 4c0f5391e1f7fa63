"""The one decoder: every kind of picture as it was meant to look, and one line for whatever cannot be used."""

from __future__ import annotations

import ast
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.evaluation.drawing import read_picture
from bench.records import pictures

ROOT = Path(__file__).parents[3]
RED, BLUE, WHITE = [255, 0, 0], [0, 0, 255], [255, 255, 255]


def saved(picture: Image.Image, form: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **settings)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """A PNG of the given header and raw, not yet compressed scanlines, made without Pillow."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


HUGE = png(60_000, 60_000, 8, 2, b"\0" * 1000)
"""3.6 gigapixels in a few hundred bytes."""

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\nshowpage\n%%EOF\n"

LEFT_RIGHT = Image.new("RGB", (2, 1))
LEFT_RIGHT.putdata([tuple(RED), tuple(BLUE)])


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_every_format_that_is_promised_is_decoded(form, tmp_path):
    data = saved(Image.new("RGB", (30, 20), tuple(RED)), form)
    (tmp_path / "x.png").write_bytes(data)  # whatever it is called
    pixels = read_picture(tmp_path / "x.png")
    assert pixels.shape == (20, 30, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - RED).max() <= 3
    assert pictures.dimensions(data) == (30, 20)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", *(["AVIF"] if "AVIF" in pictures.FORMATS else [])])
@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [
        (1, (40, 20), "top left"),
        (3, (40, 20), "bottom right"),
        (6, (20, 40), "top right"),
        (8, (20, 40), "bottom left"),
    ],
)
def test_evaluated_pictures_are_turned_as_the_camera_says(tmp_path, form, orientation, size, corner):
    """A blue corner at the top left, as stored. EXIF 3 is half a turn, 6 a quarter clockwise, 8 one the other way."""
    picture = Image.new("RGB", (40, 20), tuple(RED))
    picture.paste(tuple(BLUE), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    (tmp_path / "x").write_bytes(saved(picture, form, exif=exif))
    pixels = read_picture(tmp_path / "x")
    assert pixels.shape[1::-1] == size == pictures.dimensions((tmp_path / "x").read_bytes())
    rows = slice(0, 4) if corner.startswith("top") else slice(-4, None)
    columns = slice(0, 4) if corner.endswith("left") else slice(-4, None)
    assert np.abs(pixels[rows, columns].astype(int) - BLUE).max() <= 40
    assert np.abs(pixels[9:11, 9:11].astype(int) - RED).max() <= 40


def transparent_palette() -> bytes:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*BLUE, *RED])
    picture.putpixel((1, 0), 1)
    return saved(picture, transparency=0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # scanlines begin with a filter byte of 0
        (png(2, 1, 8, 6, bytes([0, *RED, 255, *BLUE, 0])), [RED, WHITE]),  # RGBA
        (png(2, 1, 8, 4, bytes([0, 100, 255, 100, 0])), [[100] * 3, WHITE]),  # LA
        (
            png(2, 1, 8, 4, bytes([0, 0, 128, 0, 0])),
            [[127] * 3, WHITE],
        ),  # half black on white: 255 - 128
        (png(2, 1, 8, 0, bytes([0, 9, 200])), [[9] * 3, [200] * 3]),  # L
        (png(2, 1, 1, 0, bytes([0, 0b01000000])), [[0] * 3, WHITE]),  # one bit
        (png(2, 1, 16, 2, bytes([0, *[255, 0, 0, 0, 0, 0], *[0, 0, 0, 0, 255, 0]])), [RED, BLUE]),  # 16-bit RGB
        (transparent_palette(), [WHITE, RED]),
        (saved(LEFT_RIGHT.quantize(2), "GIF"), [RED, BLUE]),
    ],
)
def test_every_kind_of_pixel_looks_as_it_was_meant(tmp_path, data, expected):
    (tmp_path / "x.png").write_bytes(data)
    assert read_picture(tmp_path / "x.png").tolist() == [expected]


def test_inks_become_colours(tmp_path):
    """Cyan ink takes the red away: (0, 255, 255). TIFF stores CMYK without loss."""
    (tmp_path / "x.tif").write_bytes(saved(Image.new("CMYK", (2, 1), (255, 0, 0, 0)), "TIFF"))
    assert read_picture(tmp_path / "x.tif").tolist() == [[[0, 255, 255]] * 2]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (HUGE, "more pixels than the 89478485 allowed"),
        (png(10_000, 9_000, 8, 2, b""), "10000 x 9000 pixels, more than the 89478485 allowed"),
        (saved(Image.fromarray(np.full((8, 8), 5000, np.uint16))), "mode I;16, which has no 8-bit form"),
        (saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "mode F, which has no 8-bit form"),
        (EPS, "no format that is read"),
        (b"%PDF-1.4", "no format that is read"),
        (b"<svg/>", "no format that is read"),
        (saved(Image.new("RGB", (8, 8)), "PPM"), "no format that is read"),
        (saved(Image.effect_noise((99, 99), 50))[:2000], "damaged"),
        (b"", "empty"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path, data, says):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(
        pictures.BadPicture, match=rf"^the image x\.png cannot be read: [^\n]*({says})[^\n]*$"
    ) as raised:
        read_picture(tmp_path / "x.png")
    assert "0x" not in str(raised.value)  # equal files give equal records


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    import subprocess

    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a) or 1 / 0)
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a) or 1 / 0)
    (tmp_path / "x.png").write_bytes(EPS)
    with pytest.raises(pictures.BadPicture):
        read_picture(tmp_path / "x.png")
    assert started == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_plain_file_is_neither_read_nor_waited_for(tmp_path, make):
    make(tmp_path / "x.png")
    with pytest.raises(pictures.BadPicture, match=r"^the image x\.png cannot be read: it is no file$"):
        read_picture(tmp_path / "x.png")


def test_a_file_of_too_many_bytes_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(pictures.MAX_BYTES + 1)  # which takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read"))
    with pytest.raises(pictures.BadPicture, match="takes 268435457 bytes, more than the 268435456 allowed"):
        read_picture(tmp_path / "x.png")


def test_a_picture_that_is_not_there_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "x.png")


def test_pictures_are_opened_in_one_place():
    """A second door would decode otherwise, and could start a further program for a file that is called a picture."""
    opened = []
    for folder in ("bench", "benchmarks", "data_curation", "methods", "perf"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open", "imread"):
                    opened.append((path.relative_to(ROOT).as_posix(), [word.arg for word in node.keywords]))
    assert opened == [("bench/records/pictures.py", ["formats"])]
