"""GenEval's colours: crops, open_clip's preparation and model on the same random weights, the choice among ten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import drawn
from tiny_clip import SIDE, TOKENS, make_tiny_clip

from benchmarks import clip_vit, geneval_colours
from benchmarks.clip_vit import ClipViT
from benchmarks.geneval_colours import cut_out
from benchmarks.geneval_detector import Instance
from benchmarks.geneval_prompts import COLOURS
from benchmarks.remembered import Remembered

WORDS = [*COLOURS, "a", "photo", "of", "colored", "object", "cat", "hair", "drier", "-"]
PINNED = ["white", "white", "white", "white", "blue", "white"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "clip"
    make_tiny_clip(found, WORDS)
    return found


@pytest.fixture
def clip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ClipViT:
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(folder))
    monkeypatch.setattr(geneval_colours, "colours", Remembered(64))
    return clip_vit.load()


def found(mask: np.ndarray, name: str = "cat") -> Instance:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = (float(x0), float(y0), float(x1), float(y1))
    return Instance(name, box, 0.9, np.packbits(mask[y0:y1, x0:x1]).tobytes())


def ellipse(height: int, width: int, row: float, column: float, tall: float, wide: float) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.asarray(((y - row) / tall) ** 2 + ((x - column) / wide) ** 2 < 1)


MASKS = [ellipse(64, 64, *shape) for shape in [(30, 30, 20, 20), (20, 40, 11, 21), (40, 22, 21, 4), (50, 50, 9, 12.5)]]


@pytest.mark.parametrize("mask", MASKS)
def test_a_crop_is_grey_where_the_object_is_not(mask: np.ndarray) -> None:
    """As GenEval makes it with PIL."""
    from PIL import Image

    picture, one = drawn()[0][0], found(mask)
    blank = Image.new("RGB", (64, 64), color="#999")
    whole = Image.composite(Image.fromarray(picture), blank, Image.fromarray(mask))
    np.testing.assert_array_equal(cut_out(picture, one), np.asarray(whole.crop(one.box)))


@pytest.mark.parametrize("size", [(40, 40), (41, 22), (9, 42), (333, 511), (57, 200), (1, 3), (56, 59)])
def test_crops_are_prepared_as_open_clip_does(clip: ClipViT, size: tuple[int, int]) -> None:
    """Odd remainders too, which transformers centres elsewhere."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    from PIL import Image

    picture = np.tile(drawn()[0][0], (8, 8, 1))[: size[0], : size[1]]
    transform = open_clip.image_transform(SIDE, is_train=False)
    theirs = transform(Image.fromarray(picture))
    (ours,) = clip.prepare([geneval_colours.centred(picture, SIDE)])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def in_open_clip(folder: Path) -> Any:
    """open_clip's CLIP with OpenAI's activation, filled with the tiny CLIP's weights."""
    from open_clip.model import CLIP
    from transformers import CLIPModel

    source = CLIPModel.from_pretrained(folder)
    weights, config = dict(source.state_dict()), source.config
    tower = dict(layers=config.vision_config.num_hidden_layers, mlp_ratio=2.0)
    model = CLIP(
        config.projection_dim,
        dict(image_size=SIDE, patch_size=14, width=32, head_width=16, **tower),
        dict(context_length=TOKENS, vocab_size=config.text_config.vocab_size, width=32, heads=2, **tower),
        quick_gelu=True,
    )
    filled = {
        "logit_scale": weights["logit_scale"],
        "visual.class_embedding": weights["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": weights["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": weights["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": weights["visual_projection.weight"].T,
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "text_projection": weights["text_projection.weight"].T,
    }
    for part in ("weight", "bias"):
        filled[f"visual.ln_pre.{part}"] = weights[f"vision_model.pre_layrnorm.{part}"]
        filled[f"visual.ln_post.{part}"] = weights[f"vision_model.post_layernorm.{part}"]
        filled[f"ln_final.{part}"] = weights[f"text_model.final_layer_norm.{part}"]
        for theirs, ours in (("visual.", "vision_model"), ("", "text_model")):
            for layer in range(2):
                new, old = f"{theirs}transformer.resblocks.{layer}", f"{ours}.encoder.layers.{layer}"
                filled[f"{new}.attn.in_proj_{part}"] = torch.cat(
                    [weights[f"{old}.self_attn.{one}_proj.{part}"] for one in "qkv"]
                )
                for name, other in (
                    ("attn.out_proj", "self_attn.out_proj"),
                    ("ln_1", "layer_norm1"),
                    ("ln_2", "layer_norm2"),
                    ("mlp.c_fc", "mlp.fc1"),
                    ("mlp.c_proj", "mlp.fc2"),
                ):
                    filled[f"{new}.{name}.{part}"] = weights[f"{old}.{other}.{part}"]
    model.load_state_dict(filled)
    return model.eval()


def test_transformers_clip_is_open_clips(clip: ClipViT, folder: Path) -> None:
    """Pictures, GenEval's classifier built from single texts as ``zero_shot_classifier`` does, and the choice."""
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    model = in_open_clip(folder)
    crops = [cut_out(picture, found(mask)) for picture, mask in zip(drawn()[0], MASKS, strict=False)]
    prepared = torch.cat([clip.prepare([geneval_colours.centred(crop, SIDE)]) for crop in crops])
    with torch.no_grad():
        pictures = torch.nn.functional.normalize(model.encode_image(prepared), dim=-1)
        directions = []
        for colour in COLOURS:
            texts = [
                f"a photo of a {colour} cat",
                f"a photo of a {colour}-colored cat",
                f"a photo of a {colour} object",
            ]
            ids = clip.tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
            mean = torch.nn.functional.normalize(model.encode_text(ids.input_ids), dim=-1).mean(0)
            directions.append(mean / mean.norm())
    theirs = pictures @ torch.stack(directions).T
    ours = torch.cat([clip.embed_images([geneval_colours.centred(crop, SIDE)]) for crop in crops])
    ours = ours @ geneval_colours.classifier(clip, "cat").T
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
    chosen = [geneval_colours.colour(picture, found(mask)) for picture, mask in zip(drawn()[0], MASKS, strict=False)]
    assert chosen == [COLOURS[number] for number in theirs.argmax(1)]


def test_the_colours_of_committed_pictures_are_pinned(clip: ClipViT) -> None:
    pictures = drawn()[0]
    chosen = [geneval_colours.colour(pictures[number], found(MASKS[number % 4], "hair drier")) for number in range(6)]
    assert chosen == PINNED


def test_a_crop_is_looked_at_once(clip: ClipViT, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    embed = clip.embed_images
    monkeypatch.setattr(clip, "embed_images", lambda images: asked.append(len(images)) or embed(images))
    picture = drawn()[0][0]
    for _ in range(2):
        for mask in MASKS[:2]:
            geneval_colours.colour(picture, found(mask))
    assert asked == [1, 1]
    geneval_colours.colour(picture, found(MASKS[0], "hair drier"))
    assert asked == [1, 1, 1]


def test_the_direction_of_a_colour_is_a_unit(clip: ClipViT) -> None:
    directions = geneval_colours.classifier(clip, "cat")
    assert directions.shape == (10, clip.width)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(10))
