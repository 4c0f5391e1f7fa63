"""The ``weights/`` folder that a finished job leaves: how it is written, and what is found in it."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import records
from bench.errors import BenchError

if TYPE_CHECKING:
    import torch

TRANSFORMER = "transformer"
LORA = "pytorch_lora_weights.safetensors"
"""The name under which ``load_lora_weights`` looks for an adapter in a folder."""

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The two files of an adapter that PEFT saved."""

ADAPTER_KEY = "lora_adapter_metadata"
"""Where diffusers keeps the adapter's configuration in the file's header (``diffusers.loaders.lora_base``)."""

SHARD = "5GB"
"""Largest file of a transformer: the hub's own default (``huggingface_hub.save_torch_state_dict``)."""


@dataclass(frozen=True)
class Weights:
    """What a job left: a whole transformer (``path`` is its folder) or a LoRA adapter (``path`` is its file)."""

    kind: Literal["transformer", "lora"]
    path: Path


def save_weights(transformer: Any, folder: Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
    """Leave a transformer, or its LoRA adapter if it has one, in the form that diffusers reads.

    Args:
        transformer: an ``SD3Transformer2DModel``; with an adapter, only the adapter is written.
        folder: the job's ``weights/``.
        state_dict: the whole state, where the module's own is spread over ranks.
    """
    with _disk_watched(folder):
        _save(transformer, folder, state_dict)


@contextmanager
def _disk_watched(folder: Path) -> Iterator[None]:
    """Inside, a full disk is told as for any other file. safetensors says it in words, with the system's number."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        number = re.search(r"os error (\d+)", str(error))
        if {getattr(error, "errno", None), number and int(number[1])} & {errno.ENOSPC, errno.EDQUOT}:
            raise records.DiskFull(
                f"the disk is full: could not write {folder}; free some space and run the same command"
            ) from error
        raise


def _save(transformer: Any, folder: Path, state_dict: Mapping[str, torch.Tensor] | None) -> None:
    if getattr(transformer, "peft_config", None):
        _save_lora(transformer, folder, state_dict)
        return
    from huggingface_hub import save_torch_state_dict

    target = folder / TRANSFORMER
    target.mkdir(parents=True, exist_ok=True)
    transformer.save_config(target)
    save_torch_state_dict(
        dict(state_dict or transformer.state_dict()),
        target,
        filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
        max_shard_size=SHARD,
    )


def _save_lora(transformer: Any, folder: Path, state_dict: Mapping[str, torch.Tensor] | None) -> None:
    from diffusers import StableDiffusion3Pipeline
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    # Without its configuration an adapter loads with alpha equal to its rank, which scales it wrongly. PEFT holds
    # names in sets, whose order differs from process to process; a list keeps equal runs equal byte for byte.
    config = transformer.peft_config["default"].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    packed = json.dumps({f"{TRANSFORMER}.{key}": value for key, value in config.items()}, sort_keys=True)
    StableDiffusion3Pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer, state_dict=state_dict),
        # One entry, where diffusers would write two: the file format stores entries in no fixed order.
        save_function=lambda tensors, path: save_file(tensors, path, metadata={ADAPTER_KEY: packed}),
    )


def with_adapter(plain: Any, adapted: Any) -> Any:
    """``plain`` with the change that a LoRA on ``adapted`` makes added to its weights, in ``plain``'s precision.

    Args:
        plain: a transformer with the weights that the adapter was trained on.
        adapted: the same transformer with the adapter, whose own weights may be kept in a lower precision.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in adapted.named_modules():
        if isinstance(layer, BaseTunerLayer):
            weight = plain.get_submodule(name).weight
            weight.data += layer.get_delta_weight("default").to(weight)
    return plain


def seal(folder: Path) -> None:
    """Record the SHA-256 of every file of weights in ``<folder>.json``, which ``check_seal`` compares them with."""
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    records.write_json(_seal_of(folder), {"v": records.VERSION, "files": files})


def unseal(folder: Path) -> None:
    """Take the record away before the weights change: a kill between the two leaves weights without a record."""
    _seal_of(folder).unlink(missing_ok=True)


def check_seal(folder: Path) -> None:
    """BenchError if a file of weights is not what was recorded. Weights of 0.4.0 and before have no record."""
    path = _seal_of(folder)
    if not path.exists():
        return
    recorded = records.read_json(path)
    files = recorded.get("files") if isinstance(recorded, dict) else None
    if not isinstance(files, dict) or not all(records.inside(name) for name in files):
        raise BenchError(f"{path} is damaged; delete its job's folder and run it again")
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise BenchError(f"{folder / name} is not there; delete its job's folder and run it again")
        if _digest(folder / name) != digest:
            raise BenchError(
                f"{folder / name} is damaged (its content is not what the job wrote); delete its job's folder and run "
                "it again"
            )


def _seal_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(job: Path, *, check: bool = True) -> Weights:
    """What lies in a job's ``weights/``. BenchError where nothing does, a shard is missing or a file is damaged.

    Args:
        check: read the files and compare them with what the job recorded (``perf/README.md`` has the cost).
    """
    folder = job / "weights"
    weights = _look(folder, job)
    if check:
        check_seal(folder)
    return weights


def _look(folder: Path, job: Path) -> Weights:
    if (folder / LORA).is_file():
        _header(folder / LORA)
        return Weights("lora", folder / LORA)
    if not (folder / TRANSFORMER / "config.json").is_file():
        raise BenchError(f"{folder} holds no weights; delete {job} and run the same `bench run` command again")
    files = set((folder / TRANSFORMER).glob("*.safetensors"))
    for index in (folder / TRANSFORMER).glob("*.safetensors.index.json"):
        shards = records.read_json(index)
        if not isinstance(shards, dict) or not isinstance(shards.get("weight_map"), dict):
            raise BenchError(f"{index} is damaged; delete {job} and run it again")
        files |= {index.with_name(Path(str(name)).name) for name in shards["weight_map"].values()}
    if not files:
        raise BenchError(f"{folder / TRANSFORMER} holds no *.safetensors; delete {job} and run it again")
    for file in sorted(files):
        _header(file)
    return Weights("transformer", folder / TRANSFORMER)


def adapter_config(path: Path) -> dict[str, Any]:
    """The PEFT configuration of an adapter file; BenchError if it was saved without one."""
    text = _header(path).get(ADAPTER_KEY)
    if text is None:
        raise BenchError(f"{path} does not say its rank and alpha; delete its job's folder and run it again")
    prefix = f"{TRANSFORMER}."
    try:
        return {k.removeprefix(prefix): v for k, v in json.loads(text).items() if k.startswith(prefix)}
    except (AttributeError, ValueError) as error:
        raise BenchError(f"{path} is damaged ({error}); delete its job's folder and run it again") from error


def _header(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, which is read only if the file is as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise BenchError(f"{path} is not there; delete its job's folder and run it again") from error
    except SafetensorError as error:
        raise BenchError(f"{path} is damaged ({error}); delete its job's folder and run it again") from error


@contextmanager
def adapters_off(transformer: Any) -> Iterator[None]:
    """Inside, a LoRA is not computed."""
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()
