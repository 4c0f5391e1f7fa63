"""Decoding: what is damaged, too large or no 8-bit picture ends in BadPair; the rest comes as it was meant to look."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from pairs import BLUE, RED, bomb, encoded, noise
from PIL import Image

from bench.corpus import BadPair
from bench.records import pictures as decoder
from data_curation import pictures


def saved(picture: Image.Image, form: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_pictures_of_the_usual_formats_are_decoded(form):
    data = encoded(RED, (30, 20), form)
    picture = pictures.decode(data)
    assert picture.mode == "RGB" and picture.size == (30, 20) == pictures.dimensions(data)
    assert np.asarray(picture)[10, 15].tolist() == pytest.approx(RED, abs=3)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<svg/>", b"GIF89a" * 9]
)
def test_what_is_no_picture_is_bad(data):
    with pytest.raises(BadPair):
        pictures.decode(data)
    with pytest.raises(BadPair):
        pictures.dimensions(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_picture_is_bad(form, share):
    data = noise(form=form)
    with pytest.raises(BadPair, match="cannot be read as a picture"):
        pictures.decode(data[: int(len(data) * share)])


def test_any_damage_ends_in_a_picture_or_in_a_bad_pair():
    rng, data = np.random.default_rng(0), noise(size=(24, 24), form="PNG")
    outcomes = set()
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(256)
        try:
            outcomes.add(type(pictures.decode(bytes(damaged))))
        except BadPair:
            outcomes.add(BadPair)
    assert outcomes <= {Image.Image, BadPair} and BadPair in outcomes


def test_a_decompression_bomb_is_bad_and_warns_nobody():
    assert len(bomb()) < 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        with pytest.raises(BadPair):
            pictures.decode(bomb())


def test_the_limit_on_pixels_is_our_own(monkeypatch):
    monkeypatch.setattr(decoder, "MAX_PIXELS", 399)
    with pytest.raises(BadPair, match="20 x 20 pixels, more than the 399 allowed"):
        pictures.decode(encoded(size=(20, 20)))
    assert pictures.decode(encoded(size=(19, 21)))


def test_sixteen_bits_are_bad_rather_than_white():
    with pytest.raises(BadPair, match="mode I;16"):
        pictures.decode(saved(Image.fromarray(np.full((8, 8), 5000, np.uint16))))


def test_transparent_parts_lie_on_white():
    picture = Image.new("RGBA", (2, 1), (*BLUE, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    assert np.asarray(pictures.decode(saved(picture))).tolist() == [[list(BLUE), [255, 255, 255]]]


def test_a_palette_may_be_transparent_too():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, *RED])
    picture.putpixel((1, 0), 1)
    assert np.asarray(pictures.decode(saved(picture, transparency=0))).tolist() == [[[255, 255, 255], list(RED)]]


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))])
def test_pictures_are_turned_as_the_camera_says(orientation, size):
    exif = Image.Exif()
    exif[decoder.ORIENTATION] = orientation
    data = saved(Image.new("RGB", (30, 20), RED), "JPEG", exif=exif)
    assert pictures.decode(data).size == pictures.dimensions(data) == size


@pytest.mark.parametrize("size", [(20, 20), (64, 32), (31, 97), (8, 8), (1000, 10), (1, 1)])
@pytest.mark.parametrize("target", [(16, 16), (32, 16), (16, 48)])
def test_every_shape_covers_every_target(size, target):
    image = pictures.cover(Image.new("RGB", size, RED), target)
    assert image.shape == (target[1], target[0], 3) and image.dtype == np.uint8 and (image == RED).all()


def test_pictures_are_cropped_to_the_centre():
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 200
    assert (pictures.cover(Image.fromarray(pixels), (16, 16)) == 200).all()
    assert (pictures.cover(Image.fromarray(pixels.transpose(1, 0, 2)), (16, 16)) == 200).all()
