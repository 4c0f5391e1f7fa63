"""Aspect-ratio buckets: about the resolution's pixels, sides that latents can be made of, the nearest shape."""

from __future__ import annotations

import math

import pytest

from data_curation.buckets import buckets, nearest

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_buckets_hold_about_the_resolutions_pixels_in_whole_steps(resolution):
    step = 64 if resolution >= 256 else 16
    for width, height in buckets(resolution):
        assert width % step == height % step == 0
        assert 0.75 <= width * height / resolution**2 <= 1.25
        assert 0.25 <= width / height <= 4


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_buckets_are_symmetric_sorted_and_hold_the_square(resolution):
    found = buckets(resolution)
    assert {(height, width) for width, height in found} == set(found)
    assert [w / h for w, h in found] == sorted(w / h for w, h in found)
    assert len(set(found)) == len(found) and (resolution, resolution) in found


def test_the_buckets_of_512_and_1024_are_the_usual_ones():
    assert {(512, 512), (448, 576), (384, 640), (704, 384), (256, 1024)} <= set(buckets(512))
    assert {(1024, 1024), (896, 1152), (832, 1216), (768, 1344), (1536, 640)} & set(buckets(1024)) >= {
        (1024, 1024), (896, 1152), (832, 1216), (768, 1344),
    }  # fmt: skip
    assert len(buckets(512)) == 17


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((3000, 3000), (512, 512)),
        ((1920, 1080), (704, 384)),
        ((1080, 1920), (384, 704)),
        ((500, 300), (640, 384)),
        ((10_000, 10), (1024, 256)),
        ((1, 5000), (256, 1024)),
    ],
)
def test_a_picture_goes_to_the_bucket_of_the_nearest_shape(size, bucket):
    assert nearest(*size, 512) == bucket


def test_tall_and_wide_pictures_are_treated_alike():
    for width in range(100, 2000, 37):
        assert nearest(width, 700, 512) == nearest(700, width, 512)[::-1]


def test_no_other_bucket_is_nearer():
    for width, height in [(800, 600), (501, 333), (77, 300), (1000, 251)]:
        best = nearest(width, height, 512)
        distances = {size: abs(math.log(size[0] / size[1]) - math.log(width / height)) for size in buckets(512)}
        assert distances[best] == min(distances.values())
