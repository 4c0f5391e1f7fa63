"""A Mask2Former of random weights in the layout of mmdet's checkpoints, small enough to run in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from bench.rng import numpy_generator

WIDTH, WINDOW, HEADS, DEPTHS = 8, 7, (1, 2, 4, 8), (1, 2, 1, 1)
FEATURES, QUERIES, CLASSES, FEED = 32, 20, 80, 48
DEFORMABLE_HEADS, LEVELS, POINTS = 4, 3, 4
ENCODER_LAYERS, DECODER_LAYERS = 2, 4
SIZES = {
    "width": WIDTH,
    "depths": DEPTHS,
    "heads": HEADS,
    "features": FEATURES,
    "queries": QUERIES,
    "feed": FEED,
    "deformable_heads": DEFORMABLE_HEADS,
    "encoder_layers": ENCODER_LAYERS,
    "decoder_layers": DECODER_LAYERS,
}
"""For who builds the same model in mmdet."""
SCALES = {
    "query_feat": 3.0,
    "query_embed": 1.0,
    "level_e": 1.0,
    "cls_embed.weight": 0.9,
    "cls_embed.bias": 0.5,
    "mask_feature.bias": 0.1,
    "output_convs": 1.0,
    "mask_embed.4": 1.0,
    "sampling_offsets.bias": 2.0,
    "transformer_decoder.layers": 0.1,
}
"""Part of a name → deviation of its weights: queries stay apart, so that classes, masks and boxes do."""
Shape = tuple[int, ...]


def shapes() -> dict[str, Shape]:
    """mmdet 2.x's names → shapes."""
    return dict([*_backbone(), *_pixel_decoder(), *_query_decoder()])


def make_tiny_mask2former(path: Path, *, newer: bool = False) -> None:
    """Save one as mmdet 2.x publishes it, or under mmdet 3.x's names if ``newer``.

    Class scores are spread widely, so that some pass GenEval's thresholds and some do not. The weights come from this
    project's generator, so that a pinned value depends on nothing but the computation.
    """
    weights = {name: _drawn(name, shape) for name, shape in shapes().items()}
    if newer:
        weights = {newer_name(name): weight for name, weight in weights.items()}
    for stage, depth in enumerate(DEPTHS):  # a constant of mmdet's that its checkpoints hold too
        for block in range(depth):
            name = f"backbone.stages.{stage}.blocks.{block}.attn.w_msa.relative_position_index"
            weights[name] = torch.zeros(WINDOW**2, WINDOW**2, dtype=torch.long)
    torch.save({"meta": {"mmdet_version": "2.23.0", "CLASSES": ("person",)}, "state_dict": weights}, path)


def _drawn(name: str, shape: Shape) -> torch.Tensor:
    scale = next((scale for part, scale in SCALES.items() if part in name), 0.25)
    noise = numpy_generator(16, 0, 0, f"tiny-mask2former {name}").normal(0, scale, shape)
    norm = ("norm" in name or ".gn." in name) and name.endswith("weight")
    return (torch.from_numpy(noise) + (1 if norm else 0)).float()


def newer_name(name: str) -> str:
    """mmdet 2.x's name of a weight → mmdet 3.x's."""
    decoder = "transformer_decoder" in name
    name = name.replace("attentions.0.", "cross_attn." if decoder else "self_attn.")
    return name.replace("attentions.1.", "self_attn.").replace("ffns.0.", "ffn.")


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _feed_forward(name: str, width: int, inner: int) -> Iterator[tuple[str, Shape]]:
    yield from _linear(f"{name}.layers.0.0", width, inner)
    yield from _linear(f"{name}.layers.1", inner, width)


