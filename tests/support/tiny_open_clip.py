"""A checkpoint of random weights in the layout of HPS_v2.1_compressed.pt, small enough to run in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.rng import numpy_generator

SIDE, TOKENS = 56, 24


def make_tiny_open_clip(path: Path, *, width: int = 160) -> None:
    """Save one: 14 px patches of 56 px pictures, two layers a tower, two heads each, half precision as in the real one.

    The vocabulary is the real one's, since open_clip's tokenizer comes with it.
    """
    import open_clip

    model = open_clip.CLIP(
        embed_dim=48,
        vision_cfg=dict(image_size=SIDE, patch_size=14, width=width, layers=2, head_width=80, mlp_ratio=2),
        text_cfg=dict(context_length=TOKENS, vocab_size=49408, width=128, heads=2, layers=2, mlp_ratio=2),
    )
    weights = {}
    for name, weight in model.state_dict().items():
        scale = 0.5 if "embedding" in name else 0.2
        noise = numpy_generator(16, 0, 0, f"tiny-open-clip {name}").normal(0, scale, weight.shape)
        plus = 1 if "ln_" in name and name.endswith("weight") else 0
        weights[name] = (torch.as_tensor(noise) + plus).half()
    torch.save({"state_dict": weights}, path)
