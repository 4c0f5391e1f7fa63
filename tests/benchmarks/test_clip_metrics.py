"""ClipScore and Aesthetic on a CLIP of random weights in the real layout: values, preparation, what is refused."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import as_pixels, check_gradient, drawn, metric, one_line, words
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_clip import SIDE, make_head, make_tiny_clip

from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import clip_vit, inference
from benchmarks.metrics import aesthetic

REAL_HEAD = Path(__file__).parents[3] / "shared" / "data" / "sac+logos+ava1-l14-linearMSE.pth"
PINNED = {"clipscore": (1, 0.025734), "aesthetic": (1, -0.204024)}
"""Metric → version, mean score of ``drawn`` by the tiny models."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``clip/`` and ``head.pth``."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_clip(folder / "clip", words())
    make_head(folder / "head.pth")
    return folder


@pytest.fixture(autouse=True)
def stand_ins(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(models / "clip"))
    monkeypatch.setenv("BENCH_ASSET_AESTHETIC_HEAD", str(models / "head.pth"))


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_value_on_committed_inputs_is_pinned(name: str) -> None:
    version, value = PINNED[name]
    assert metric(name).version == version
    assert float(np.mean(metric(name).score(*drawn()))) == pytest.approx(value, abs=2e-5)


def test_clipscore_is_clips_own_logit_without_its_scale(models: Path) -> None:
    """Against ``CLIPModel.forward`` on pictures prepared with PIL by hand; nothing is clamped at zero."""
    from transformers import CLIPModel, CLIPTokenizer

    pictures, prompts = drawn()
    model = CLIPModel.from_pretrained(models / "clip").eval()
    ids = CLIPTokenizer.from_pretrained(models / "clip")([p.text for p in prompts], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**ids, pixel_values=torch.stack([by_hand(picture) for picture in pictures]))
    expected = (out.logits_per_image.diagonal() / model.logit_scale.exp()).detach().numpy()
    scores = np.array(metric("clipscore").score(pictures, prompts))
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    assert scores.min() < 0.01 < scores.max()


