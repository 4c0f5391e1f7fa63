"""OCR accuracy with PaddleOCR, the engine of the paper's suite, where it is installed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.machine.environment import own_cores
from benchmarks.ocr_metric import OCRAccuracy

VERSIONS = ("2.9.1", "2.10.0")
"""Of paddleocr. Flow-GRPO names the first, which holds numpy under 2 and so does not install beside this project. The
second has the same models and the same code between picture and text, and does."""
MODELS = "en_PP-OCRv3_det, en_PP-OCRv4_rec"
INSTALL = "run `pip install paddleocr==2.10.0 paddlepaddle`, or use the metric ocr_rapid"


class PaddleOCRAccuracy(OCRAccuracy):
    """How much of the text in the prompt's quotes PaddleOCR's English models read in the picture, in [0, 1].

    Formula: ``benchmarks/ocr.py``. Engine as in yifan123/flow_grpo @ ac4c86e, ``flow_grpo/ocr.py``: language ``en``, no
    angle classifier, on the CPU, channels in the order RGB, lines with a score above 0 joined. There a picture on which
    the engine fails scores 0; here it is an error. paddleocr fetches its models by itself, into ``~/.paddleocr``, so
    that they are pinned by the addresses in its code and not by a hash.
    """

    name = "ocr_paddle"
    label = "OCR (Paddle)"
    version = 1

    @cached_property
    def _engine(self) -> Any:
        try:
            import paddleocr
        except Exception as error:  # a broken paddlepaddle raises what it likes
            raise BenchError(f"paddleocr does not load ({_first_line(error)}); {INSTALL}") from error
        if paddleocr.__version__ not in VERSIONS:
            raise BenchError(
                f"ocr_paddle takes paddleocr {' or '.join(VERSIONS)}, not {paddleocr.__version__}; {INSTALL}"
            )
        try:
            return paddleocr.PaddleOCR(
                use_angle_cls=False, lang="en", use_gpu=False, show_log=False, cpu_threads=own_cores()
            )
        except (Exception, SystemExit) as error:  # it leaves the process where it cannot go on
            raise BenchError(f"PaddleOCR does not start; it fetches {MODELS} once: {_first_line(error)}") from error

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"weights": f"paddleocr {MODELS}"}

    def prepare(self) -> None:
        """Load the engine. Raises BenchError with how to get it where it is missing."""
        _ = self._engine

    def release(self) -> None:
        self.__dict__.pop("_engine", None)

    def read(self, image: np.ndarray) -> str:
        (lines,) = self._engine.ocr(image, cls=False)
        return "".join(text for _, (text, score) in lines or [] if score > 0)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
