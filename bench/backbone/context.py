"""Models that are evaluated beside the post-trained one and never trained: SD3.5-L, FLUX.1-dev, SD-XL, by diffusers.

The paper's Table 2 gives these rows for context. Of their sampling its project page states the resolution of two, SD-XL
and SD3.5-L at 1024 x 1024 px (SD3.5-M's rows: 512 px, CFG 4.5); of FLUX.1-dev's resolution, and of all three models'
steps and guidance, neither it nor the paper says anything. So each model is drawn as its own model card shows, at the
side that it was trained for, and the settings are kept in the records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.backbone import hub
from bench.backbone.family import DRAWN, FLUX, SD3, SDXL, Family, check_family, read_header, read_json, weight_files
from bench.backbone.loading import load_pipeline, release
from bench.errors import BenchError
from bench.machine.engine import check_dtype
from bench.prompt import Prompt
from bench.rng import torch_generator


@dataclass(frozen=True)
class ContextSettings:
    """How a model is sampled. ``max_sequence_length``: T5 tokens; None without a T5."""

    steps: int
    guidance_scale: float
    max_sequence_length: int | None


CARDS = {
    SD3.pipeline: ContextSettings(28, 3.5, 256),
    FLUX.pipeline: ContextSettings(50, 3.5, 512),
    SDXL.pipeline: ContextSettings(50, 5.0, None),
}
"""Settings that the model cards show. They are not meant for distilled variants (turbo, schnell, lightning).

SD3.5-L: steps and guidance of ``stabilityai/stable-diffusion-3.5-large``; T5 length of ``StableDiffusion3Pipeline``.
FLUX.1-dev: all three of ``black-forest-labs/FLUX.1-dev``.
SD-XL: ``stabilityai/stable-diffusion-xl-base-1.0`` passes the prompt alone: ``StableDiffusionXLPipeline``'s defaults.
"""

SHARE = 0.6
"""Part of a device's memory that weights may take; the rest is for 4 pictures of 1024 px."""


class ContextPipeline:
    """A whole pipeline that draws prompts: a ``Painter``. Loaded at the first picture, freed by ``close``.

    Args:
        name: hub id or local folder of the SD3, FLUX.1 or SDXL family.
        revision: of a hub id.
        offline: use the hub's cache alone.
        device: where it computes. On a CUDA device that its weights would fill, each part is there only while it works.
        dtype: precision of all parts (the model cards: bfloat16).
        steps, guidance_scale, max_sequence_length: in place of ``CARDS``.
        resolution: side in pixels (None: what the model was trained for, by its configs).
        batch: pictures drawn together. The noise does not depend on it.

    Raises:
        BenchError: one line, before any weight is read.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        offline: bool = False,
        device: torch.device,
        dtype: torch.dtype,
        steps: int | None = None,
        guidance_scale: float | None = None,
        resolution: int | None = None,
        max_sequence_length: int | None = None,
        batch: int = 4,
    ) -> None:
        check_dtype(dtype, device)
        self.name, self.device, self.dtype, self.batch = name, device, dtype, batch
        self.folder = hub.resolve(name, revision=revision, offline=offline)
        self.family = check_family(self.folder, DRAWN)
        card = CARDS[self.family.pipeline]
        if max_sequence_length is not None and card.max_sequence_length is None:
            raise BenchError(f"{name} has no T5, so it takes no number of T5 tokens; leave --max-sequence-length out")
        self.settings = ContextSettings(
            card.steps if steps is None else steps,
            card.guidance_scale if guidance_scale is None else guidance_scale,
            card.max_sequence_length if max_sequence_length is None else max_sequence_length,
        )
        self.resolution = _trained_side(self.folder, self.family) if resolution is None else resolution
        self._pipeline: Any = None

    def describe(self) -> dict[str, Any]:
        """What the records keep of the model and its settings. A plain folder is hashed once: a minute for 50 GB."""
        return {
            "id": self.name,
            "family": self.family.title,
            "revision": hub.commit(self.folder),
            "fingerprint": self._fingerprint,
            "steps": self.settings.steps,
            "guidance_scale": self.settings.guidance_scale,
            "max_sequence_length": self.settings.max_sequence_length,
            "resolution": self.resolution,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray]:
        """One uint8 (H, W, 3) picture per prompt and seed."""
        pictures: list[np.ndarray] = []
        for start in range(0, len(prompts), self.batch):
            part = slice(start, start + self.batch)
            pictures += self._draw([prompt.text for prompt in prompts[part]], seeds[part])
        return pictures

    def close(self) -> None:
        """Free the model; the next ``draw`` loads it again."""
        if self._pipeline is not None:
            self._pipeline.remove_all_hooks()
        self._pipeline = None
        release(self.device)

    @cached_property
    def _fingerprint(self) -> str:
        return hub.fingerprint(self.folder)

    def _draw(self, texts: list[str], seeds: Sequence[int]) -> list[np.ndarray]:
        if self._pipeline is None:
            self._pipeline = self.load()
        length = self.settings.max_sequence_length
        drawn = self._pipeline(
            prompt=texts,
            height=self.resolution,
            width=self.resolution,
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale,
            generator=[torch_generator(seed) for seed in seeds],
            output_type="np",
            **({} if length is None else {"max_sequence_length": length}),
        ).images
        if not np.isfinite(drawn).all():
            raise BenchError(f"{self.name} drew a picture that is not a number in {self.dtype}; use --dtype float32")
        return list((drawn * 255).round().astype(np.uint8))

    def load(self) -> Any:
        """The pipeline of diffusers, on its device."""
        from bench.backbone.loader import quiet

        quiet()
        # an invisible watermark would depend on whether an optional package is installed
        options: dict[str, Any] = {"add_watermarker": False} if self.family is SDXL else {}
        pipeline = load_pipeline(self.folder, self.family, self.dtype, **options)
        pipeline.set_progress_bar_config(disable=True)
        if self.device.type == "cuda" and weight_bytes(self.folder, self.family, self.dtype) > SHARE * (
            torch.cuda.get_device_properties(self.device).total_memory
        ):
            pipeline.enable_model_cpu_offload(device=self.device)
        else:
            pipeline.to(self.device)
        return pipeline


def weight_bytes(folder: Path, family: Family, dtype: torch.dtype) -> int:
    """Memory of all parts' weights in ``dtype``: 34 GB for FLUX.1-dev in bfloat16, 28 GB for SD3.5-L."""
    tensors = (t for part in family.parts for file in weight_files(folder / part) for t in read_header(file).values())
    return sum(int(math.prod(tensor["shape"])) for tensor in tensors) * dtype.itemsize


def _trained_side(folder: Path, family: Family) -> int:
    """Side in pixels of the pictures that a model was trained for: 1024 for SD3.5-L, FLUX.1-dev and SD-XL."""
    vae = read_json(folder / "vae" / "config.json", "")
    denoiser = next(iter(family.parts))
    latent_side = read_json(folder / denoiser / "config.json", "").get("sample_size")
    if latent_side is None:  # FLUX's transformer takes any side and names none
        return int(vae["sample_size"])
    return int(latent_side * 2 ** (len(vae["block_out_channels"]) - 1))
