"""The one loader of SD3-family pipelines: the embedded ``tiny-sd3``, a model of the hub, or a local diffusers folder.

Text encoders and VAE are loaded while something is encoded or decoded and freed after it; the transformer is the
caller's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from bench.backbone import hub, loading
from bench.backbone.condition import TextCondition as TextCondition  # plugins import it from here
from bench.backbone.family import check_family, check_sides, t5_tokens
from bench.errors import BenchError
from bench.machine.engine import Engine
from bench.sampling import levels

if TYPE_CHECKING:
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )


M = TypeVar("M")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and how it is used.

    Attributes:
        name: as given; stands in records and reports.
        source: local diffusers folder, or hub id.
        max_sequence_length: T5 tokens; 0: as ``t5_tokens`` says.
        resolution: side of a training picture in pixels.
        scale: ``embedded`` picks the methods' overrides for tiny models, ``full`` the paper's values.
        revision: of a hub id.
        offline: never ask the hub, only its cache.
    """

    name: str
    source: str
    max_sequence_length: int
    resolution: int
    scale: str
    revision: str | None = None
    offline: bool = False


TINY_SD3 = BackboneSpec("tiny-sd3", str(Path(__file__).parent / "tiny_sd3"), 12, 64, "embedded")
"""Embedded SD3 of 3.6 M parameters for 64 px pictures, pretrained on the shape world and shipped with the code."""


def find(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    resolution: int | None = None,
    max_sequence_length: int | None = None,
    engine: Engine | None = None,
) -> Backbone:
    """A backbone by registered name, hub id or local folder.

    Args:
        revision: branch, tag or commit of a hub id.
        resolution: side of a training picture; None: what the transformer was made for.
        max_sequence_length: T5 tokens; None: the registered backbone's, or as ``t5_tokens`` says.

    Raises:
        BenchError: one line with what to do, for anything that is no SD3-family pipeline that can be had here.
    """
    from bench import registry

    if name in registry.table("backbones"):
        spec = registry.load("backbones", name)
        if revision and Path(spec.source).is_dir():
            raise BenchError(f"revision {revision!r} is for a hub id; {name} lies in {spec.source}, as it is")
        spec = replace(spec, revision=revision or spec.revision, offline=offline or spec.offline)
    else:
        local = Path(name).expanduser()
        short = local.resolve().name if local.is_dir() else name
        spec = BackboneSpec(short, name, 0, 0, "full", revision, offline)
    spec = replace(
        spec,
        resolution=resolution or spec.resolution,
        max_sequence_length=max_sequence_length or spec.max_sequence_length,
    )
    return Backbone(spec, engine)


def quiet() -> None:
    """No bars for loading a few files; the harness shows its own progress."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) pictures as float32 (N, 3, H, W) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def at_once(height: int, width: int) -> int:
    """Pictures that go through the VAE together: 64, or as many as have the pixels of 16 at 512 px."""
    return max(1, min(64, 2**22 // (height * width)))


def at_once_with_gradient(height: int, width: int) -> int:
    """Pictures whose activations are kept together in a backward through the VAE: those of one at 512 px, or 64."""
    return max(1, min(64, 2**18 // (height * width)))


def encode_images(vae: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    """Latents ``(posterior mean - shift_factor) * scaling_factor`` of uint8 (N, H, W, 3) pictures: float32, CPU."""
    import torch

    config, out, batch = vae.config, [], at_once(*images.shape[1:3])
    with torch.no_grad():
        for start in range(0, len(images), batch):
            mean = vae.encode(to_tensor(images[start : start + batch]).to(vae.device)).latent_dist.mean
            out.append(((mean - config.shift_factor) * config.scaling_factor).cpu())
    return torch.cat(out)


class Held(Generic[M]):
    """A model that several holders share: loaded for the first and freed after the last, from any thread.

    Args:
        device: whose memory is given back.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._lock = device, threading.Lock()
        self._model: M | None = None
        self._holders = 0

    @contextmanager
    def held(self, load: Callable[[], M]) -> Iterator[M]:
        with self._lock:
            model = self._model = self._model or load()
            self._holders += 1
        try:
            yield model
        finally:
            del model
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._model = None
                    loading.release(self._device)


