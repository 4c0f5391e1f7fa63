"""A Mask2Former checkpoint of mmdet, read as transformers' Mask2Former: sizes, names, and the order of channels.

The names are those that mmdet 2.x (GenEval's ``…743b7d99.pth``) and 3.x (``…c9d0c4f2.pth``, the same training) give
their layers: ``mmdet/models/backbones/swin.py``, ``layers/msdeformattn_pixel_decoder.py`` and
``dense_heads/mask2former_head.py`` of mmdet 3.3.0, and the same model of mmdet 2.28.2.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError

LEVELS, POINTS = 3, 4
"""Feature levels and sampling points of the deformable attention: mmdet's configuration, and fixed in transformers."""

_SWIN = "model.pixel_level_module.encoder.swin."
_PIXEL = "model.pixel_level_module.decoder."
_QUERY = "model.transformer_module."
_NORM = "model.pixel_level_module.encoder.hidden_states_norms.stage"

_OLDER = (
    (r"(pixel_decoder\.encoder\.layers\.\d+\.)attentions\.0\.", r"\1self_attn."),
    (r"(transformer_decoder\.layers\.\d+\.)attentions\.0\.", r"\1cross_attn."),
    (r"(transformer_decoder\.layers\.\d+\.)attentions\.1\.", r"\1self_attn."),
    (r"(\.layers\.\d+\.)ffns\.0\.", r"\1ffn."),
)
"""mmdet 2.x → mmdet 3.x."""

