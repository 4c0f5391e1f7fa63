"""A checkpoint of random weights in the layout of ImageReward.pt, and a vocabulary in BERT's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bench.rng import numpy_generator

SIDE, PATCH, LAYERS, WIDTH, INNER = 48, 16, 2, 128, 192
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_vocabulary(path: Path, words: Sequence[str]) -> int:
    """Save the words, the letters, and pieces of a letter. Returns how many there are."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.'\""
    lines = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    lines += sorted({word.lower() for word in words} - set(lines))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def make_tiny_image_reward(path: Path, words: int) -> None:
    """Save one for a vocabulary of ``words`` and BLIP's two more. Its widths are 2 heads, as are both encoders'."""
    weights = {}
    for name, shape in _shapes(words + 2):
        scale = shape[-1] ** -0.5 if len(shape) == 2 and "embeddings" not in name else 0.3
        noise = numpy_generator(17, 0, 0, f"tiny-blip {name}").normal(0, scale, shape)
        plus = 1 if "norm" in name.lower() and name.endswith("weight") else 0
        weights[name] = torch.as_tensor(noise + plus).float()
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(weights, path)


def _shapes(words: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    eye, reader = "blip.visual_encoder.", "blip.text_encoder."
    yield f"{eye}cls_token", (1, 1, WIDTH)
    yield f"{eye}pos_embed", (1, (SIDE // PATCH) ** 2 + 1, WIDTH)
    yield f"{eye}patch_embed.proj.weight", (WIDTH, 3, PATCH, PATCH)
    yield f"{eye}patch_embed.proj.bias", (WIDTH,)
    for layer in range(LAYERS):
        yield from _norm(f"{eye}blocks.{layer}.norm1")
        yield from _linear(f"{eye}blocks.{layer}.attn.qkv", WIDTH, 3 * WIDTH)
        yield from _linear(f"{eye}blocks.{layer}.attn.proj", WIDTH, WIDTH)
        yield from _norm(f"{eye}blocks.{layer}.norm2")
        yield from _linear(f"{eye}blocks.{layer}.mlp.fc1", WIDTH, INNER)
        yield from _linear(f"{eye}blocks.{layer}.mlp.fc2", INNER, WIDTH)
    yield from _norm(f"{eye}norm")
    yield f"{reader}embeddings.word_embeddings.weight", (words, WIDTH)
    yield f"{reader}embeddings.position_embeddings.weight", (64, WIDTH)
    yield from _norm(f"{reader}embeddings.LayerNorm")
    for layer in range(LAYERS):
        block = f"{reader}encoder.layer.{layer}."
        for attention in ("attention", "crossattention"):
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                yield from _linear(f"{block}{attention}.{part}", WIDTH, WIDTH)
            yield from _norm(f"{block}{attention}.output.LayerNorm")
        yield from _linear(f"{block}intermediate.dense", WIDTH, INNER)
        yield from _linear(f"{block}output.dense", INNER, WIDTH)
        yield from _norm(f"{block}output.LayerNorm")
    for name in ("vision_proj", "text_proj"):
        yield from _linear(f"blip.{name}", WIDTH, 32)
    widths = (WIDTH, 1024, 128, 64, 16, 1)
    for i, number in enumerate((0, 2, 4, 6, 7)):
        yield from _linear(f"mlp.layers.{number}", widths[i], widths[i + 1])


def _linear(name: str, inside: int, outside: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outside, inside)
    yield f"{name}.bias", (outside,)


def _norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (WIDTH,)
    yield f"{name}.bias", (WIDTH,)
