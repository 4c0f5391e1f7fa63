"""HPSv2.1 on an open_clip model of random weights in the real checkpoint's layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import check_gradient, check_on_a_gpu, drawn, metric, one_line
from tiny_open_clip import SIDE, TOKENS, make_tiny_open_clip

from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import inference, pixels

VALUE = -0.044548
"""Mean score of ``drawn`` by the tiny model."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hps") / "hps.pt"
    make_tiny_open_clip(path)
    return path


@pytest.fixture(autouse=True)
def stand_in(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_HPSV2_1", str(checkpoint))


def test_the_value_on_committed_inputs_is_pinned() -> None:
    assert metric("hpsv2").version == 1
    assert float(np.mean(metric("hpsv2").score(*drawn()))) == pytest.approx(VALUE, abs=2e-5)


def test_it_is_open_clips_cosine(checkpoint: Path, tmp_path: Path) -> None:
    """Against ``open_clip.create_model`` with a configuration of its own and open_clip's ``longest`` transform."""
    import json

    import open_clip

    config = {
        "embed_dim": 48,
        "vision_cfg": {
            "image_size": SIDE,
            "patch_size": 14,
            "width": 160,
            "layers": 2,
            "head_width": 80,
            "mlp_ratio": 2,
        },
        "text_cfg": {
            "context_length": TOKENS,
            "vocab_size": 49408,
            "width": 128,
            "heads": 2,
            "layers": 2,
            "mlp_ratio": 2,
        },
    }
    (tmp_path / "tiny-hps.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-hps.json")
    model = open_clip.create_model("tiny-hps", pretrained=str(checkpoint)).eval()
    pictures, prompts = drawn()
    seen = torch.cat([prepared_by_torchvision(picture) for picture in pictures])
    tokenizer = open_clip.SimpleTokenizer(context_length=TOKENS)
    with torch.no_grad():
        eyes = model.encode_image(seen, normalize=True)
        words = model.encode_text(tokenizer([prompt.text for prompt in prompts]), normalize=True)
    np.testing.assert_allclose(metric("hpsv2").score(pictures, prompts), (eyes * words).sum(1), atol=2e-6)


def prepared_by_torchvision(picture: np.ndarray) -> torch.Tensor:
    """The package's steps: tensor, resize until the longer side fits, black around, mean and deviation."""
    from torchvision.transforms import InterpolationMode, Normalize, ToTensor
    from torchvision.transforms import functional as F

    tensor = ToTensor()(picture)
    height, width = picture.shape[:2]
    if max(height, width) != SIDE:
        height, width = (round(length * SIDE / max(height, width)) for length in (height, width))
        tensor = F.resize(tensor, [height, width], InterpolationMode.BICUBIC)
    down, right = SIDE - height, SIDE - width
    tensor = F.pad(tensor, [right // 2, down // 2, right - right // 2, down - down // 2])
    return Normalize([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])(tensor)[None]


@pytest.mark.parametrize("shape", [(64, 64), (48, 32), (90, 131), (SIDE, SIDE), (20, 20), (SIDE, 31)])
def test_pictures_are_prepared_as_by_the_package(shape: tuple[int, int]) -> None:
    picture = numpy_generator(3, 0, 0, "picture").integers(0, 256, (*shape, 3)).astype(np.uint8)
    prepared = pixels.normalised(pixels.longest_side(pixels.from_picture(picture), SIDE))
    torch.testing.assert_close(prepared, prepared_by_torchvision(picture), atol=1e-5, rtol=0)


def test_the_real_sizes_are_read_from_the_weights() -> None:
    """ViT-H-14 on the meta device: what is read of its weights builds the same again."""
    import open_clip

    from benchmarks.open_clip_model import sizes_of

    config = open_clip.get_model_config("ViT-H-14")
    with torch.device("meta"):
        real = open_clip.CLIP(**config)
        again = open_clip.CLIP(**sizes_of(real.state_dict()))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
    assert again.visual.transformer.resblocks[0].attn.num_heads == 16
    assert again.transformer.resblocks[0].attn.num_heads == 16


def test_its_gradient() -> None:
    assert check_gradient(metric("hpsv2"), near=1e-6) == 0  # of the pictures beside it


def test_scores_depend_neither_on_the_batch_nor_on_autocast_nor_on_the_shape_beside() -> None:
    pictures, prompts = drawn()
    judge = metric("hpsv2")
    pictures, prompts = pictures * 2, prompts * 2  # more than one batch
    assert len(pictures) > inference.BATCH
    together = judge.score(pictures, prompts)
    alone = [judge.score([p], [q])[0] for p, q in zip(pictures[:5], prompts[:5], strict=True)]
    np.testing.assert_allclose(together[:5], alone, atol=2e-6)
    other = np.zeros((30, 70, 3), np.uint8)
    np.testing.assert_allclose(judge.score([*pictures[:3], other], prompts[:4])[:3], alone[:3], atol=2e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert judge.score(pictures, prompts) == together


def test_a_long_prompt_is_cut_and_an_empty_one_is_scored() -> None:
    pictures, _ = drawn()
    long = "red circle " * 60
    judge = metric("hpsv2")
    assert judge.score(pictures[:1], [Prompt("1", long + "blue")]) == judge.score(pictures[:1], [Prompt("0", long)])
    assert np.isfinite(judge.score(pictures[:1], [Prompt("2", "")])[0])


def test_flops_of_a_picture_are_those_of_pencil_and_paper() -> None:
    patches, width = (SIDE // 14) ** 2, 160
    tokens = patches + 1
    layer = 4 * width * width + 2 * tokens * width + 2 * width * 2 * width  # projections, attention, MLP: per token
    ends = 2 * patches * width * 3 * 14 * 14 + 2 * width * 48
    assert metric("hpsv2").flops_per_image == ends + 2 * 2 * tokens * layer


def test_releasing_frees_it_and_the_next_score_loads_it_again() -> None:
    from benchmarks.open_clip_model import OpenClip

    judge = metric("hpsv2")
    before = judge.score(*drawn())
    model = inference.loaded(OpenClip, *judge.assets)
    judge.release()
    assert judge.score(*drawn()) == before
    assert inference.loaded(OpenClip, *judge.assets) is not model


def test_records_name_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric("hpsv2").describe()["weights"].startswith("stand-in sha256:")
    monkeypatch.delenv("BENCH_ASSET_HPSV2_1")
    assert metric("hpsv2").describe()["weights"].startswith("sha256:c57a38fb4a2f")


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights.pop(name)


def _heads_of_another_width(weights: dict[str, torch.Tensor]) -> None:
    weights["visual.conv1.weight"] = torch.zeros(96, 3, 14, 14)


def _one_more(weights: dict[str, torch.Tensor]) -> None:
    weights["visual.extra.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("visual.conv1.weight"), "visual.conv1.weight"),
        (_without("visual.ln_pre.bias"), 'Missing key(s) in state_dict: "visual.ln_pre.bias"'),
        (_without("transformer.resblocks.1.ln_1.bias"), "Missing key(s)"),
        (_heads_of_another_width, "96 and 128 are no multiples"),
        (_one_more, 'Unexpected key(s) in state_dict: "visual.extra.weight"'),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, torch.Tensor]], object],
    said: str,
) -> None:
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    change(weights)
    torch.save({"state_dict": weights}, tmp_path / "other.pt")
    monkeypatch.setenv("BENCH_ASSET_HPSV2_1", str(tmp_path / "other.pt"))
    message = one_line(metric("hpsv2").prepare)
    assert message.startswith(f"{tmp_path / 'other.pt'} is no checkpoint of open_clip's ViT-H-14: ")
    assert said in message


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran-by-a-pickle",))


@pytest.mark.parametrize("content", ["bare weights", "code", "no checkpoint", "a list"])
def test_a_file_of_another_kind_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hps.pt"
    if content == "no checkpoint":
        path.write_bytes(b"404: Not Found")
    else:
        held = {"bare weights": {"a": torch.zeros(1)}, "code": _Code(), "a list": [torch.zeros(1)]}[content]
        torch.save(held, path)
    monkeypatch.setenv("BENCH_ASSET_HPSV2_1", str(path))
    assert one_line(metric("hpsv2").prepare).startswith(f"{path} is no checkpoint of open_clip's ViT-H-14: ")
    assert not (tmp_path / "ran-by-a-pickle").exists()


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)])
def test_a_picture_of_another_form_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="and not uint8"):
        metric("hpsv2").score([picture], [Prompt("0", "a circle")])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_cpus_scores() -> None:
    check_on_a_gpu(metric("hpsv2"), VALUE)
