"""What metrics with a network share: models kept per process, the device, plain float32, batches, picture checks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench import assets
from bench.suite import Prompt

BATCH = 32
"""Pictures or texts embedded at once: about 1 GB of activations of a ViT-L on a GPU."""

UNREAD: tuple[type[Exception], ...] = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""Errors of reading a wrong file, and of building a model from wrong weights."""

M = TypeVar("M")
_held: dict[tuple[Callable[..., Any], tuple[str, ...]], tuple[tuple[Path, ...], Any]] = {}


def loaded(build: Callable[..., M], *names: str) -> M:
    """What ``build`` makes of the folders or files of these assets; made once per process, however many metrics ask.

    Raises:
        BenchError: an asset is missing or differs, or ``build`` refuses it.
    """
    paths = tuple(assets.path(name).resolve() for name in names)
    held = _held.get((build, names))
    if held is None or held[0] != paths:
        held = _held[build, names] = (paths, build(*paths))
    made: M = held[1]
    return made


def forget(build: Callable[..., Any], *names: str) -> None:
    """Free what ``loaded`` holds for these assets, if it does; the next use loads it again."""
    if _held.pop((build, names), None) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def device() -> torch.device:
    """The current GPU, or the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def exact() -> Iterator[None]:
    """Plain float32, whatever precision the training around a reward has chosen."""
    places: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def in_batches(function: Callable[..., Tensor], *columns: Sequence[Any]) -> Tensor:
    """``function`` of at most ``BATCH`` items of each column at a time: exact, without a graph, joined on the CPU."""
    with torch.no_grad(), exact():
        return torch.cat(
            [
                function(*(column[start : start + BATCH] for column in columns)).float().cpu()
                for start in range(0, len(columns[0]), BATCH)
            ]
        )


def once_per_text(function: Callable[[list[str]], Tensor], prompts: Sequence[Prompt]) -> Tensor:
    """A row for each prompt of what ``function`` makes of texts; one that occurs several times is given once."""
    texts = sorted({prompt.text for prompt in prompts})
    row = {text: i for i, text in enumerate(texts)}
    return function(texts)[[row[prompt.text] for prompt in prompts]]


def layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow ``prefix`` in the names of a model's weights."""
    return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})


def why_unread(error: Exception) -> str:
    """Why a file of weights was not taken, in one line."""
    if isinstance(error, OSError | EOFError | pickle.UnpicklingError):
        return "it is no file of tensors"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[lines[0].startswith("Error(s) in loading") and len(lines) > 1][:200]


def check_pictures(images: Sequence[np.ndarray]) -> None:
    """Raises ValueError unless every picture is uint8 (H, W, 3)."""
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a picture is {image.dtype} {image.shape} and not uint8 (H, W, 3)")