def by_hand(picture: np.ndarray) -> torch.Tensor:
    """openai/CLIP's preparation: shorter side by PIL's bicubic filter, centre crop, mean and deviation."""
    image = Image.fromarray(picture)
    width, height = image.size
    short = min(width, height)
    image = image.resize((int(SIDE * width / short), int(SIDE * height / short)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float64) / 255
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return torch.from_numpy((pixels - mean) / deviation).permute(2, 0, 1).float()


@pytest.mark.parametrize("shape", [(64, 64), (48, 32), (90, 131), (SIDE, SIDE), (20, 20)])
def test_pictures_are_prepared_as_by_openai_clip(shape: tuple[int, int]) -> None:
    picture = numpy_generator(3, 0, 0, "picture").integers(0, 256, (*shape, 3)).astype(np.uint8)
    prepared = clip_vit.load().prepare([picture])
    assert prepared.shape == (1, 3, SIDE, SIDE)
    torch.testing.assert_close(prepared[0], by_hand(picture), atol=1e-5, rtol=0)


def test_aesthetic_is_the_head_on_the_normalised_embedding(models: Path) -> None:
    pictures, prompts = drawn()
    embeds = clip_vit.load().embed_images(pictures)
    np.testing.assert_allclose(embeds.norm(dim=1), 1, atol=1e-6)
    rows = embeds.double().numpy()
    weights = torch.load(models / "head.pth", weights_only=True)
    for number in (0, 2, 4, 6, 7):
        rows = rows @ weights[f"layers.{number}.weight"].double().numpy().T
        rows = rows + weights[f"layers.{number}.bias"].double().numpy()
    np.testing.assert_allclose(metric("aesthetic").score(pictures, prompts), rows[:, 0], rtol=1e-4)


def test_aesthetic_ignores_the_prompt_and_clipscore_does_not() -> None:
    pictures, prompts = drawn()
    others = [replace(prompt, text="four rings") for prompt in prompts]
    assert metric("aesthetic").score(pictures, prompts) == metric("aesthetic").score(pictures, others)
    assert metric("clipscore").score(pictures, prompts) != metric("clipscore").score(pictures, others)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_scores_depend_neither_on_the_batch_nor_on_autocast(name: str) -> None:
    pictures, prompts = drawn()
    judge = metric(name)
    pictures, prompts = pictures * 2, prompts * 2  # more than one batch
    assert len(pictures) > inference.BATCH
    together = judge.score(pictures, prompts)
    alone = [judge.score([p], [q])[0] for p, q in zip(pictures[:5], prompts[:5], strict=True)]
    np.testing.assert_allclose(together[:5], alone, atol=2e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert judge.score(pictures, prompts) == together


@pytest.mark.parametrize(("name", "near"), [("clipscore", 4e-4), ("aesthetic", 2e-3)])
def test_a_gradient_reaches_the_pictures(name: str, near: float) -> None:
    check_gradient(metric(name), near)


def test_gradients_do_not_come_from_the_prompt_alone() -> None:
    """One prompt's picture does not change another's score."""
    pictures, prompts = drawn()
    pixels = as_pixels(pictures[:2])
    (gradient,) = torch.autograd.grad(metric("clipscore").differentiable_score(pixels, prompts[:2])[0], pixels)
    assert gradient[0].norm() > 0
    assert gradient[1].norm() == 0


def test_releasing_frees_the_model_for_both_and_the_next_score_loads_it_again() -> None:
    before = metric("clipscore").score(*drawn())
    model = clip_vit.load()
    metric("aesthetic").release()
    assert metric("clipscore").score(*drawn()) == before
    assert clip_vit.load() is not model


def test_a_long_prompt_is_cut_at_the_models_tokens() -> None:
    pictures, _ = drawn()
    long = "red circle " * 60
    longer = Prompt("1", long + "blue")
    assert np.isfinite(metric("clipscore").score(pictures[:1], [longer])[0])
    assert metric("clipscore").score(pictures[:1], [longer]) == metric("clipscore").score(
        pictures[:1], [Prompt("0", long)]
    )


def test_flops_of_a_picture_are_those_of_pencil_and_paper() -> None:
    tokens, width, patches = (SIDE // 14) ** 2 + 1, 32, (SIDE // 14) ** 2
    layer = 4 * width * width + 2 * tokens * width + 2 * width * 64  # projections, attention, MLP: per token
    tower = 2 * patches * width * 3 * 14 * 14 + 2 * 2 * tokens * layer + 2 * width * 768
    head = 2 * (768 * 1024 + 1024 * 128 + 128 * 64 + 64 * 16 + 16)
    assert metric("clipscore").flops_per_image == tower
    assert metric("aesthetic").flops_per_image == tower + head


def test_records_name_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric("clipscore").describe()["weights"].startswith("stand-in sha256:")
    monkeypatch.delenv("BENCH_ASSET_CLIP_VIT_L14")
    monkeypatch.delenv("BENCH_ASSET_AESTHETIC_HEAD")
    clip = "openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"
    assert metric("clipscore").describe()["weights"] == clip
    assert metric("aesthetic").describe()["weights"].startswith(f"{clip}, sha256:21dd590f3ccd")


@pytest.mark.parametrize(("name", "asset"), [("clipscore", "clip_vit_l14"), ("aesthetic", "aesthetic_head")])
def test_a_model_that_is_absent_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asset: str
) -> None:
    import huggingface_hub.constants

    monkeypatch.delenv(f"BENCH_ASSET_{asset.upper()}")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    judge = metric(name)
    for call in (judge.prepare, lambda: judge.score(*drawn())):
        assert one_line(call).startswith(f"asset {asset} is missing; run `bench assets fetch {asset}`")


def broken(models: Path, folder: Path, how: str) -> Path:
    """A copy of the tiny CLIP that is damaged in one way."""
    shutil.copytree(models / "clip", folder)
    if how == "another model":
        (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "weights absent":
        weights = load_file(folder / "model.safetensors")
        weights.pop("visual_projection.weight")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif how == "another size":
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["intermediate_size"] = 48
        (folder / "config.json").write_text(json.dumps(config))
    elif how == "cut short":
        os.truncate(folder / "model.safetensors", 1000)
    elif how == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("another model", "its config.json says 'siglip'"),
        ("no config", "config.json"),
        ("weights absent", "1 of its weights are absent, visual_projection.weight first"),
        ("another size", ""),
        ("cut short", ""),
        ("pickle", "model.safetensors"),
    ],
)
def test_a_folder_that_is_no_such_clip_is_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    folder = broken(models, tmp_path / "clip", how)
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(folder))
    message = one_line(metric("clipscore").prepare)
    assert message.startswith(f"{folder.resolve()} is no CLIP model that transformers can load: ")
    assert said in message


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran-by-a-pickle",))


@pytest.mark.parametrize("content", ["another architecture", "code", "no checkpoint"])
def test_a_file_that_is_no_such_head_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "head.pth"
    if content == "another architecture":
        torch.save(torch.nn.Linear(768, 1).state_dict(), path)
    elif content == "code":
        torch.save(_Code(), path)
    else:
        path.write_bytes(b"404: Not Found")
    monkeypatch.setenv("BENCH_ASSET_AESTHETIC_HEAD", str(path))
    message = one_line(metric("aesthetic").prepare)
    assert message.endswith("is no aesthetic head of linear layers 768-1024-128-64-16-1")
    assert not (tmp_path / "ran-by-a-pickle").exists()


def test_a_clip_of_another_width_does_not_meet_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_clip(tmp_path / "clip", ["red"], width=64)
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(tmp_path / "clip"))
    assert one_line(metric("aesthetic").prepare) == (
        "the aesthetic head takes embeddings of width 768; this CLIP's have 64"
    )


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)])
def test_a_picture_of_another_form_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="and not uint8"):
        metric("clipscore").score([picture], [Prompt("0", "a circle")])


@pytest.mark.skipif(not REAL_HEAD.exists(), reason="the aesthetic head is not beside this checkout")
def test_the_real_heads_value_is_pinned() -> None:
    vector = torch.from_numpy(numpy_generator(6, 0, 0, "embedding").normal(0, 1, (1, 768))).float()
    head = aesthetic.load_head(REAL_HEAD)
    assert float(head(torch.nn.functional.normalize(vector))) == pytest.approx(5.26436, abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_gpu_gives_the_cpus_scores_whatever_precision_training_chose(name: str) -> None:
    assert clip_vit.load().device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert float(np.mean(metric(name).score(*drawn()))) == pytest.approx(PINNED[name][1], abs=2e-5)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
