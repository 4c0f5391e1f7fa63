"""Which code made a record."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("torch", "torchvision", "diffusers", "transformers", "tokenizers", "peft", "accelerate", "numpy", "pillow"),
    *("scipy", "open_clip_torch", "rapidocr-onnxruntime", "onnxruntime", "opencv-python"),
)


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    by_name = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_name[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            by_name[package] = "missing"
    return by_name


@cache
def git_state() -> dict[str, str | bool | None]:
    """Commit of the checkout that the code runs from, and whether it has uncommitted changes; nulls outside git."""
    root = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
