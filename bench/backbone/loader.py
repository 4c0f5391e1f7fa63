"""The one loader of SD3-family pipelines: the embedded ``tiny-sd3`` or a local diffusers folder.

Text encoders are loaded only while prompts are encoded, the VAE when it is first used; the transformer is the caller's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError, unknown

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

FAMILY = ("StableDiffusion3Pipeline",)


@dataclass(frozen=True)
class BackboneSpec:
    """Where a backbone lies and how it is used.

    Attributes:
        source: local diffusers folder.
        max_sequence_length: T5 tokens (256 for SD3.5 at evaluation; see ``docs/protocol.md``).
        resolution: side of a picture in pixels.
        scale: ``embedded`` picks the methods' overrides for tiny models, ``full`` the paper's values.
    """

    name: str
    source: str
    max_sequence_length: int
    resolution: int
    scale: str


TINY_SD3 = BackboneSpec("tiny-sd3", str(Path(__file__).parent / "tiny_sd3"), 12, 64, "embedded")
"""Embedded SD3 of 3.6 M parameters for 64 px pictures, pretrained on the shape world and shipped with the code."""


@dataclass
class TextCondition:
    """What a prompt is to the transformer: prompt_embeds (N, tokens, width) and pooled_prompt_embeds (N, width)."""

    prompt_embeds: torch.Tensor
    pooled_prompt_embeds: torch.Tensor

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, index: Any) -> TextCondition:
        return TextCondition(self.prompt_embeds[index], self.pooled_prompt_embeds[index])

    def repeat(self, times: int) -> TextCondition:
        """Each prompt ``times`` times in a row: a, a, b, b, …"""
        return TextCondition(
            self.prompt_embeds.repeat_interleave(times, 0), self.pooled_prompt_embeds.repeat_interleave(times, 0)
        )

    def expand(self, count: int) -> TextCondition:
        """One prompt as a batch of ``count`` without copying."""
        return TextCondition(self.prompt_embeds.expand(count, -1, -1), self.pooled_prompt_embeds.expand(count, -1))

    @staticmethod
    def cat(parts: Sequence[TextCondition]) -> TextCondition:
        import torch

        return TextCondition(
            torch.cat([p.prompt_embeds for p in parts]), torch.cat([p.pooled_prompt_embeds for p in parts])
        )


def find(name: str) -> Backbone:
    """A backbone by registered name or local folder. Raises BenchError with what to do for anything else."""
    from bench import registry

    if name in registry.table("backbones"):
        spec = registry.load("backbones", name)
    elif Path(name).is_dir():
        folder = Path(name).resolve()
        sample_size = _read(folder / "transformer" / "config.json").get("sample_size", 64)
        blocks = len(_read(folder / "vae" / "config.json").get("block_out_channels", [0] * 4))
        spec = BackboneSpec(folder.name, str(folder), 256, sample_size * 2 ** (blocks - 1), "full")
    else:
        raise unknown("backbone (or folder)", name, registry.table("backbones"))
    return Backbone(spec)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BenchError(
            f"{path.parents[1]} is no SD3 pipeline folder: {path.name} of {path.parent.name}/ is not there"
        ) from error
    except json.JSONDecodeError as error:
        raise BenchError(f"{path} is damaged: {error}") from error
    return dict(content)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's weights, tokenizers and configuration."""
    whole, kept = hashlib.sha256(), (".json", ".safetensors", ".txt", ".model")
    for path in sorted(p for p in folder.rglob("*") if p.suffix in kept and p.name != "quality.json"):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


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


def encode_images(vae: AutoencoderKL, images: np.ndarray, *, batch: int = 64) -> torch.Tensor:
    """Latents ``(posterior mean - shift_factor) * scaling_factor`` of uint8 (N, H, W, 3) pictures: float32."""
    import torch

    config, out = vae.config, []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            mean = vae.encode(to_tensor(images[start : start + batch])).latent_dist.mean
            out.append((mean - config.shift_factor) * config.scaling_factor)
    return torch.cat(out)


class Backbone:
    """Loads the parts of one pipeline folder on demand."""

    def __init__(self, spec: BackboneSpec) -> None:
        quiet()
        self.spec = spec
        self.folder = Path(spec.source)
        family = _read_index(self.folder)
        if family not in FAMILY:
            raise BenchError(f"{self.folder} holds a {family}; the harness trains the SD3 family ({', '.join(FAMILY)})")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of the pipeline's weights and configuration."""
        return folder_digest(self.folder)

    def transformer(self) -> SD3Transformer2DModel:
        """A fresh copy of the pretrained transformer, in float32 and evaluation mode."""
        from diffusers import SD3Transformer2DModel

        model: SD3Transformer2DModel = SD3Transformer2DModel.from_pretrained(self.folder, subfolder="transformer")
        return model.eval()

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """The pipeline's scheduler."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler.from_pretrained(self.folder, subfolder="scheduler")

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The VAE, loaded when first used."""
        from diffusers import AutoencoderKL

        return AutoencoderKL.from_pretrained(self.folder, subfolder="vae").eval().requires_grad_(False)

    @cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture's latents."""
        config = _read(self.folder / "vae" / "config.json")
        side = self.spec.resolution // 2 ** (len(config["block_out_channels"]) - 1)
        return int(config["latent_channels"]), side, side

    def encode_prompts(self, texts: Sequence[str], *, batch: int = 256) -> TextCondition:
        """prompt_embeds and pooled_prompt_embeds of texts, through the pipeline's own ``encode_prompt``."""
        import torch
        from diffusers import StableDiffusion3Pipeline

        pipeline = StableDiffusion3Pipeline.from_pretrained(self.folder, transformer=None, vae=None)
        parts = []
        with torch.no_grad():
            for start in range(0, len(texts), batch):
                chunk = list(texts[start : start + batch])
                embeds, _, pooled, _ = pipeline.encode_prompt(
                    chunk, chunk, chunk,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.spec.max_sequence_length,
                )  # fmt: skip
                parts.append(TextCondition(embeds.float(), pooled.float()))
        return TextCondition.cat(parts)

    def encode_images(self, images: np.ndarray, *, batch: int = 64) -> torch.Tensor:
        """Latents ``(posterior mean - shift_factor) * scaling_factor`` of uint8 (N, H, W, 3) pictures: float32."""
        return encode_images(self.vae, images, batch=batch)

    def decode(self, latents: torch.Tensor, *, batch: int = 64) -> np.ndarray:
        """uint8 (N, H, W, 3) pictures of latents."""
        import torch

        config, out = self.vae.config, []
        with torch.no_grad():
            for start in range(0, len(latents), batch):
                scaled = latents[start : start + batch].float() / config.scaling_factor + config.shift_factor
                pixels = (self.vae.decode(scaled).sample.clamp(-1, 1) + 1) * 127.5
                out.append(pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(out)


def _read_index(folder: Path) -> str:
    if not (folder / "model_index.json").exists():
        raise BenchError(f"{folder} is no diffusers pipeline folder: model_index.json is not there")
    return str(json.loads((folder / "model_index.json").read_text()).get("_class_name"))