_NAMES = (
    (r"backbone\.patch_embed\.projection\.", rf"{_SWIN}embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", rf"{_SWIN}embeddings.norm."),
    *((rf"backbone\.norm{i}\.", f"{_NORM}{i + 1}.") for i in range(4)),
    (r"backbone\.stages\.(\d+)\.downsample\.", rf"{_SWIN}encoder.layers.\1.downsample."),
    (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", rf"{_SWIN}encoder.layers.\1.blocks.\2."),
    (r"(blocks\.\d+\.)norm1\.", r"\1layernorm_before."),
    (r"(blocks\.\d+\.)norm2\.", r"\1layernorm_after."),
    (r"attn\.w_msa\.relative_position_bias_table$", "attention.relative_position_bias.relative_position_bias_table"),
    (r"attn\.w_msa\.proj\.", "attention.o_proj."),
    (r"attn\.w_msa\.qkv\.", "attention.qkv."),
    (r"(blocks\.\d+\.)ffn\.", r"\1mlp."),
    (r"(mlp|ffn)\.layers\.0\.0\.", r"\1.fc1."),
    (r"(mlp|ffn)\.layers\.1\.", r"\1.fc2."),
    (r"panoptic_head\.pixel_decoder\.", _PIXEL),
    (r"(decoder\.input)_convs\.(\d)\.conv\.", r"\1_projections.\2.0."),
    (r"(decoder\.input)_convs\.(\d)\.gn\.", r"\1_projections.\2.1."),
    (r"decoder\.lateral_convs\.0\.conv\.", "decoder.adapter_1.0."),
    (r"decoder\.lateral_convs\.0\.gn\.", "decoder.adapter_1.1."),
    (r"decoder\.output_convs\.0\.conv\.", "decoder.layer_1.0."),
    (r"decoder\.output_convs\.0\.gn\.", "decoder.layer_1.1."),
    (r"decoder\.mask_feature\.", "decoder.mask_projection."),
    (r"decoder\.level_encoding\.weight$", "decoder.level_embed"),
    (r"(decoder\.encoder\.layers\.\d+\.)norms\.0\.", r"\1self_attn_layer_norm."),
    (r"(decoder\.encoder\.layers\.\d+\.)norms\.1\.", r"\1final_layer_norm."),
    (r"panoptic_head\.transformer_decoder\.post_norm\.", rf"{_QUERY}decoder.layernorm."),
    (r"panoptic_head\.transformer_decoder\.", rf"{_QUERY}decoder."),
    (r"(module\.decoder\.layers\.\d+\.)norms\.0\.", r"\1cross_attn_layer_norm."),
    (r"(module\.decoder\.layers\.\d+\.)norms\.1\.", r"\1self_attn_layer_norm."),
    (r"(module\.decoder\.layers\.\d+\.)norms\.2\.", r"\1final_layer_norm."),
    (r"(cross_attn|self_attn)\.attn\.", r"\1."),
    (r"(layers\.\d+\.)ffn\.", r"\1"),
    (r"panoptic_head\.query_embed\.", rf"{_QUERY}queries_embedder."),
    (r"panoptic_head\.query_feat\.", rf"{_QUERY}queries_features."),
    (r"panoptic_head\.level_embed\.", rf"{_QUERY}level_embed."),
    (r"panoptic_head\.cls_embed\.", "class_predictor."),
    (r"panoptic_head\.mask_embed\.0\.", rf"{_QUERY}decoder.mask_predictor.mask_embedder.0.0."),
    (r"panoptic_head\.mask_embed\.2\.", rf"{_QUERY}decoder.mask_predictor.mask_embedder.1.0."),
    (r"panoptic_head\.mask_embed\.4\.", rf"{_QUERY}decoder.mask_predictor.mask_embedder.2.0."),
)
"""mmdet 3.x → transformers, each applied in turn."""


def read(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint under mmdet 3.x's names. Only tensors and plain values are unpickled.

    Raises:
        BenchError: it is no checkpoint of mmdet's Mask2Former.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name: weight.float() for name, weight in content.get("state_dict", content).items()}
    except (RuntimeError, pickle.UnpicklingError, TypeError, AttributeError, EOFError) as error:
        raise no_mask2former(path, "it does not hold named weights") from error
    return {_renamed(name, _OLDER): weight for name, weight in weights.items()}


def sizes(path: Path, weights: dict[str, Tensor]) -> Any:
    """The ``Mask2FormerConfig`` that the shapes of mmdet's weights call for.

    What no shape tells is mmdet's configuration: patches of 4, three levels of four sampling points, GELU in Swin and
    ReLU elsewhere, norms after each part.
    """
    from transformers import Mask2FormerConfig, SwinConfig

    try:
        return _sizes(weights, Mask2FormerConfig, SwinConfig)
    except KeyError as error:
        raise no_mask2former(path, f"{error.args[0]} is not among its weights") from error
    except (IndexError, ValueError) as error:
        raise no_mask2former(path, "its weights have other shapes") from error


def _sizes(weights: dict[str, Tensor], whole: Any, swin: Any) -> Any:
    def shape(name: str) -> torch.Size:
        return weights[name].shape

    def layers(prefix: str) -> int:
        numbers = (int(match[1]) for name in weights if (match := re.match(rf"{prefix}\.(\d+)\.", name)))
        return 1 + max(numbers, default=-1)

    table = "backbone.stages.{}.blocks.0.attn.w_msa.relative_position_bias_table"
    width = shape("backbone.patch_embed.projection.weight")[0]
    depths = [layers(rf"backbone\.stages\.{stage}\.blocks") for stage in range(4)]
    backbone = swin(
        embed_dim=width,
        depths=depths,
        num_heads=[shape(table.format(stage))[1] for stage in range(4)],
        window_size=(round(shape(table.format(0))[0] ** 0.5) + 1) // 2,
        mlp_ratio=shape("backbone.stages.0.blocks.0.ffn.layers.0.0.weight")[0] / width,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    head, pixel = "panoptic_head.", "panoptic_head.pixel_decoder."
    return whole(
        backbone_config=backbone,
        feature_size=shape(f"{pixel}mask_feature.weight")[1],
        mask_feature_size=shape(f"{pixel}mask_feature.weight")[0],
        hidden_dim=shape(f"{head}query_feat.weight")[1],
        num_queries=shape(f"{head}query_feat.weight")[0],
        num_attention_heads=shape(f"{pixel}encoder.layers.0.self_attn.attention_weights.bias")[0] // (LEVELS * POINTS),
        encoder_layers=layers(r"panoptic_head\.pixel_decoder\.encoder\.layers"),
        encoder_feedforward_dim=shape(f"{pixel}encoder.layers.0.ffn.layers.0.0.weight")[0],
        decoder_layers=1 + layers(r"panoptic_head\.transformer_decoder\.layers"),
        dim_feedforward=shape(f"{head}transformer_decoder.layers.0.ffn.layers.0.0.weight")[0],
        num_labels=shape(f"{head}cls_embed.weight")[0] - 1,
    )


def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """mmdet's weights under transformers' names, fused projections split and merged patches in transformers' order."""
    result: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.endswith("relative_position_index"):
            continue  # a constant that transformers computes
        if re.search(r"downsample\.(reduction|norm)\.", name):
            weight = _merged_patches(weight)
        new = _renamed(name, _NAMES)
        if ".qkv." in new:
            _split(result, new, ".qkv.", weight)
        elif "self_attn.in_proj_" in new:
            _split(result, new.replace("in_proj_", "in_proj."), ".in_proj.", weight)
        else:
            result[new] = weight
    return result


def _split(result: dict[str, Tensor], name: str, fused: str, weight: Tensor) -> None:
    for part, piece in zip("qkv", weight.chunk(3), strict=True):
        result[name.replace(fused, f".{part}_proj.")] = piece


def _merged_patches(weight: Tensor) -> Tensor:
    """Four merged patches' channels, from mmdet's order to transformers'.

    mmdet unfolds: channel first, then row, then column. transformers joins whole patches: column, then row, then
    channel. The channels of (out, 4C) weights and of (4C,) norms are the last dimension.
    """
    split = weight.reshape(*weight.shape[:-1], -1, 2, 2)  # (…, channel, row, column)
    return split.transpose(-3, -1).reshape(weight.shape)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def no_mask2former(path: Path, reason: str) -> BenchError:
    """The one line for a checkpoint of another model."""
    return BenchError(f"{path} is no Mask2Former with a Swin backbone in mmdet's layout: {reason}")
