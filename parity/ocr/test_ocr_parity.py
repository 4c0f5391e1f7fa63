"""``ocr_paddle`` on what the real PaddleOCR returns, and how far ``ocr_rapid`` is from it with models of its kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from drawn import metric
from official_package import run_official

from bench.rng import numpy_generator
from bench.suite import Prompt

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-parity-ocr" / "bin" / "python"
FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
WORDS = (
    "Mars Colony One",
    "No Parking",
    "EXIT 47",
    "Deep Sea Diner",
    "50% off",
    "Café naïve",
    "Happy Birthday, Ada!",
    "q",
)
HEIGHTS = (16, 28, 44)
SPREADS = (0, 70)
"""Noise over the text: a standard deviation, of 255. With the second, letters are misread."""
EQUAL = 0.8
"""Share of pictures of clear text that both engines score alike, at least. On noise they go apart."""


def signs() -> tuple[list[np.ndarray], list[str]]:
    """Every word in every height, without and with noise, at 512 px; and one page without text."""
    rng = numpy_generator(33, 0, 0, "parity")
    pictures, words = [np.full((512, 512, 3), 128, np.uint8)], ["nothing"]
    for word in WORDS:
        for height in HEIGHTS:
            for spread in SPREADS:
                picture = Image.fromarray(rng.normal(170, 25, (512, 512, 3)).clip(0, 255).astype(np.uint8))
                place = tuple(int(v) for v in rng.integers(5, 100, 2))
                colour = tuple(int(v) for v in rng.integers(0, 120, 3))
                ImageDraw.Draw(picture).text(place, word, font=ImageFont.truetype(FONT, height), fill=colour)
                noisy = np.asarray(picture) + rng.normal(0, spread, (512, 512, 3))
                pictures.append(noisy.clip(0, 255).astype(np.uint8))
                words.append(word)
    return pictures, words


def test_ocr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: object) -> None:
    if not PYTHON.exists():
        pytest.skip("no environment of PaddleOCR; `make parity` builds it")
    pictures, words = signs()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "job.json").write_text(json.dumps({"words": words}))
    run_official(PYTHON, Path(__file__).with_name("official.py"), tmp_path)
    lines = json.loads((tmp_path / "lines.json").read_text())
    theirs = np.array(json.loads((tmp_path / "scores.json").read_text()))
    assert lines[0] == [None]
    assert 0.3 < np.mean(theirs == 1) < 0.95

    class Replays:
        def __init__(self, **settings: Any) -> None:
            self.left = iter(lines)

        def ocr(self, image: np.ndarray, *, cls: bool) -> list[Any]:
            result: list[Any] = next(self.left)
            return result

    module = ModuleType("paddleocr")
    module.PaddleOCR, module.__version__ = Replays, "2.10.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paddleocr", module)
    prompts = [Prompt(str(i), f'A sign that says "{word}"') for i, word in enumerate(words)]
    assert metric("ocr_paddle").score(pictures, prompts) == theirs.tolist()

    rapid = np.array(metric("ocr_rapid").score(pictures, prompts))
    clear = np.arange(len(words)) % len(SPREADS) != 0  # the first picture has no text
    for what, chosen in (("clear", clear), ("noisy", ~clear)):
        ours, others = rapid[chosen], theirs[chosen]
        same = f"equal on {(ours == others).sum()} of {len(ours)}"
        said = f"{what}: mean {ours.mean():.3f} against {others.mean():.3f}, {same}"
        record_property("ocr_rapid_against_ocr_paddle", said)  # type: ignore[operator]
        print(said)
    assert (rapid[clear] == theirs[clear]).mean() >= EQUAL
