"""OCR accuracy with the RapidOCR engine, whose models come in its wheel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from bench.metric import Metric
from bench.suite import Prompt

MIN_SIDE = 256
"""Smaller pictures are enlarged (bicubic) to this side, since the engine's detector misses letters under ~10 px."""


def wanted_text(prompt: str) -> str:
    """The text that a prompt asks for: what stands in its first pair of double quotes. ValueError if there is none."""
    quoted = re.search(r'"([^"]+)"', prompt)
    if quoted is None:
        raise ValueError(f"the prompt {prompt!r} has no text in double quotes")
    return quoted.group(1)


def normalise(text: str) -> str:
    """Lower case without spaces."""
    return text.replace(" ", "").lower()


def levenshtein(a: str, b: str) -> int:
    """Least number of insertions, deletions and substitutions that turn ``a`` into ``b``."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def ocr_accuracy(read: str, wanted: str) -> float:
    """Flow-GRPO's formula: 1 if ``wanted`` occurs in ``read``, else ``1 - min(distance, n) / n`` with n its length."""
    read, wanted = normalise(read), normalise(wanted)
    distance = 0 if wanted in read else min(levenshtein(read, wanted), len(wanted))
    return 1 - distance / len(wanted)


class RapidOCRAccuracy(Metric):
    """How much of the word in the prompt's quotes the OCR engine reads in the picture, in [0, 1].

    Formula: flow_grpo @ ac4c86e, ``ocr.py``. Engine: rapidocr-onnxruntime 1.4.4 (PP-OCR models in the wheel) instead of
    PaddleOCR, which the paper's suite uses; its text detector works at 256 px on the long side.
    """

    name = "ocr_rapid"
    label = "OCR"
    version = 1
    low, high = 0.0, 1.0
    needs_facts: ClassVar = ("word",)

    @cached_property
    def _engine(self) -> Any:
        from rapidocr_onnxruntime import RapidOCR

        return RapidOCR(det_limit_side_len=MIN_SIDE, det_limit_type="max")

    def read(self, image: np.ndarray) -> str:
        """Everything the engine reads, in its order, joined."""
        picture = Image.fromarray(image)
        factor = MIN_SIDE / min(picture.size)
        if factor > 1:
            size = (round(picture.width * factor), round(picture.height * factor))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        lines, _ = self._engine(np.asarray(picture)[..., ::-1])  # the engine takes BGR
        return "".join(line[1] for line in lines or [])

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [
            ocr_accuracy(self.read(image), wanted_text(prompt.text))
            for image, prompt in zip(images, prompts, strict=True)
        ]
