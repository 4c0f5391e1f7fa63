"""GenEval's detector on a Mask2Former of random weights in mmdet's layout: reading, preparing, finding, thresholds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_mask2former
import torch
from drawn import drawn, one_line
from tiny_mask2former import QUERIES, make_tiny_mask2former

from bench.rng import numpy_generator
from benchmarks import geneval_detector, mask2former, mmdet_weights
from benchmarks.mask2former import Instances, Mask2Former
from benchmarks.remembered import Remembered

PINNED = {
    "labels": [64, 29, 29, 29, 61, 64],
    "scores": [0.963718, 0.957188, 0.938543, 0.934406, 0.912360, 0.888242],
    "pixels": [3546, 378, 2916, 262, 3947, 53],
    "boxes": [[0, 0, 64, 64], [0, 0, 64, 64], [3, 0, 64, 62], [0, 0, 64, 64], [17, 0, 64, 53], [0, 0, 64, 64]],
}
"""The six surest instances of the first picture of ``drawn``, and the boxes of every tenth."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("detector") / "mask2former.pth"
    make_tiny_mask2former(found)
    return found


@pytest.fixture(scope="module")
def model(path: Path) -> Mask2Former:
    return Mask2Former(path)


@pytest.fixture(scope="module")
def instances(model: Mask2Former) -> Instances:
    return model(drawn()[0][0])


@pytest.fixture
def stand_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_GENEVAL_DETECTOR", str(path))
    monkeypatch.setattr(geneval_detector, "class_names", lambda: tuple(f"thing {number}" for number in range(80)))
    monkeypatch.setattr(geneval_detector, "pictures", Remembered(4))
    geneval_detector.release()


# -- the checkpoint ----------------------------------------------------------------------------------------------------


def test_the_values_on_a_committed_picture_are_pinned(instances: Instances) -> None:
    assert instances.labels[:6].tolist() == PINNED["labels"]
    assert instances.scores[:6] == pytest.approx(PINNED["scores"], abs=2e-5)
    assert instances.masks[:6].sum((1, 2)).tolist() == PINNED["pixels"]
    assert instances.boxes[:60:10].tolist() == PINNED["boxes"]


def test_both_generations_of_names_are_the_same_model(model: Mask2Former, tmp_path: Path) -> None:
    make_tiny_mask2former(tmp_path / "newer.pth", newer=True)
    newer = Mask2Former(tmp_path / "newer.pth").model.state_dict()
    assert all(torch.equal(weight, newer[name]) for name, weight in model.model.state_dict().items())


def test_merged_patches_keep_their_channels(path: Path) -> None:
    """mmdet unfolds 2 x 2 patches; transformers' layer with converted weights gives the same."""
    from transformers.models.swin.modeling_swin import SwinPatchMerging

    weights = mmdet_weights.read(path)
    name = "backbone.stages.1.downsample."
    width = weights[f"{name}norm.weight"].numel() // 4
    pixels = torch.from_numpy(numpy_generator(1, 0, 0, "merge").normal(0, 1, (2, width, 6, 4))).float()
    unfolded = torch.nn.functional.unfold(pixels, 2, stride=2).transpose(1, 2)
    normed = torch.nn.functional.layer_norm(
        unfolded, [4 * width], weights[f"{name}norm.weight"], weights[f"{name}norm.bias"]
    )
    layer = SwinPatchMerging(width)
    new = mmdet_weights.converted({key: value for key, value in weights.items() if key.startswith(name)})
    layer.load_state_dict({key.partition(".downsample.")[2]: value for key, value in new.items()})
    with torch.no_grad():
        ours = layer(pixels.flatten(2).transpose(1, 2), (6, 4))
    torch.testing.assert_close(ours, normed @ weights[f"{name}reduction.weight"].T, atol=1e-5, rtol=1e-5)


def test_sizes_are_read_from_the_weights(model: Mask2Former) -> None:
    config = model.config
    assert (config.num_queries, config.num_labels, config.decoder_layers) == (QUERIES, 80, 5)
    assert (config.num_attention_heads, config.feature_size, config.encoder_layers) == (4, 32, 2)
    assert config.backbone_config.depths == [1, 2, 1, 1]
    assert config.backbone_config.num_heads == [1, 2, 4, 8]
    assert config.backbone_config.window_size == 7


