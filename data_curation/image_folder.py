"""A folder of pictures with ``metadata.jsonl`` (or side-car ``.txt`` captions) as a corpus."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from bench.corpus import Corpus, Problem
from bench.errors import BenchError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ImageFolder(Corpus):
    """Pictures and captions from a local folder.

    ``metadata.jsonl`` has lines ``{"file_name": …, "text": …}`` (the layout of Hugging Face's ImageFolder); without it
    every picture needs a ``.txt`` of the same name. Pictures are resized on their short side and cropped to the centre.
    A picture that cannot be read, an empty caption, or a file name that leaves the folder is listed and left out.
    """

    def __init__(self, folder: Path, resolution: int) -> None:
        self.name = folder.name
        self._folder, self._resolution = folder.resolve(), resolution
        self._pairs: list[tuple[Path, str]] = []
        self._problems: list[Problem] = []
        for file_name, caption in self._listed():
            self._add(file_name, caption)
        if not self._pairs:
            found = f"; {len(self._problems)} left out, e.g. {self._problems[0]}" if self._problems else ""
            raise BenchError(f"{folder} holds no usable image-caption pair{found}")

    def _listed(self) -> list[tuple[str, str]]:
        table = self._folder / "metadata.jsonl"
        if not table.exists():
            pictures = sorted(p for p in self._folder.iterdir() if p.suffix.lower() in SUFFIXES)
            return [(picture.name, self._side_car(picture)) for picture in pictures]
        listed = []
        for number, line in enumerate(table.read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
                if not isinstance(row["file_name"], str) or not isinstance(row["text"], str):
                    raise TypeError
                listed.append((row["file_name"], row["text"]))
            except (ValueError, KeyError, TypeError):
                self._problems.append(Problem(f"metadata.jsonl:{number}", "no JSON line with file_name and text"))
        return listed

    def _side_car(self, picture: Path) -> str:
        """Caption from the picture's ``.txt``; empty, and so left out, where there is none that can be read."""
        try:
            return picture.with_suffix(".txt").read_text("utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def _add(self, file_name: str, caption: str) -> None:
        reason = None
        try:
            path = (self._folder / file_name).resolve()
            if not path.is_relative_to(self._folder):
                reason = "its file name leaves the folder"
            elif not caption.strip():
                reason = "its caption is empty"
            else:
                with Image.open(path) as picture:
                    picture.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = f"it cannot be read as a picture ({type(error).__name__})"
        if reason:
            self._problems.append(Problem(file_name, reason))
        else:
            self._pairs.append((path, caption.strip()))

    def __len__(self) -> int:
        return len(self._pairs)

    def caption(self, index: int) -> str:
        return self._pairs[index][1]

    def image(self, index: int) -> np.ndarray:
        with Image.open(self._pairs[index][0]) as picture:
            rgb = picture.convert("RGB")
        scale = self._resolution / min(rgb.size)
        size = (max(round(rgb.width * scale), self._resolution), max(round(rgb.height * scale), self._resolution))
        left, top = (size[0] - self._resolution) // 2, (size[1] - self._resolution) // 2
        resized = rgb.resize(size, Image.Resampling.LANCZOS)
        return np.asarray(resized.crop((left, top, left + self._resolution, top + self._resolution)))

    @cached_property
    def fingerprint(self) -> str:
        whole = hashlib.sha256(str(self._resolution).encode())
        for path, caption in self._pairs:
            whole.update(hashlib.sha256(path.read_bytes()).digest() + caption.encode() + b"\0")
        return whole.hexdigest()

    def problems(self) -> list[Problem]:
        return self._problems