def _backbone() -> Iterator[tuple[str, Shape]]:
    yield "backbone.patch_embed.projection.weight", (WIDTH, 3, 4, 4)
    yield "backbone.patch_embed.projection.bias", (WIDTH,)
    yield from _norm("backbone.patch_embed.norm", WIDTH)
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        width = WIDTH * 2**stage
        for block in range(depth):
            name = f"backbone.stages.{stage}.blocks.{block}"
            yield from _norm(f"{name}.norm1", width)
            yield f"{name}.attn.w_msa.relative_position_bias_table", ((2 * WINDOW - 1) ** 2, heads)
            yield from _linear(f"{name}.attn.w_msa.qkv", width, 3 * width)
            yield from _linear(f"{name}.attn.w_msa.proj", width, width)
            yield from _norm(f"{name}.norm2", width)
            yield from _feed_forward(f"{name}.ffn", width, 4 * width)
        if stage < 3:
            yield from _norm(f"backbone.stages.{stage}.downsample.norm", 4 * width)
            yield from _linear(f"backbone.stages.{stage}.downsample.reduction", 4 * width, 2 * width, bias=False)
        yield from _norm(f"backbone.norm{stage}", width)


def _pixel_decoder() -> Iterator[tuple[str, Shape]]:
    head = "panoptic_head.pixel_decoder"
    for level in range(LEVELS):
        yield f"{head}.input_convs.{level}.conv.weight", (FEATURES, WIDTH * 2 ** (3 - level), 1, 1)
        yield f"{head}.input_convs.{level}.conv.bias", (FEATURES,)
        yield from _norm(f"{head}.input_convs.{level}.gn", FEATURES)
    for layer in range(ENCODER_LAYERS):
        name = f"{head}.encoder.layers.{layer}"
        points = DEFORMABLE_HEADS * LEVELS * POINTS
        yield from _linear(f"{name}.attentions.0.sampling_offsets", FEATURES, 2 * points)
        yield from _linear(f"{name}.attentions.0.attention_weights", FEATURES, points)
        yield from _linear(f"{name}.attentions.0.value_proj", FEATURES, FEATURES)
        yield from _linear(f"{name}.attentions.0.output_proj", FEATURES, FEATURES)
        yield from _feed_forward(f"{name}.ffns.0", FEATURES, FEED)
        yield from _norm(f"{name}.norms.0", FEATURES)
        yield from _norm(f"{name}.norms.1", FEATURES)
    yield f"{head}.level_encoding.weight", (LEVELS, FEATURES)
    yield f"{head}.lateral_convs.0.conv.weight", (FEATURES, WIDTH, 1, 1)
    yield from _norm(f"{head}.lateral_convs.0.gn", FEATURES)
    yield f"{head}.output_convs.0.conv.weight", (FEATURES, FEATURES, 3, 3)
    yield from _norm(f"{head}.output_convs.0.gn", FEATURES)
    yield f"{head}.mask_feature.weight", (FEATURES, FEATURES, 1, 1)
    yield f"{head}.mask_feature.bias", (FEATURES,)


def _query_decoder() -> Iterator[tuple[str, Shape]]:
    for layer in range(DECODER_LAYERS):
        name = f"panoptic_head.transformer_decoder.layers.{layer}"
        for attention in range(2):
            yield f"{name}.attentions.{attention}.attn.in_proj_weight", (3 * FEATURES, FEATURES)
            yield f"{name}.attentions.{attention}.attn.in_proj_bias", (3 * FEATURES,)
            yield from _linear(f"{name}.attentions.{attention}.attn.out_proj", FEATURES, FEATURES)
        yield from _feed_forward(f"{name}.ffns.0", FEATURES, FEED)
        for norm in range(3):
            yield from _norm(f"{name}.norms.{norm}", FEATURES)
    yield from _norm("panoptic_head.transformer_decoder.post_norm", FEATURES)
    yield "panoptic_head.query_embed.weight", (QUERIES, FEATURES)
    yield "panoptic_head.query_feat.weight", (QUERIES, FEATURES)
    yield "panoptic_head.level_embed.weight", (LEVELS, FEATURES)
    yield from _linear("panoptic_head.cls_embed", FEATURES, CLASSES + 1)
    for layer in (0, 2, 4):
        yield from _linear(f"panoptic_head.mask_embed.{layer}", FEATURES, FEATURES)
