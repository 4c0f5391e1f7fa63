"""Load one part of a pipeline folder in the wanted precision, on the wanted device, without a second copy in memory.

Weights are mapped from disk in the precision that they are stored in and cast on the device. Casting 2.2 B bf16
weights to float32 on the host first would take 9 GB more of host memory in every process of a machine.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.backbone.family import read_header, weight_files
from bench.errors import BenchError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_transformer(
    folder: Path, dtype: torch.dtype, device: torch.device, part: str | None = "transformer"
) -> SD3Transformer2DModel:
    """A fresh copy of a pretrained transformer in evaluation mode: ``part`` of a pipeline, or a folder of its own."""
    from diffusers import SD3Transformer2DModel

    model: SD3Transformer2DModel = _load(SD3Transformer2DModel, folder, part, dtype, device)
    return model


def load_vae(folder: Path, dtype: torch.dtype, device: torch.device) -> AutoencoderKL:
    """The VAE, frozen, in evaluation mode."""
    from diffusers import AutoencoderKL

    vae: AutoencoderKL = _load(AutoencoderKL, folder, "vae", dtype, device)
    return vae.requires_grad_(False)


def load_text_pipeline(folder: Path, dtype: torch.dtype, device: torch.device) -> StableDiffusion3Pipeline:
    """An SD3 pipeline of tokenizers and text encoders alone, for its ``encode_prompt``."""
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, transformer=None, vae=None, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    return pipeline.to(device)


def release(device: torch.device) -> None:
    """Give the memory of models that nothing refers to any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raise BenchError, one line, unless ``device`` is there and computes in ``dtype`` by its own circuits.

    The CPU computes in bfloat16 everywhere, if slowly. On CUDA devices before compute capability 8.0 torch imitates it
    through float32, which saves neither time nor workspace: refused.
    """
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise BenchError("this torch sees no CUDA device; check the driver with nvidia-smi, or run on the CPU")
        if dtype == torch.bfloat16:
            with torch.cuda.device(device):
                if not torch.cuda.is_bf16_supported(including_emulation=False):
                    raise BenchError(
                        f"{torch.cuda.get_device_name()} does not compute in bfloat16; use --dtype float32"
                    )
        return
    for tried, line in (
        (torch.float32, f"this torch cannot use the device {device}; run on the CPU"),
        (dtype, f"{device} does not compute in {str(dtype).removeprefix('torch.')}; use --dtype float32"),
    ):
        try:
            torch.ones(2, 2, dtype=tried, device=device).mm(torch.ones(2, 2, dtype=tried, device=device))
        except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
            raise BenchError(line) from error


def _load(kind: Any, folder: Path, part: str | None, dtype: torch.dtype, device: torch.device) -> Any:
    stored = _stored_dtype(folder / (part or ""))
    first = stored if stored is not None and stored.itemsize <= dtype.itemsize else dtype
    model = kind.from_pretrained(folder, subfolder=part, dtype=first, use_safetensors=True, local_files_only=True)
    torch.nn.Module.to(model, device)
    torch.nn.Module.to(
        model, dtype
    )  # after the move: diffusers' own ``to`` warns of modules to keep that are not there
    return model.eval()


def _stored_dtype(folder: Path) -> torch.dtype | None:
    """The precision of a component's weights; None if they have several, as a cast to one of these could lose some."""
    names = {tensor["dtype"] for file in weight_files(folder) for tensor in read_header(file).values()}
    return STORED.get(names.pop()) if len(names) == 1 else None
