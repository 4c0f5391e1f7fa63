"""What a rehearsed job works with: a pipeline without weights, data without content, a reward without a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone, BackboneSpec, Held
from bench.encoded.ahead import AheadText
from bench.machine.engine import Engine
from bench.metric import Metric
from bench.plan.architecture import Architecture
from bench.prompt import Prompt
from bench.rehearsal.encoders import text_pipeline
from bench.rehearsal.tape import TEXT, VAE, WEIGHTS, Tape
from bench.training.data import Preferences, TrainingData

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

PAIRS = 64
"""Pairs of the corpus. A batch that wants more goes round it."""
SHIFT = 3.0
"""Of SD3's scheduler; no memory hangs on it."""


class PretendedBackbone(Backbone):
    """A pipeline of an architecture on the pretended device. Its weights have shapes, and no values."""

    def __init__(self, architecture: Architecture, engine: Engine, tape: Tape) -> None:
        self.engine, self._architecture, self._tape = engine, architecture, tape
        tokens, side = architecture.max_sequence_length, architecture.resolution
        self.spec = BackboneSpec(architecture.name, "", tokens, side, architecture.scale)
        self._vae: Held[AutoencoderKL] = Held(engine.device)
        self._encoders: Held[StableDiffusion3Pipeline] = Held(engine.device)
        self._encoding = threading.Lock()

    def _config(self, part: str) -> dict[str, Any]:
        return dict(getattr(self._architecture, part))

    def transformer(self) -> SD3Transformer2DModel:
        from diffusers import SD3Transformer2DModel

        with self._tape.of(WEIGHTS), torch.device("cuda"), _positions_without_values():
            model: SD3Transformer2DModel = SD3Transformer2DModel.from_config(self._architecture.transformer)
        return model.eval()

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)

    @contextmanager
    def vae_loaded(self) -> Iterator[AutoencoderKL]:
        from diffusers import AutoencoderKL

        def load() -> Any:
            with self._tape.of(VAE), torch.device("cuda"):
                return AutoencoderKL.from_config(self._architecture.vae).eval().requires_grad_(False)

        with self._vae.held(load) as vae:
            yield vae

    @contextmanager
    def text_encoders(self) -> Iterator[StableDiffusion3Pipeline]:
        def load() -> Any:
            with self._tape.of(TEXT):
                return text_pipeline(self._architecture, self.engine.dtype, self.scheduler())

        with self._encoders.held(load) as pipeline:
            yield pipeline

    def decode(self, latents: Tensor) -> np.ndarray:
        with self._tape.of(VAE, "decode"):
            return super().decode(latents)

    def decode_with_gradient(self, latents: Tensor) -> Tensor:
        with self._tape.of(VAE, "decode"):
            return super().decode_with_gradient(latents)

    def encode_prompts(self, texts: Sequence[str], *, batch: int = 64) -> TextCondition:
        with self._tape.of(TEXT, "text"):
            return super().encode_prompts(texts, batch=batch)


@contextmanager
def _positions_without_values() -> Iterator[None]:
    """Inside, the table of positions (``PatchEmbed``) is not computed: that takes longer than a step."""
    from diffusers.models import embeddings

    module: Any = embeddings
    usual = module.get_2d_sincos_pos_embed

    def table(embed_dim: int, grid_size: Any, *arguments: Any, **options: Any) -> Tensor:
        sides = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
        return torch.zeros(sides[0] * sides[1], embed_dim, device="cuda")

    module.get_2d_sincos_pos_embed = table
    try:
        yield
    finally:
        module.get_2d_sincos_pos_embed = usual


def condition(architecture: Architecture, count: int) -> TextCondition:
    """Conditions of prompts on the CPU, which share one row's memory."""
    config, tokens = architecture.transformer, architecture.text_tokens
    return TextCondition(
        torch.zeros(1, tokens, config["joint_attention_dim"]), torch.zeros(1, config["pooled_projection_dim"])
    ).expand(count)


CAPTIONS = tuple(f"prompt {number}" for number in range(PAIRS))


def ahead_text(backbone: PretendedBackbone) -> AheadText:
    """Conditions of the corpus' captions, encoded on a thread as a run's are."""
    return AheadText(backbone, CAPTIONS, torch.float32 if backbone.spec.scale == "embedded" else torch.bfloat16)


def training_data(architecture: Architecture, ahead: AheadText | None = None) -> TrainingData:
    """Pairs and preference pairs of one latent shape; every method finds what it may need.

    Args:
        ahead: what encodes the captions; None: their conditions are there, as from a cache.
    """
    shape = architecture.latent_shape()
    data = TrainingData(
        latents=torch.zeros(1, *shape).expand(PAIRS, -1, -1, -1),
        shapes=torch.tensor(shape).expand(PAIRS, -1),
        text=ahead or condition(architecture, PAIRS),
        prompts=tuple(Prompt(str(number), caption) for number, caption in enumerate(CAPTIONS)),
        text_of=torch.arange(PAIRS),
        ahead=ahead,
    )
    return replace(data, preferences=Preferences(data, torch.arange(PAIRS).view(-1, 2)))


class StatedReward(Metric):
    """Scores that all differ, and a gradient that leads to every pixel. It takes no memory: no model is behind it."""

    name, label, version = "stated", "stated", 1
    differentiable = True

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [(number + 1) / len(images) for number in range(len(images))]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return pixels.flatten(1).mean(1)
