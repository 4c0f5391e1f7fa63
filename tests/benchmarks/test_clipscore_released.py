"""ClipScore as released, on a CLIP of random weights: what its resize is, and how far it is from openai/CLIP's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import check_gradient, check_on_a_gpu, drawn, metric, words
from tiny_clip import make_tiny_clip

from bench.rng import numpy_generator

VALUE = 0.025746
"""Mean score of ``drawn`` by the tiny model, whose scale is 100 as the real one's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    make_tiny_clip(folder, words(), scale=math.log(100))
    return folder


@pytest.fixture(autouse=True)
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(folder))


def test_the_value_on_committed_inputs_is_pinned() -> None:
    assert metric("clipscore_released").version == 1
    assert float(np.mean(metric("clipscore_released").score(*drawn()))) == pytest.approx(VALUE, abs=2e-5)


@pytest.mark.parametrize("shape", [(64, 64), (48, 32), (90, 131), (20, 20)])
def test_it_is_the_releases_transform(folder: Path, shape: tuple[int, int]) -> None:
    """Against torchvision's ``Resize`` with its defaults and ``CLIPModel.forward``, the logits divided by 100."""
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    picture = numpy_generator(3, 0, 0, "picture").integers(0, 256, (*shape, 3)).astype(np.uint8)
    prompt = drawn()[1][0]
    processor, model = CLIPImageProcessorPil.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    side = model.config.vision_config.image_size
    transform = Compose([Resize(side), CenterCrop((side, side)), Normalize(processor.image_mean, processor.image_std)])
    seen = transform(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    ids = CLIPTokenizer.from_pretrained(folder)([prompt.text], return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=seen, **ids).logits_per_image.diagonal() / 100
    assert metric("clipscore_released").score([picture], [prompt])[0] == pytest.approx(float(expected[0]), abs=1e-6)


def test_how_far_it_is_from_clipscore() -> None:
    """The figure of docs/metrics.md, of the tiny model on pictures of 64 px; the real one's is not known here."""
    moved = np.array(metric("clipscore_released").score(*drawn())) - np.array(metric("clipscore").score(*drawn()))
    assert float(np.abs(moved).mean()) == pytest.approx(0.000260, abs=5e-6)
    assert float(np.abs(moved).max()) == pytest.approx(0.000984, abs=5e-6)


def test_its_gradient() -> None:
    assert check_gradient(metric("clipscore_released"), near=1e-6) == 0  # of the pictures beside it


def test_scores_do_not_depend_on_the_batch() -> None:
    pictures, prompts = drawn()
    judge = metric("clipscore_released")
    together = judge.score(pictures * 2, prompts * 2)
    alone = [judge.score([p], [q])[0] for p, q in zip(pictures[:3], prompts[:3], strict=True)]
    np.testing.assert_allclose(together[:3], alone, atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_cpus_scores() -> None:
    check_on_a_gpu(metric("clipscore_released"), VALUE)
