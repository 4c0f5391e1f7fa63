"""PickScore on a CLIP of random weights in the real layout, whose tokenizer and preprocessor lie in another folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import check_gradient, check_on_a_gpu, drawn, metric, one_line, words
from PIL import Image
from tiny_clip import make_tiny_clip

from benchmarks import clip_vit

VALUE = 0.257341
"""Mean score of ``drawn`` by the tiny model, whose scale is 10."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clip/`` with weights alone, as PickScore's repository, and ``processor/`` with the rest, as LAION's."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_clip(folder / "processor", words(), scale=math.log(10))
    (folder / "clip").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(folder / "processor" / name, folder / "clip" / name)
    return folder


@pytest.fixture(autouse=True)
def stand_ins(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_PICKSCORE_V1", str(models / "clip"))
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_H14_PROCESSOR", str(models / "processor"))


def test_the_value_on_committed_inputs_is_pinned() -> None:
    assert metric("pickscore").version == 1
    assert float(np.mean(metric("pickscore").score(*drawn()))) == pytest.approx(VALUE, abs=2e-5)


def test_it_is_clips_own_logit(models: Path) -> None:
    """Against ``CLIPModel.forward`` with the processor of both, as in the model card's script."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    pictures, prompts = drawn()
    beside = models / "processor"
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(beside), CLIPTokenizer.from_pretrained(beside))
    seen = processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
    read = processor(text=[prompt.text for prompt in prompts], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = CLIPModel.from_pretrained(models / "clip").eval()(**seen, **read).logits_per_image.diagonal()
    np.testing.assert_allclose(metric("pickscore").score(pictures, prompts), logits.numpy(), atol=2e-5)


def test_its_gradient() -> None:
    assert check_gradient(metric("pickscore"), near=4e-3) == 0  # of the pictures beside it


def test_clipscore_and_pickscore_of_one_clip_differ_by_the_scale(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = models / "whole"
    shutil.copytree(models / "processor", whole, dirs_exist_ok=True)
    shutil.copytree(models / "clip", whole, dirs_exist_ok=True)
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(whole))
    cosines = np.array(metric("clipscore").score(*drawn()))
    np.testing.assert_allclose(metric("pickscore").score(*drawn()), 10 * cosines, atol=2e-5)


def test_releasing_frees_it_and_the_next_score_loads_it_again() -> None:
    judge = metric("pickscore")
    before = judge.score(*drawn())
    model = clip_vit.load(*judge.assets)
    assert clip_vit.load(*judge.assets) is model
    judge.release()
    judge.release()
    assert judge.score(*drawn()) == before
    assert clip_vit.load(*judge.assets) is not model


def test_records_name_both_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric("pickscore").describe()["weights"].count("stand-in sha256:") == 2
    monkeypatch.delenv("BENCH_ASSET_PICKSCORE_V1")
    monkeypatch.delenv("BENCH_ASSET_CLIP_VIT_H14_PROCESSOR")
    assert metric("pickscore").describe()["weights"] == (
        "yuvalkirstain/PickScore_v1@a4e4367c6dfa7288a00c550414478f865b875800, "
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K@1c2b8495b28150b8a4922ee1c8edee224c284c0c"
    )


def test_a_folder_without_a_tokenizer_ends_in_one_line(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_H14_PROCESSOR", str(models / "clip"))
    assert one_line(metric("pickscore").prepare).startswith(f"{models / 'clip'} is no CLIP model that transformers can")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_cpus_scores() -> None:
    check_on_a_gpu(metric("pickscore"), VALUE)
