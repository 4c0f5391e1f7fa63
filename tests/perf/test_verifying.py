"""The benchmark of verifying reads what the harness writes, by the harness's own doors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import verifying

from bench import records
from bench.records import pictures

CPU = torch.device("cpu")


def test_what_is_measured_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "LINES", 3)
    monkeypatch.setattr(verifying, "SIDE", 8)
    figures = verifying.image(tmp_path / "x.png", 1, CPU) + verifying.score_file(tmp_path / "s.jsonl", 1, CPU)
    assert pictures.read(tmp_path / "x.png").size == (8, 8)
    assert all(0 < figure.value < float("inf") for figure in figures)
    assert (
        (tmp_path / "s.jsonl").read_text().count('"check"') == 3 == len(list(records.read_lines(tmp_path / "s.jsonl")))
    )
    assert '"check"' not in (tmp_path / "plain.jsonl").read_text()
