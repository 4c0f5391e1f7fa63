"""Brightness, saturation, contrast and sharpness: values by hand, against PIL and colorsys, and never ranked."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from drawn import drawn, metric
from PIL import Image, ImageFilter, ImageStat

from bench.rng import numpy_generator
from bench.suite import Prompt

PINNED = {
    "brightness": (1, 0.803062),
    "contrast": (1, 0.111287),
    "saturation": (1, 0.223534),
    "sharpness": (1, 0.021235),
}
"""Metric → version, mean score of ``drawn``."""
PROMPT = Prompt("0", "a red circle")


def scores(name: str, images: list[np.ndarray]) -> list[float]:
    return metric(name).score(images, [PROMPT] * len(images))


def flat(*colour: int) -> np.ndarray:
    return np.full((40, 60, 3), colour, np.uint8)


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> np.ndarray:
    return np.concatenate([flat(*left), flat(*right)], axis=1)


def chequered() -> np.ndarray:
    """Black and white pixels in turn."""
    light = 255 * (np.indices((7, 9)).sum(0) % 2)
    return np.repeat(light[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_value_on_committed_inputs_is_pinned(name: str) -> None:
    version, value = PINNED[name]
    assert metric(name).version == version
    assert np.mean(scores(name, drawn()[0])) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_quantity_that_is_neither_good_nor_bad_is_not_ranked(name: str) -> None:
    assert metric(name).describe()["ranked"] is False


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("brightness", flat(0, 0, 0), 0.0),
        ("brightness", flat(255, 255, 255), 1.0),
        ("brightness", flat(0, 255, 0), 0.587),
        ("brightness", halves((255, 0, 0), (0, 0, 255)), (0.299 + 0.114) / 2),
        ("contrast", flat(90, 200, 10), 0.0),
        ("contrast", halves((0, 0, 0), (255, 255, 255)), 0.5),
        ("saturation", flat(0, 0, 0), 0.0),
        ("saturation", flat(77, 77, 77), 0.0),
        ("saturation", flat(10, 0, 0), 1.0),
        ("saturation", halves((200, 100, 100), (255, 255, 255)), 0.25),
        ("sharpness", flat(90, 200, 10), 0.0),
        ("sharpness", halves((0, 0, 0), (255, 255, 255)), 2 / 118),  # one edge: two of 118 inner columns differ by 1
        ("sharpness", chequered(), 4.0),
    ],
)
def test_values_by_hand(name: str, image: np.ndarray, expected: float) -> None:
    assert scores(name, [image]) == pytest.approx([expected], abs=1e-12)


def test_luma_is_pils() -> None:
    """PIL rounds to 8 bits, hence the tolerances."""
    images = drawn()[0]
    statistics = [ImageStat.Stat(Image.fromarray(image).convert("L")) for image in images]
    np.testing.assert_allclose(scores("brightness", images), [s.mean[0] / 255 for s in statistics], atol=0.5 / 255)
    np.testing.assert_allclose(scores("contrast", images), [s.stddev[0] / 255 for s in statistics], atol=0.3 / 255)


def test_saturation_is_that_of_hsv() -> None:
    image = numpy_generator(4, 0, 0, "saturation").integers(0, 256, (12, 7, 3)).astype(np.uint8)
    expected = np.mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in image.reshape(-1, 3) / 255])
    assert scores("saturation", [image]) == pytest.approx([expected], abs=1e-12)


def test_sharpness_is_the_mean_over_inner_pixels() -> None:
    image = numpy_generator(4, 0, 0, "sharpness").integers(0, 256, (6, 5, 3)).astype(np.uint8)
    light = [[(0.299 * r + 0.587 * g + 0.114 * b) / 255 for r, g, b in row] for row in image.tolist()]
    values = [
        abs(2 * light[y][x] - light[y][x - 1] - light[y][x + 1])
        + abs(2 * light[y][x] - light[y - 1][x] - light[y + 1][x])
        for y in range(1, 5)
        for x in range(1, 4)
    ]
    assert scores("sharpness", [image]) == pytest.approx([sum(values) / len(values)], abs=1e-12)


def test_a_blurred_picture_is_less_sharp() -> None:
    images = drawn()[0]
    blurred = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1))) for image in images]
    assert all(
        soft < sharp for soft, sharp in zip(scores("sharpness", blurred), scores("sharpness", images), strict=True)
    )


@pytest.mark.parametrize("name", sorted(PINNED))
def test_every_picture_has_its_own_score_whatever_stands_beside_it(name: str) -> None:
    images = [*drawn()[0][:3], flat(1, 2, 3)]
    assert scores(name, images) == [scores(name, [image])[0] for image in images]
