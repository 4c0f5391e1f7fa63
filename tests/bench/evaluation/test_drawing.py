"""Pictures are written beside the drawing of the next ones, and nothing of the records hangs on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import fakes
import numpy as np
import pytest

from bench import records
from bench.evaluation.drawing import draw_suite
from bench.experiment.recorded import untrained_header
from bench.machine.engine import Engine
from bench.prompt import Prompt


class Painter:
    """Draws pictures that follow from their seeds."""

    def __init__(self) -> None:
        self.drawn, self.second = 0, Event()

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray | None]:
        self.drawn += 1
        if self.drawn == 2:
            self.second.set()
        return [np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8) for seed in seeds]


def draw(painter: Painter, folder: Path, batch: int) -> list[dict]:
    draw_suite(fakes.suite(), painter, folder, header=untrained_header(), engine=Engine(), batch=batch)
    return list(records.read_lines(folder / "samples.jsonl"))


def test_the_next_batch_is_drawn_while_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(Painter(), tmp_path / "usual", 4)
    painter, write = Painter(), records.write_bytes

    def late(path: Path, content: memoryview) -> None:
        assert painter.second.wait(30)  # would not come, were the second batch drawn after the first is written
        write(path, content)

    monkeypatch.setattr(records, "write_bytes", late)
    rows = draw(painter, tmp_path / "late", 1)
    assert painter.drawn == 4 and rows == expected
    for row in rows:
        content = (tmp_path / "late" / row["image"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]


def test_what_cannot_be_written_ends_the_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: memoryview) -> None:
        raise records.DiskFull("the disk is full: could not write a picture")

    monkeypatch.setattr(records, "write_bytes", full)
    with pytest.raises(records.DiskFull, match="could not write a picture"):
        draw(Painter(), tmp_path / "full", 1)
    assert not (tmp_path / "full").exists()