def test_the_real_checkpoints_sizes_are_those_of_mmdets_swin_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight has its place in the model that transformers' own defaults and a Swin-S make."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    full = dict(WIDTH=96, HEADS=(3, 6, 12, 24), DEPTHS=(2, 2, 18, 2), FEATURES=256, QUERIES=100, DEFORMABLE_HEADS=8)
    for name, value in (full | dict(ENCODER_LAYERS=6, DECODER_LAYERS=9, FEED=1024)).items():
        monkeypatch.setattr(tiny_mask2former, name, value)
    shapes = {tiny_mask2former.newer_name(name): shape for name, shape in tiny_mask2former.shapes().items()}
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = mmdet_weights.sizes(Path("checkpoint.pth"), weights)
    usual = Mask2FormerConfig(dim_feedforward=1024)  # the tiny one has one width for both decoders
    for name in ("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward"):
        assert getattr(config, name) == getattr(usual, name)
    for name in ("encoder_layers", "decoder_layers", "num_attention_heads", "num_queries", "pre_norm", "dropout"):
        assert getattr(config, name) == getattr(usual, name)
    for name in ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "patch_size", "layer_norm_eps"):
        assert np.array_equal(getattr(config.backbone_config, name), getattr(usual.backbone_config, name))
    with torch.device("meta"):
        model = Mask2FormerForUniversalSegmentation(config)
    new = mmdet_weights.converted(weights)
    places = {name: weight.shape for name, weight in model.named_parameters() if ".swin.layernorm." not in name}
    assert {name: weight.shape for name, weight in new.items()} == places


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran-by-a-pickle",))


def _drop(name: str) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        del weights[name]

    return change


def _grow(name: str) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        weights[name] = torch.zeros(*(2 * side for side in weights[name].shape))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop("panoptic_head.cls_embed.weight"), "panoptic_head.cls_embed.weight is not among its weights"),
        (_drop("panoptic_head.mask_embed.2.bias"), "1 of its weights are absent, "),
        (lambda weights: weights.update(extra=torch.zeros(1)), "1 weights have no place, extra first"),
        (_grow("panoptic_head.mask_embed.2.bias"), "mask_embedder.1.0.bias"),
        (
            _drop("backbone.stages.3.blocks.0.attn.w_msa.relative_position_bias_table"),
            "_table is not among its weights",
        ),
        (lambda weights: weights.update({"panoptic_head.cls_embed.weight": torch.tensor(0.0)}), "other shapes"),
        (lambda weights: weights.clear(), "is not among its weights"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    path: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    content = torch.load(path, weights_only=True)
    change(content["state_dict"])
    torch.save(content, tmp_path / "other.pth")
    message = one_line(lambda: Mask2Former(tmp_path / "other.pth"))
    assert message.startswith(f"{tmp_path / 'other.pth'} is no Mask2Former with a Swin backbone in mmdet's layout: ")
    assert said in message


@pytest.mark.parametrize("content", ["code", "no checkpoint", "a list"])
def test_a_file_that_holds_no_weights_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.pth"
    if content == "no checkpoint":
        path.write_bytes(b"404: Not Found")
    else:
        torch.save(_Code() if content == "code" else [1, 2], path)
    assert one_line(lambda: Mask2Former(path)).endswith("it does not hold named weights")
    assert not (tmp_path / "ran-by-a-pickle").exists()


# -- preparation and instances -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "filled", "whole"),
    [
        ((64, 64), (800, 800), (800, 800)),
        ((512, 512), (800, 800), (800, 800)),
        ((96, 64), (1200, 800), (1216, 800)),
        ((100, 300), (444, 1333), (448, 1344)),
    ],
)
def test_pictures_are_scaled_and_padded_with_grey(
    size: tuple[int, int], filled: tuple[int, int], whole: tuple[int, int]
) -> None:
    picture = np.full((*size, 3), (200, 100, 50), np.uint8)
    pixels, part = mask2former.prepare(picture)
    assert part == filled
    assert pixels.shape == (1, 3, *whole)
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    inside = pixels[0, :, : filled[0], : filled[1]].flatten(1).numpy()
    np.testing.assert_allclose(
        inside.T, np.broadcast_to((np.array([200, 100, 50]) - mean) / deviation, inside.T.shape), atol=1e-5
    )
    outside = torch.cat([pixels[0, :, filled[0] :].flatten(1), pixels[0, :, :, filled[1] :].flatten(1)], 1).numpy()
    np.testing.assert_allclose(outside.T, np.broadcast_to((128 - mean) / deviation, outside.T.shape), atol=1e-5)


def test_resizing_rounds_to_eight_bits() -> None:
    """Half a pixel between black and white is a whole number of 255ths."""
    pixels, _ = mask2former.prepare(drawn()[0][0])
    levels = pixels[0].permute(1, 2, 0).numpy() * (58.395, 57.12, 57.375) + (123.675, 116.28, 103.53)
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)


def test_instances_by_hand() -> None:
    """Two queries, three classes: pairs by probability, masks where logits are positive, boxes around them."""
    classes = torch.tensor([[4.0, 0, 0, 0], [0, 0, 3.0, 0]])
    masks = torch.full((2, 5, 6), -1.0)
    masks[0, 1:3, 2:5] = 2.0
    found = mask2former.instances(classes, masks)
    first = float(torch.tensor([4.0, 0, 0, 0]).softmax(0)[0] * torch.sigmoid(torch.tensor(2.0)))
    assert found.labels[0] == 0
    assert found.scores[0] == pytest.approx(first, abs=1e-5)
    assert found.boxes[0].tolist() == [2, 1, 5, 3]
    assert found.masks[0].sum() == 6
    assert len(found.scores) == 6  # every pair of query and class, fewer than 100
    assert (np.diff(found.scores) <= 0).all()
    empty = found.scores == 0
    assert empty.sum() == 3
    assert (found.boxes[empty] == 0).all()


