"""The benchmark of metrics: real networks are counted as with pencil and paper, stand-ins are called what they are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import common
import metrics
import numpy as np
import pytest
import torch
from stand_ins import stand_ins

from bench import assets, registry
from benchmarks import lpips

L14, H14, BLIP, MASK2FORMER, ALEXNET = metrics.NETWORKS


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of its own, with an empty cache folder and no stand-ins."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
    monkeypatch.setattr(os, "environ", kept | {"BENCH_CACHE": str(tmp_path / "cache")})
    monkeypatch.setattr(common, "HERE", tmp_path)


def vit(tokens: int, width: int, layers: int, patch: int) -> int:
    """FLOPs of a ViT: the patches' projection, and per layer four square products, two of an MLP, two of attention."""
    layer = 2 * tokens * (4 * width**2 + 8 * width**2) + 2 * 2 * tokens**2 * width
    return 2 * (tokens - 1) * 3 * patch**2 * width + layers * layer


def test_the_clips_are_counted_as_on_paper() -> None:
    assert metrics.flops(L14) == vit(257, 1024, 24, 14) + 2 * 1024 * 768
    assert metrics.flops(H14) == vit(257, 1280, 32, 14) + 2 * 1280 * 1024


def test_imagerewards_pair_is_counted_as_on_paper() -> None:
    words, seen, width = 35, 197, 768
    own = 2 * words * 4 * width**2 + 2 * 2 * words**2 * width
    crossed = 2 * words * 2 * width**2 + 2 * seen * 2 * 1024 * width + 2 * 2 * words * seen * width
    reader = 12 * (own + crossed + 2 * words * 8 * width**2)
    assert metrics.flops(BLIP) == vit(seen, 1024, 24, 16) + reader


def test_alexnet_is_the_part_that_lpips_uses() -> None:
    assert metrics.flops(ALEXNET) == lpips.flops(512)


@pytest.mark.parametrize(("what", "millions"), [(L14, 304.0), (H14, 632.1), (MASK2FORMER, 68.7)])
def test_the_networks_have_the_published_number_of_weights(what: str, millions: float) -> None:
    """CLIP: docs/model_profile.csv of mlfoundations/open_clip; Mask2Former: 69M in its paper, arXiv 2112.01527."""
    with torch.device("meta"):
        network = metrics.NETWORKS[what][0]()
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.8)


def test_every_metric_has_its_models_or_stand_ins(tmp_path: Path) -> None:
    needed = {asset for name in registry.table("metrics") for asset in registry.load("metrics", name).assets}
    without = needed - set(stand_ins(tmp_path, common.WORDS))
    assert all(not assets.TABLE[name].stand_in for name in without)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "assets" / "aesthetic_head.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    os.environ["BENCH_ASSET_LPIPS_HEADS"] = str(tmp_path / "own.pth")
    replaced = metrics.equip(["aesthetic_head", "clip_vit_l14", "geneval_classes", "lpips_heads"], tmp_path)
    assert replaced == {"clip_vit_l14", "geneval_classes", "lpips_heads"}
    assert "BENCH_ASSET_AESTHETIC_HEAD" not in os.environ
    assert "BENCH_ASSET_GENEVAL_CLASSES" not in os.environ
    assert os.environ["BENCH_ASSET_LPIPS_HEADS"] == str(tmp_path / "own.pth")


def test_every_turn_has_pictures_of_its_own() -> None:
    sets = [metrics.pictures(name, 2, side, turn) for name in "ab" for side in (64, 512) for turn in (0, 1)]
    assert {image.shape for images in sets for image in images} == {(64, 64, 3), (512, 512, 3)}
    assert len({image.tobytes() for images in sets for image in images}) == 16
    np.testing.assert_array_equal(metrics.pictures("a", 2, 64, 1), sets[1])


def test_the_table_says_what_stood_in_and_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["clipscore", "lpips_diversity", "brightness", "geneval", "world_clipscore"]
    monkeypatch.setattr(metrics, "NETWORKS", {ALEXNET: metrics.NETWORKS[ALEXNET]})
    command = ["metrics.py", *names, "--pictures", "2", "--repeats", "1", "--device", "cpu", "--networks"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", "--machine", "A desk"])
    metrics.main()
    content = json.loads((tmp_path / "metrics-a-desk.json").read_text())
    figures = {figure["what"]: figure for figure in content["figures"]}
    assert list(figures) == [
        *(f"clipscore, {side} px, tiny stand-in" for side in (64, 512)),
        *(f"lpips_diversity, {side} px, random weights" for side in (64, 512)),
        *(f"brightness, {side} px" for side in (64, 512)),
        "world_clipscore, 64 px",
        ALEXNET,
        "AlexNet at 512 px, random weights",
    ]
    assert all(figure["value"] > 0 for figure in figures.values())
    assert figures[ALEXNET]["value"] == pytest.approx(lpips.flops(512) / 1e9)
    assert content["notes"][0].startswith("geneval: not measured: asset geneval_classes is missing; run `bench assets")
    assert "clip_vit_l14" in content["notes"][1]
    assert "- geneval: not measured" in capsys.readouterr().out
