"""A CLIP of random weights in the layout of openai/clip-vit-large-patch14, small enough to run in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.rng import numpy_generator

SIDE, TOKENS = 56, 24


def make_tiny_clip(folder: Path, words: Sequence[str], *, width: int = 768, scale: float | None = None) -> None:
    """Save one: 14 px patches of 56 px pictures, two layers of width 32 a tower, embeddings of ``width``.

    ``scale``: the logarithm of its logits' scale.

    As in the real one, the end token has the highest id and stands for padding, the configuration says 2 for it all the
    same, and the preprocessor's sizes are bare numbers. The weights come from this project's generator, so that a
    pinned score depends on nothing but the computation.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    from bench.backbone.pretrain.text import make_clip_tokenizer

    learned = json.loads(make_clip_tokenizer(words).backend_tokenizer.to_str())["model"]
    special = ["<|startoftext|>", "<|endoftext|>"]
    ordinary = [token for token in learned["vocab"] if token not in special]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate([*ordinary, *special])},
        merges=[tuple(pair) for pair in learned["merges"]],
        model_max_length=TOKENS,
    )
    tower = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    model = CLIPModel(
        CLIPConfig(
            text_config=dict(
                vocab_size=len(tokenizer), max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=2, **tower
            ),
            vision_config=dict(image_size=SIDE, patch_size=14, **tower),
            projection_dim=width,
        )
    )
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            spread = 0.5 if "embedding" in name else 0.3
            noise = numpy_generator(14, 0, 0, f"tiny-clip {name}").normal(0, spread, weight.shape)
            weight.copy_(torch.from_numpy(noise) + (1 if "norm" in name and name.endswith("weight") else 0))
        if scale is not None:
            model.logit_scale.fill_(scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessor = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": True,
        "size": SIDE,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": SIDE,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def make_head(path: Path) -> None:
    """Save an aesthetic head of random weights under the real checkpoint's names."""
    from benchmarks.metrics.aesthetic import Head

    weights = {
        name: torch.from_numpy(numpy_generator(15, 0, 0, name).normal(0, 0.1, weight.shape)).float()
        for name, weight in Head().state_dict().items()
    }
    torch.save(weights, path)
