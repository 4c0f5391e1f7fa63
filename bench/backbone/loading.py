"""Load one part of a pipeline folder in the wanted precision, on the wanted device, without a second copy in memory.

Weights are mapped from disk in the precision that they are stored in and cast on the device. Casting 2.2 B bf16
weights to float32 on the host first would take 9 GB more of host memory in every process of a machine.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.backbone.family import SD3, Family, read_header, read_json, weight_files
from bench.errors import BenchError, some

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

UNUSED = ("position_ids",)
"""Endings of tensor names that older files hold and no model reads: lists of the positions 0, 1, 2, …"""

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
    pipeline: StableDiffusion3Pipeline = load_pipeline(folder, SD3, dtype, without=("transformer", "vae")).to(device)
    return pipeline


def load_pipeline(
    folder: Path, family: Family, dtype: torch.dtype, *, without: Collection[str] = (), **options: Any
) -> Any:
    """A pipeline of diffusers on the CPU, each of its parts loaded whole.

    Args:
        without: parts that are left out.
        options: of the pipeline itself.

    Raises:
        BenchError: one line that names the part that is damaged, or not all there.
    """
    import diffusers
    import transformers

    index, parts = read_json(folder / "model_index.json", ""), dict.fromkeys(without)
    for part, name in family.parts.items():
        if part not in without:
            kind = getattr(transformers, name, None) or getattr(diffusers, name)
            parts[part] = _whole(kind, folder, part, dtype)
    for part in ("scheduler", *family.tokenizers):
        with opening(folder / part):
            library, name = index[part]
            kind = getattr(diffusers if library == "diffusers" else transformers, name)
            parts[part] = kind.from_pretrained(folder / part, local_files_only=True)
    with opening(folder):
        return getattr(diffusers, family.pipeline).from_pretrained(folder, **parts, local_files_only=True, **options)


def check_part(folder: Path, part: str) -> None:
    """BenchError, one line, unless a part of an SD3 pipeline is all there and fits its configuration. It is loaded."""
    import diffusers
    import transformers

    name = SD3.parts[part]
    dtype = _stored_dtype(folder / part) or torch.float32
    _whole(getattr(transformers, name, None) or getattr(diffusers, name), folder, part, dtype)
    release(torch.device("cpu"))


@contextmanager
def opening(what: Path) -> Iterator[None]:
    """Context in which a part of a pipeline is opened. Any error of its files becomes one line that names the part."""
    usual = torch.get_default_dtype()
    try:
        yield
    except (BenchError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a stranger's configuration can raise anything in the library that reads it
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise BenchError(f"{what} cannot be loaded ({reason}); copy or download it again") from error
    finally:
        torch.set_default_dtype(usual)  # diffusers sets the weights' own, and leaves it so where loading fails


def release(device: torch.device) -> None:
    """Give the memory of models that nothing refers to any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _load(kind: Any, folder: Path, part: str | None, dtype: torch.dtype, device: torch.device) -> Any:
    stored = _stored_dtype(folder / (part or ""))
    first = stored if stored is not None and stored.itemsize <= dtype.itemsize else dtype
    model = _whole(kind, folder, part, first)
    torch.nn.Module.to(model, device)
    torch.nn.Module.to(
        model, dtype
    )  # after the move: diffusers' own ``to`` warns of modules to keep that are not there
    return model.eval()


def _whole(kind: Any, folder: Path, part: str | None, dtype: torch.dtype) -> Any:
    """A model with every tensor from its files. Both libraries complete one that lacks some with random numbers."""
    where = folder / (part or "")
    with opening(where), _silent():
        model, info = kind.from_pretrained(
            where,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
        _check_whole(where, info)
    return model


@contextmanager
def _silent() -> Iterator[None]:
    """Inside, the libraries do not draw tables of what they found: it is checked and told in one line."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    for library, _ in before:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, verbosity in before:
            library.set_verbosity(verbosity)


def _check_whole(where: Path, info: Mapping[str, Any]) -> None:
    """BenchError if loading left a tensor of the model or of its files unused."""
    misshapen = sorted(
        f"{name} ({'x'.join(map(str, there))}, not {'x'.join(map(str, here))})"
        for name, there, here in info["mismatched_keys"]
    )
    other = {
        "lack": sorted(info["missing_keys"]),
        "hold, and the model does not have,": sorted(n for n in info["unexpected_keys"] if not n.endswith(UNUSED)),
        "hold in another shape": misshapen,
    }
    for fault, names in other.items():
        if names:
            raise BenchError(f"the weights of {where} {fault} {some(names, 3)}; copy or download them again")


def _stored_dtype(folder: Path) -> torch.dtype | None:
    """The precision of a component's weights; None if they have several, as a cast to one of these could lose some."""
    names = {tensor["dtype"] for file in weight_files(folder) for tensor in read_header(file).values()}
    return STORED.get(names.pop()) if len(names) == 1 else None