def test_no_more_than_a_hundred_are_kept() -> None:
    found = mask2former.instances(torch.zeros(20, 81), torch.ones(20, 4, 4))
    assert len(found.scores) == 100


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)])
def test_a_picture_of_another_form_is_refused(model: Mask2Former, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="and not uint8"):
        model(picture)


# -- GenEval's objects -------------------------------------------------------------------------------------------------


def stub(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The detector finds these in every picture; the list counts how often it is asked."""
    asked: list[int] = []

    def look(image: np.ndarray) -> Instances:
        asked.append(1)
        return instances

    monkeypatch.setattr(geneval_detector, "load", lambda: look)
    return asked


def many(scores: list[float], labels: list[int] | None = None) -> Instances:
    masks = np.zeros((len(scores), 64, 64), bool)
    masks[:, 3:9, 5:8] = True
    masks[:, 3, 5] = False
    boxes = np.tile(np.float32([5, 3, 8, 9]), (len(scores), 1))
    return Instances(np.array(labels or [0] * len(scores)), np.float32(scores), boxes, masks)


@pytest.mark.usefixtures("stand_in")
def test_thresholds_differ_where_objects_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stub(many([0.95, 0.91, 0.8, 0.31, 0.29, 0.1]), monkeypatch)
    picture = np.zeros((64, 64, 3), np.uint8)
    assert len(geneval_detector.detect(picture)) == 4
    assert [one.confidence for one in geneval_detector.detect(picture, counting=True)] == pytest.approx([0.95, 0.91])
    assert len(asked) == 1


@pytest.mark.usefixtures("stand_in")
def test_at_most_sixteen_of_a_class_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(many([0.9] * 18 + [0.5] * 2, [3] * 18 + [4] * 2), monkeypatch)
    found = geneval_detector.detect(np.zeros((64, 64, 3), np.uint8))
    assert [one.name for one in found] == ["thing 3"] * 16 + ["thing 4"] * 2


@pytest.mark.usefixtures("stand_in")
def test_masks_are_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    instances = many([0.9])
    stub(instances, monkeypatch)
    (found,) = geneval_detector.detect(np.zeros((64, 64, 3), np.uint8))
    assert found.box == (5, 3, 8, 9)
    np.testing.assert_array_equal(found.mask(64, 64), instances.masks[0])


@pytest.mark.usefixtures("stand_in")
def test_confidences_that_are_no_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(replace(many([0.9, 0.8]), scores=np.float32([0.9, np.nan])), monkeypatch)
    with pytest.raises(ValueError, match="not all numbers"):
        geneval_detector.detect(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.usefixtures("stand_in")
def test_another_picture_is_looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stub(many([0.9]), monkeypatch)
    pictures = [np.zeros((64, 64, 3), np.uint8), np.ones((64, 64, 3), np.uint8), np.zeros((32, 128, 3), np.uint8)]
    for picture in [*pictures, *pictures]:
        geneval_detector.detect(picture)
    assert len(asked) == 3


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    made: list[str] = []
    memory: Remembered[int] = Remembered(2)
    for key in "abacb":
        assert memory.get(key, lambda key=key: made.append(key) or ord(key)) == ord(key)  # type: ignore[func-returns-value, misc]
    assert made == ["a", "b", "c", "b"]


def test_a_detector_of_other_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_mask2former, "CLASSES", 7)
    make_tiny_mask2former(tmp_path / "seven.pth")
    monkeypatch.setenv("BENCH_ASSET_GENEVAL_DETECTOR", str(tmp_path / "seven.pth"))
    assert one_line(geneval_detector.load) == (
        f"GenEval's detector knows 80 classes; the one in {tmp_path / 'seven.pth'} knows 7"
    )


@pytest.mark.usefixtures("stand_in")
def test_released_it_loads_again_and_what_was_found_stays() -> None:
    picture = drawn()[0][0]
    before, first = geneval_detector.detect(picture), geneval_detector.load()
    geneval_detector.release()
    assert geneval_detector.detect(picture) == before
    assert geneval_detector.load() is not first


@pytest.mark.usefixtures("stand_in")
def test_flops_are_those_of_matrix_products_and_convolutions() -> None:
    assert geneval_detector.flops() == pytest.approx(2265797792)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_what_the_cpu_finds(model: Mask2Former) -> None:
    assert model.device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        found = model(drawn()[0][0])
        assert found.labels[:6].tolist() == PINNED["labels"]
        assert found.scores[:6] == pytest.approx(PINNED["scores"], abs=1e-4)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