class Backbone:
    """One pipeline, whose parts are loaded on demand.

    Attributes:
        folder: where the pipeline lies on this machine.
    """

    def __init__(self, spec: BackboneSpec, engine: Engine | None = None) -> None:
        quiet()
        self.engine = engine or Engine()
        self.folder = hub.resolve(spec.source, revision=spec.revision, offline=spec.offline)
        check_family(self.folder)
        self._vae: Held[AutoencoderKL] = Held(self.engine.device)
        self._encoders: Held[StableDiffusion3Pipeline] = Held(self.engine.device)
        self._encoding = threading.Lock()
        with loading.opening(self.folder / "vae"):  # both are read once, here, where a wrong type is told
            _ = self._factor, self._channels
        with loading.opening(self.folder / "transformer"):
            side = int(self._config("transformer").get("sample_size", 64)) * self._factor
        self.spec = replace(
            spec,
            resolution=spec.resolution or side,
            max_sequence_length=spec.max_sequence_length or t5_tokens(self.folder),
        )
        self.check_sides([self.spec.resolution])

    def check_sides(self, sides: Iterable[int]) -> None:
        """BenchError unless pictures with these sides, in pixels, can be trained on and drawn."""
        check_sides(self.spec.name, self._config("transformer"), self._factor, sides)

    def _config(self, part: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / part / "config.json").read_text()))

    @cached_property
    def _factor(self) -> int:
        """Pixels per latent."""
        return int(2 ** (len(self._config("vae").get("block_out_channels", [0] * 4)) - 1))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of the pipeline's weights and configuration."""
        return hub.fingerprint(self.folder)

    def transformer(self) -> SD3Transformer2DModel:
        """A fresh copy of the pretrained transformer on the engine's device, in float32 and evaluation mode."""
        import torch

        return loading.load_transformer(self.folder, torch.float32, self.engine.device)

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """The pipeline's scheduler. BenchError where its own levels are none that this project knows."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        with loading.opening(self.folder / "scheduler"):
            scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(self.folder, subfolder="scheduler")
        levels.check_scheduler(scheduler.config, f"{self.folder}/scheduler/scheduler_config.json")
        return scheduler

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents of a square picture at the training resolution."""
        return self.latent_shape_of(self.spec.resolution, self.spec.resolution)

    @cached_property
    def _channels(self) -> int:
        return int(self._config("vae")["latent_channels"])

    def latent_shape_of(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of a picture."""
        return self._channels, height // self._factor, width // self._factor

    @contextmanager
    def vae_loaded(self) -> Iterator[AutoencoderKL]:
        """The VAE, in float32 on the engine's device. Loaded for the first holder, and freed after the last."""
        import torch

        with self._vae.held(lambda: loading.load_vae(self.folder, torch.float32, self.engine.device)) as vae:
            yield vae

    @contextmanager
    def text_encoders(self) -> Iterator[StableDiffusion3Pipeline]:
        """The pipeline with its text encoders alone, loaded and freed as the VAE is, in the engine's precision."""
        load = partial(loading.load_text_pipeline, self.folder, self.engine.dtype, self.engine.device)
        with self._encoders.held(load) as pipeline:
            yield pipeline

    def encode_prompts(self, texts: Sequence[str], *, batch: int = 64) -> TextCondition:
        """prompt_embeds and pooled_prompt_embeds of texts, float32 on the CPU, by the pipeline's ``encode_prompt``."""
        import torch

        parts = []
        # Tokenizers of one pipeline are not for two threads at once, and captions may be encoded ahead on another.
        with self.text_encoders() as pipeline, self._encoding, torch.no_grad():
            for start in range(0, len(texts), batch):
                chunk = list(texts[start : start + batch])
                embeds, _, pooled, _ = pipeline.encode_prompt(
                    chunk, chunk, chunk,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.spec.max_sequence_length,
                )  # fmt: skip
                parts.append(TextCondition(embeds.float().cpu(), pooled.float().cpu()))
        return TextCondition.cat(parts)

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        """Latents of uint8 (N, H, W, 3) pictures: float32, on the CPU."""
        with self.vae_loaded() as vae:
            return encode_images(vae, images)

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """uint8 (N, H, W, 3) pictures of latents."""
        import torch

        out, batch = [], at_once(latents.shape[2] * self._factor, latents.shape[3] * self._factor)
        with self.vae_loaded() as vae, torch.no_grad():
            for start in range(0, len(latents), batch):
                pixels = (_decoded(vae, latents[start : start + batch]) + 1) * 127.5
                out.append(pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(out)

    def decode_with_gradient(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W) in [0, 1] of latents, with a gradient to them and not rounded to 8 bits.

        Activations are computed again in the backward, for a few pictures at a time: SD3's VAE keeps 5.7 GiB of them
        for a picture of 512 px.
        """
        import torch
        from torch.utils.checkpoint import checkpoint

        size = at_once_with_gradient(latents.shape[2] * self._factor, latents.shape[3] * self._factor)
        with self.vae_loaded() as vae:
            parts = [
                checkpoint(_decoded, vae, part, use_reentrant=False, preserve_rng_state=False)
                for part in latents.split(size)
            ]
            return (torch.cat(parts) + 1) / 2


def _decoded(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [-1, 1]."""
    scaled = latents.to(vae.device).float() / vae.config.scaling_factor + vae.config.shift_factor
    pixels: torch.Tensor = vae.decode(scaled).sample.clamp(-1, 1)
    return pixels
