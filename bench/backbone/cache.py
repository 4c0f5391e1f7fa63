"""Latents and text embeddings of a subset, computed once and kept: never per step, and the same for every method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from bench import records
from bench.backbone.loader import Backbone, TextCondition
from bench.corpus import Corpus, Manifest
from bench.errors import BenchError
from bench.job import TrainingData
from bench.suite import Prompt


def training_data(
    backbone: Backbone,
    corpus: Corpus,
    manifest: Manifest,
    cache: Path,
    tick: Callable[[int], None] = lambda pairs: None,
) -> TrainingData:
    """Latents, captions and their conditions of a subset's pairs, from the cache or encoded now.

    The cache is keyed by the contents of the subset and of the backbone, so neither can be mixed up with another.
    """
    texts = sorted({corpus.caption(i) for i in manifest.indices})
    row = {text: i for i, text in enumerate(texts)}
    path = cache / "encoded" / f"{backbone.fingerprint[:16]}-{manifest.content_hash[:16]}.safetensors"
    if not path.exists():
        pixels = np.stack([corpus.image(i) for i in manifest.indices])
        latents = backbone.encode_images(pixels)
        condition = backbone.encode_prompts(texts)
        tensors = {
            "latents": latents.contiguous(),
            "prompt_embeds": condition.prompt_embeds.contiguous(),
            "pooled_prompt_embeds": condition.pooled_prompt_embeds.contiguous(),
        }
        records.write_bytes(path, save(tensors))
    try:
        tensors = load_file(path)
    except Exception as error:
        raise BenchError(f"{path} is damaged; delete it and it is encoded again") from error
    tick(len(manifest.indices))
    return TrainingData(
        latents=tensors["latents"],
        text=TextCondition(tensors["prompt_embeds"], tensors["pooled_prompt_embeds"]),
        prompts=tuple(Prompt(str(i), text) for i, text in enumerate(texts)),
        text_of=torch.tensor([row[corpus.caption(i)] for i in manifest.indices]),
    )
