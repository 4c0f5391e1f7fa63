"""LPIPS diversity and Vendi score on models of random weights: values, what they must be, what is refused."""

from __future__ import annotations

import math
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import metric, one_line
from tiny_clip import make_tiny_clip
from tiny_lpips import make_alexnet, make_heads
from torch.nn import functional as F

from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import clip_vit, lpips
from benchmarks.vendi import vendi_score
from data_curation.world import scene
from data_curation.world import vocabulary as V
from data_curation.world.render import render

PINNED = {"lpips_diversity": (1, 0.260215), "vendi": (1, 1.054690), "world_vendi": (2, 1.593001)}
"""Metric → version, mean score of ``repeated`` over its prompts."""


def repeated(n: int = 3) -> list[tuple[list[np.ndarray], list[Prompt]]]:
    """Pictures of one prompt of each task, ``n`` of each."""
    rng = numpy_generator(5, 0, 0, "diversity")
    groups = []
    for tag in V.TASKS:
        prompt = scene.all_prompts(tag)[7]
        pictures = [render(scene.compose(prompt, rng, style=0.7)) for _ in range(n)]
        groups.append((pictures, [Prompt(tag, prompt.text)] * n))
    return groups


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``clip/``, ``alexnet.pth`` and ``heads.pth``."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_clip(folder / "clip", ["red", "circle"])
    make_alexnet(folder / "alexnet.pth")
    make_heads(folder / "heads.pth")
    return folder


@pytest.fixture(autouse=True)
def stand_ins(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(models / "clip"))
    monkeypatch.setenv("BENCH_ASSET_LPIPS_ALEXNET", str(models / "alexnet.pth"))
    monkeypatch.setenv("BENCH_ASSET_LPIPS_HEADS", str(models / "heads.pth"))


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_value_on_committed_inputs_is_pinned(name: str) -> None:
    version, value = PINNED[name]
    assert metric(name).version == version
    scores = [metric(name).score(*group)[0] for group in repeated()]
    assert float(np.mean(scores)) == pytest.approx(value, abs=2e-5)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_all_pictures_of_a_prompt_have_one_number_whatever_their_order(name: str) -> None:
    judge = metric(name)
    assert judge.per_prompt
    pictures, prompts = repeated(4)[0]
    scores = judge.score(pictures, prompts)
    assert len(scores) == 4
    assert len(set(scores)) == 1
    assert judge.score(pictures[::-1], prompts)[0] == pytest.approx(scores[0], abs=1e-6)


@pytest.mark.parametrize(("name", "least"), [("lpips_diversity", 0.0), ("vendi", 1.0), ("world_vendi", 1.0)])
def test_equal_pictures_have_no_diversity_and_different_ones_have_more(name: str, least: float) -> None:
    judge = metric(name)
    pictures, prompts = repeated()[0]
    others = [pictures[0], *(group[0][0] for group in repeated()[1:3])]
    assert judge.score([pictures[0]] * 3, prompts) == pytest.approx([least] * 3, abs=1e-6)
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert judge.score([grey] * 3, prompts) == pytest.approx([least] * 3, abs=1e-6)
    assert least + 1e-4 < judge.score(pictures, prompts)[0] < judge.score(others, prompts)[0]
    assert judge.score([pictures[0], pictures[0], others[1]], prompts)[0] < judge.score(others, prompts)[0]


@pytest.mark.parametrize("name", sorted(PINNED))
def test_one_picture_and_pictures_of_two_prompts_are_refused(name: str) -> None:
    pictures, prompts = repeated()[0]
    with pytest.raises(ValueError, match=f"{name} compares two or more pictures of one prompt; here are 1 of 1"):
        metric(name).score(pictures[:1], prompts[:1])
    with pytest.raises(ValueError, match="here are 3 of 2"):
        metric(name).score(pictures, [*prompts[:2], Prompt("x", "another")])


