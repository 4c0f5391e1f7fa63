"""The benchmark of probes draws a suite and reads its probes, by the harness's own doors."""

from __future__ import annotations

from pathlib import Path

import fakes
import probes
import pytest
import torch

from bench import records
from bench.probes import reader

CPU = torch.device("cpu")


def test_pictures_are_drawn_and_probes_read(
    world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SHARE", 20.0)  # four pictures of two steps: a quarter is no pair
    figures = probes.evaluation(world.backbone, fakes.suite(), tmp_path, 1, CPU)
    drawn, read, share = figures
    assert share.value == pytest.approx(read.value / drawn.value) and share.target == "at most 0.25"
    (pictures, *_), (readings, *_) = tmp_path.glob("*/samples.jsonl"), tmp_path.glob("*/probes.jsonl")
    assert len(list(records.read_lines(pictures))) == 4
    pairs = {pair for row in records.read_lines(readings) for pair in row["pairs"]}
    assert read.what == f"probes on {len(pairs)} pairs" and drawn.what == "4 pictures drawn"
