"""The embedded metrics as differentiable rewards: they give the score itself, and a gradient to its own picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import as_pixels, check_gradient, drawn, metric

NAMES = ("world_aesthetic", "world_clipscore")


@pytest.mark.parametrize("name", NAMES)
def test_the_differentiable_score_of_whole_pictures_is_the_score(name: str) -> None:
    judge, (pictures, prompts) = metric(name), drawn()
    scores = judge.differentiable_score(as_pixels(pictures), prompts)
    np.testing.assert_allclose(scores.detach().numpy(), judge.score(pictures, prompts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_the_pictures(name: str) -> None:
    check_gradient(metric(name), near=1e-5, side=64)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_its_own_picture_only(name: str) -> None:
    pictures, prompts = (part[:3] for part in drawn())
    pixels = as_pixels(pictures)
    (gradient,) = torch.autograd.grad(metric(name).differentiable_score(pixels, prompts)[1], pixels)
    assert [bool(picture.any()) for picture in gradient] == [False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_of_the_metric_gathers_a_gradient(name: str) -> None:
    from benchmarks import world_clip

    pictures, prompts = (part[:2] for part in drawn())
    metric(name).differentiable_score(as_pixels(pictures), prompts).sum().backward()
    assert all(p.grad is None for p in world_clip.model().parameters())
    assert all(tensor.grad is None for tensor in world_clip.aesthetic_head())
