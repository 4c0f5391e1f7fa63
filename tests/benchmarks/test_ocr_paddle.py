"""The Paddle metric with an engine that stands in for PaddleOCR: how it is started, what is made of its lines.

The real one is not installed here: its models cannot be fetched by a test.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench import registry
from bench.errors import BenchError
from bench.suite import Prompt
from benchmarks.metrics.ocr_paddle import PaddleOCRAccuracy

PICTURE = np.zeros((8, 8, 3), np.uint8)
BOX = [[0, 0], [1, 0], [1, 1], [0, 1]]
STARTED: list[dict[str, Any]] = []


class Engine:
    """Reads in a picture what its first pixel's red says."""

    reads: tuple[Any, ...] = (
        [[BOX, ("Mars Colony", 0.9)], [BOX, (" 0ne", 0.4)], [BOX, ("ghost", 0.0)]],
        None,
        [],
        [[BOX, ("Mars Colony One", 0.99)]],
    )

    def __init__(self, **settings: Any) -> None:
        STARTED.append(settings)

    def ocr(self, image: np.ndarray, *, cls: bool) -> list[Any]:
        assert image.dtype == np.uint8
        assert image.shape == PICTURE.shape
        assert cls is False
        return [self.reads[image[0, 0, 0]]]


class Leaves:
    def __init__(self, **settings: Any) -> None:
        sys.exit(0)


class Unreachable:
    def __init__(self, **settings: Any) -> None:
        raise RuntimeError("Download from https://paddleocr.bj.bcebos.com failed.\nRetry limit reached")


def install(monkeypatch: pytest.MonkeyPatch, engine: type, version: str = "2.10.0") -> None:
    module = ModuleType("paddleocr")
    module.PaddleOCR, module.__version__ = engine, version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paddleocr", module)
    STARTED.clear()


def picture(number: int) -> np.ndarray:
    made = PICTURE.copy()
    made[0, 0, 0] = number
    return made


def test_lines_are_joined_as_in_the_release_and_scored_by_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Engine)
    metric = registry.load("metrics", "ocr_paddle")()
    assert metric.version == 1
    assert metric.read(picture(0)) == "Mars Colony 0ne"
    prompts = [Prompt(str(i), 'A sign, "Mars Colony One", on a "red" planet') for i in range(4)]
    scores = metric.score([picture(i) for i in range(4)], prompts)
    assert scores == pytest.approx([12 / 13, 0.0, 0.0, 1.0], abs=1e-12)
    (started,) = STARTED
    assert started.pop("cpu_threads") >= 1
    assert started == {"use_angle_cls": False, "lang": "en", "use_gpu": False, "show_log": False}


def test_channels_go_in_as_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Sees(Engine):
        def ocr(self, image: np.ndarray, *, cls: bool) -> list[Any]:
            seen.append(image[0, 0].tolist())
            return [None]

    install(monkeypatch, Sees)
    PaddleOCRAccuracy().read(np.full((8, 8, 3), (1, 2, 3), np.uint8))
    assert seen == [[1, 2, 3]]


def test_released_it_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Engine)
    metric = PaddleOCRAccuracy()
    for _ in range(2):
        metric.prepare()
        metric.read(picture(1))
        metric.release()
    metric.release()
    assert len(STARTED) == 2


def refusal(metric: PaddleOCRAccuracy) -> str:
    with pytest.raises(BenchError) as caught:
        metric.prepare()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_it_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paddleocr", None)
    message = refusal(PaddleOCRAccuracy())
    assert message.startswith("paddleocr does not load")
    assert message.endswith("run `pip install paddleocr==2.10.0 paddlepaddle`, or use the metric ocr_rapid")


def test_another_edition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Engine, "3.0.0")
    assert "takes paddleocr 2.9.1 or 2.10.0, not 3.0.0; run `pip install" in refusal(PaddleOCRAccuracy())


@pytest.mark.parametrize(
    ("engine", "said"), [(Unreachable, "Download from https://paddleocr.bj.bcebos.com failed."), (Leaves, "0")]
)
def test_an_engine_that_does_not_start_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, engine: type, said: str
) -> None:
    install(monkeypatch, engine)
    assert refusal(PaddleOCRAccuracy()) == (
        f"PaddleOCR does not start; it fetches en_PP-OCRv3_det, en_PP-OCRv4_rec once: {said}"
    )


def test_records_name_the_models() -> None:
    assert PaddleOCRAccuracy().describe()["weights"] == "paddleocr en_PP-OCRv3_det, en_PP-OCRv4_rec"
