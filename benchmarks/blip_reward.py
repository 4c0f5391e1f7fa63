"""ImageReward's model, BLIP with an MLP on its text's first token, from the official checkpoint onto transformers.

The official package is image-reward 1.5 (``ImageReward/ImageReward.py``, ``models/BLIP/``): a ViT-L/16 as timm has it,
a BERT with cross-attention to the picture, and linear layers without activations between them. It does not import
beside current transformers; the weights fit ``BlipVisionModel`` and ``BlipTextModel`` under other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.backbone.loader import quiet
from bench.errors import BenchError
from benchmarks import inference, pixels

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the raw reward; ``ImageReward/ImageReward.py``."""
TOKENS = 35
HEAD = 64
"""Width of an attention head in both encoders: the one size that the weights do not show."""
PICTURE = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.(\w+)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm(\d)\.(\w+)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"encoder.layers.\1.self_attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc\d)\.(\w+)", r"encoder.layers.\1.mlp.\2.\3"),
    (r"norm\.(\w+)", r"post_layernorm.\1"),
)
"""Names of timm's ViT and of ``BlipVisionModel``. The text encoder's are the same on both sides."""
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")


class BlipReward:
    """ImageReward on the current GPU, or on the CPU; its sizes are read from its weights.

    Args:
        checkpoint: ``ImageReward.pt``, or a folder that holds it. Nothing but tensors is unpickled.
        vocabulary: BERT's ``vocab.txt``.

    Raises:
        BenchError: one of them is something else.
    """

    def __init__(self, checkpoint: Path, vocabulary: Path) -> None:
        quiet()
        path = checkpoint / "ImageReward.pt" if checkpoint.is_dir() else checkpoint
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            with torch.device("meta"):
                model = _Reward(*sizes_of(weights))
            model.load_state_dict(_renamed(weights), assign=True)
        except inference.UNREAD as error:
            raise BenchError(f"{path} is no checkpoint of ImageReward: {inference.why_unread(error)}") from error
        model.place_positions()
        self.device = inference.device()
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        self.side: int = model.vision.config.image_size
        self.tokenizer = _tokenizer(vocabulary, model.text.config.vocab_size)

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """What the model is given for uint8 (H, W, 3) pictures: torchvision's bicubic resize in PIL, centre crop."""
        from PIL import Image
        from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

        inference.check_pictures(images)
        steps = Compose([Resize(self.side, InterpolationMode.BICUBIC), CenterCrop(self.side), ToTensor()])
        return pixels.normalised(torch.stack([steps(Image.fromarray(image)) for image in images]))

    def rewards(self, prepared: Tensor, texts: Sequence[str]) -> Tensor:
        """Normalised rewards (N,) of N prepared pictures, each with its own text, on the model's device."""
        ids = self.tokenizer(
            list(texts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        ).to(self.device)
        raw: Tensor = self.model(prepared.to(self.device), ids.input_ids, ids.attention_mask)
        return (raw - MEAN) / DEVIATION

    def score(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> Tensor:
        """Normalised rewards of uint8 (H, W, 3) pictures with their texts: float32 (N,) on the CPU."""
        return inference.in_batches(lambda part, words: self.rewards(self.prepare(part), words), images, texts)

    def score_pixels(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """``score`` for tensors (N, 3, H, W) in [0, 1], resized as tensors, with a gradient to them."""
        from torchvision.transforms.functional import center_crop

        with inference.exact():
            resized = pixels.shorter_side(pictures.to(self.device).float(), self.side)
            return self.rewards(pixels.normalised(center_crop(resized, [self.side])), texts)

    @cached_property
    def flops(self) -> float:
        """FLOPs of scoring one pair."""
        from bench.flops import count, meta_twin

        twin = meta_twin(self.model)
        with torch.device("meta"):
            picture, ids = torch.empty(1, 3, self.side, self.side), torch.zeros(1, TOKENS, dtype=torch.long)
        with torch.no_grad():
            return count(lambda: twin(picture, ids, torch.ones_like(ids)))


class _Reward(nn.Module):
    """The network: raw rewards (N,) of pictures and token ids."""

    def __init__(self, vision: Any, text: Any) -> None:
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        self.vision: Any = BlipVisionModel(vision)
        self.text: Any = BlipTextModel(text, add_pooling_layer=False)
        widths = (text.hidden_size, 1024, 128, 64, 16, 1)
        self.mlp = nn.ModuleDict(
            {name: nn.Linear(widths[i], widths[i + 1]) for i, name in enumerate("02467")}  # dropouts count in the names
        )

    def place_positions(self) -> None:
        """Fill the table of positions, which is no weight and so not in the file."""
        table = self.text.embeddings
        table.position_ids = torch.arange(self.text.config.max_position_embeddings)[None]

    def forward(self, pictures: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        seen = self.vision(pixel_values=pictures).last_hidden_state
        padding = (1 - mask.to(seen.dtype))[:, None, None] * torch.finfo(seen.dtype).min
        read = self.text(input_ids=ids, attention_mask=padding, encoder_hidden_states=seen).last_hidden_state
        features: Tensor = read[:, 0]
        for layer in self.mlp.values():
            features = layer(features)
        return features[:, 0]


def sizes_of(weights: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """Configurations of the two encoders that fit these weights. KeyError where one is absent."""
    from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig

    eye, reader = "blip.visual_encoder", "blip.text_encoder"
    patches, words = weights[f"{eye}.patch_embed.proj.weight"], weights[f"{reader}.embeddings.word_embeddings.weight"]
    side, seen, width = patches.shape[2], patches.shape[0], words.shape[1]
    if seen % HEAD or width % HEAD:
        raise ValueError(f"its widths {seen} and {width} are no multiples of a head's {HEAD}")
    vision = BlipVisionConfig(
        hidden_size=seen,
        intermediate_size=len(weights[f"{eye}.blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=inference.layers(weights, f"{eye}.blocks."),
        num_attention_heads=seen // HEAD,
        image_size=round((weights[f"{eye}.pos_embed"].shape[1] - 1) ** 0.5) * side,
        patch_size=side,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    text = BlipTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        encoder_hidden_size=seen,
        intermediate_size=len(weights[f"{reader}.encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=inference.layers(weights, f"{reader}.encoder.layer."),
        num_attention_heads=width // HEAD,
        max_position_embeddings=len(weights[f"{reader}.embeddings.position_embeddings.weight"]),
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        sep_token_id=None,
        is_decoder=True,  # gives it the layers of cross-attention; it still reads in both directions
    )
    return vision, text


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official names turned into those of ``_Reward``; what has no counterpart keeps its name, and is refused."""
    renamed = {}
    for name, weight in weights.items():
        if name.startswith(UNUSED):
            continue
        part, _, rest = name.removeprefix("blip.").partition(".")
        if part == "visual_encoder":
            new = next((re.sub(old, to, rest) for old, to in PICTURE if re.fullmatch(old, rest)), rest)
            renamed[f"vision.{new}"] = weight
        elif part == "text_encoder":
            renamed[f"text.{rest}"] = weight
        else:
            renamed[name.replace("mlp.layers.", "mlp.")] = weight
    return renamed


def _tokenizer(vocabulary: Path, words: int) -> Any:
    """BERT's, with the two tokens that BLIP adds after its words. BenchError unless that fits the model's table."""
    from transformers import BertTokenizer

    try:
        tokenizer: Any = BertTokenizer(str(vocabulary), do_lower_case=True)
        tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise BenchError(f"{vocabulary} is no vocabulary of BERT") from error
    if len(tokenizer) != words:
        raise BenchError(f"{vocabulary} makes {len(tokenizer)} tokens of the {words} that the model was fitted to")
    return tokenizer