def by_hand(models: Path, picture: np.ndarray) -> list[np.ndarray]:
    """The five levels' features in float64 from the checkpoint's own numbers, scaled so that LPIPS is a distance²."""
    weights = {k: v.double() for k, v in torch.load(models / "alexnet.pth", weights_only=True).items()}
    heads = torch.load(models / "heads.pth", weights_only=True)
    x = torch.from_numpy(picture.astype(np.float64)).permute(2, 0, 1)[None] / 127.5 - 1
    x = (x - torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)) / torch.tensor(
        [0.458, 0.448, 0.450]
    ).double().view(3, 1, 1)
    levels = []
    for level, (layer, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if level in (1, 2):
            x = F.max_pool2d(x, 3, 2)
        x = F.conv2d(x, weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"], stride, padding).relu()
        unit = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
        share = heads[f"lin{level}.model.1.weight"].double() / (x.shape[2] * x.shape[3])
        levels.append((unit * share.sqrt()).flatten().numpy())
    return levels


def test_lpips_is_the_squared_distance_of_weighted_unit_features(models: Path) -> None:
    pictures = repeated()[1][0]
    rows = [np.concatenate(by_hand(models, picture)) for picture in pictures]
    expected = [[float(((a - b) ** 2).sum()) for b in rows] for a in rows]
    np.testing.assert_allclose(lpips.load().distances(pictures), expected, rtol=2e-5, atol=1e-9)


def test_lpips_diversity_is_twice_the_variance_of_a_prompts_pictures(models: Path) -> None:
    """What its docstring says of the paper's "per-prompt LPIPS variance"."""
    pictures, prompts = repeated(4)[2]
    rows = np.stack([np.concatenate(by_hand(models, picture)) for picture in pictures])
    score = metric("lpips_diversity").score(pictures, prompts)[0]
    assert score == pytest.approx(2 * rows.var(axis=0, ddof=1).sum(), rel=2e-5)
    distances = lpips.load().distances(pictures)
    assert score == pytest.approx(np.mean([distances[i, j] for i, j in combinations(range(4), 2)]), rel=1e-6)


def test_pictures_of_different_sizes_have_no_lpips() -> None:
    pictures, prompts = repeated()[0]
    with pytest.raises(ValueError, match=r"pictures of one size, not \[\(64, 64\), \(64, 80\)\]"):
        metric("lpips_diversity").score([*pictures[:2], np.zeros((64, 80, 3), np.uint8)], prompts)


def test_lpips_depends_neither_on_autocast_nor_on_the_other_pictures() -> None:
    pictures = repeated()[3][0]
    distances = lpips.load().distances(pictures)
    np.testing.assert_array_equal(lpips.load().distances(pictures[:2]), distances[:2, :2])
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(lpips.load().distances(pictures), distances)


@pytest.mark.parametrize("n", [2, 5])
def test_vendi_counts_what_is_different(n: int) -> None:
    assert vendi_score(torch.eye(8)[:n]) == pytest.approx(n, abs=1e-9)
    assert vendi_score(torch.ones(n, 8)) == pytest.approx(1, abs=1e-9)
    assert vendi_score(torch.eye(8)[[0, 1] * n]) == pytest.approx(2, abs=1e-9)
    assert vendi_score(3 * torch.eye(8)[:n]) == pytest.approx(n, abs=1e-9)  # lengths do not count


@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.3, 0.9, 0.9999])
def test_vendi_of_two_pictures_follows_from_their_cosine(cosine: float) -> None:
    """K/2 has the eigenvalues (1 ± cosine) / 2."""
    embeds = torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    halves = [(1 + cosine) / 2, (1 - cosine) / 2]
    assert vendi_score(embeds) == pytest.approx(math.exp(-sum(h * math.log(h) for h in halves)), abs=1e-9)


def test_vendi_stands_on_clips_picture_embeddings() -> None:
    pictures, prompts = repeated(4)[1]
    rows = clip_vit.load().embed_images(pictures).double().numpy()
    eigenvalues = np.linalg.svd(rows / np.linalg.norm(rows, axis=1, keepdims=True), compute_uv=False) ** 2 / 4
    expected = np.exp(-np.sum(eigenvalues * np.log(eigenvalues)))
    assert metric("vendi").score(pictures, prompts)[0] == pytest.approx(expected, abs=1e-9)


def test_flops_of_a_picture_are_those_of_pencil_and_paper() -> None:
    sides = (127, 63, 31, 31, 31)  # of 512 px after each convolution
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    expected = sum(2 * out * into * k * k * s * s for (out, into, k), s in zip(shapes, sides, strict=True))
    assert metric("lpips_diversity").flops_per_image == expected
    assert metric("vendi").flops_per_image == clip_vit.vision_flops()


def test_records_name_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric("lpips_diversity").describe()["weights"].count("stand-in sha256:") == 2
    for name in ("CLIP_VIT_L14", "LPIPS_ALEXNET", "LPIPS_HEADS"):
        monkeypatch.delenv(f"BENCH_ASSET_{name}")
    weights = metric("lpips_diversity").describe()["weights"]
    assert weights.startswith("sha256:7be5be791159")
    assert ", sha256:df73285e35b2" in weights
    assert metric("vendi").describe()["weights"].startswith("openai/clip-vit-large-patch14@32bd642")


@pytest.mark.parametrize("asset", ["lpips_alexnet", "lpips_heads"])
def test_weights_that_are_absent_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str) -> None:
    monkeypatch.delenv(f"BENCH_ASSET_{asset.upper()}")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert one_line(metric("lpips_diversity").prepare).startswith(f"asset {asset} is missing; run `bench assets fetch")


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran-by-a-pickle",))


@pytest.mark.parametrize("content", ["another architecture", "code", "no checkpoint", "a list"])
@pytest.mark.parametrize(
    ("asset", "said"),
    [
        ("lpips_alexnet", "is no AlexNet of torchvision"),
        ("lpips_heads", "is no LPIPS heads for (64, 192, 384, 256, 256) channels"),
    ],
)
def test_files_of_another_kind_are_refused_and_nothing_of_them_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, asset: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if content == "no checkpoint":
        path.write_bytes(b"404: Not Found")
    else:
        weights = {"features.0.weight": torch.zeros(3), "lin0.model.1.weight": torch.zeros(1, 32, 1, 1)}
        torch.save({"another architecture": weights, "code": _Code(), "a list": [1, 2]}[content], path)
    monkeypatch.setenv(f"BENCH_ASSET_{asset.upper()}", str(path))
    assert one_line(metric("lpips_diversity").prepare) == f"{path} {said}"
    assert not (tmp_path / "ran-by-a-pickle").exists()


def test_released_models_are_loaded_again() -> None:
    for judge, load in ((metric("lpips_diversity"), lpips.load), (metric("vendi"), clip_vit.load)):
        judge.prepare()
        before = load()
        assert load() is before
        judge.release()
        assert load() is not before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["lpips_diversity", "vendi"])
def test_a_gpu_gives_the_cpus_scores(name: str) -> None:
    assert lpips.load().device.type == "cuda"
    scores = [metric(name).score(*group)[0] for group in repeated()]
    assert float(np.mean(scores)) == pytest.approx(PINNED[name][1], abs=2e-5)
