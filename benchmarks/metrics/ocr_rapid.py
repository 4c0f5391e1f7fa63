"""OCR accuracy with the RapidOCR engine, whose models come in its wheel."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from bench.machine.environment import own_cores
from benchmarks.ocr_metric import OCRAccuracy

MIN_SIDE = 256
"""Smaller pictures are enlarged (bicubic) to this side, since the engine's detector misses letters under ~10 px."""


class RapidOCRAccuracy(OCRAccuracy):
    """How much of the text in the prompt's quotes the OCR engine reads in the picture, in [0, 1].

    Formula: ``benchmarks/ocr.py``. Engine: rapidocr-onnxruntime 1.4.4 (PP-OCRv4 models for Chinese and English, in the
    wheel), where the paper's suite has PaddleOCR 2.9.1 with its ``en`` models: ``ocr_paddle``. Both find text in the
    picture as it is up to 960 px on the longer side, so 512 px pictures are not shrunk.
    """

    name = "ocr_rapid"
    label = "OCR"
    version = 1

    @cached_property
    def _engine(self) -> Any:
        from rapidocr_onnxruntime import RapidOCR

        # Shrink what is too large, where "min" would enlarge to 736 px. By itself each process would take every core.
        return RapidOCR(det_limit_type="max", intra_op_num_threads=own_cores())

    def prepare(self) -> None:
        """Load the engine's three models."""
        _ = self._engine

    def release(self) -> None:
        self.__dict__.pop("_engine", None)

    def read(self, image: np.ndarray) -> str:
        picture = Image.fromarray(image)
        factor = MIN_SIDE / min(picture.size)
        if factor > 1:
            size = (round(picture.width * factor), round(picture.height * factor))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        lines, _ = self._engine(np.asarray(picture)[..., ::-1])  # the engine takes BGR
        return "".join(line[1] for line in lines or [])
