"""The benchmark of verifying reads what the harness writes, by the harness's own doors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import verifying

from bench import records
from bench.backbone.weights import check_seal
from bench.encoded.store import Store
from bench.errors import BenchError
from bench.records import pictures
from bench.records.saved import is_damaged


def test_what_is_measured_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "LINES", 3)
    monkeypatch.setattr(verifying, "SIDE", 8)
    figures = verifying.image(tmp_path / "x.png", 1) + verifying.score_file(tmp_path / "s.jsonl", 1)
    assert pictures.read(tmp_path / "x.png").size == (8, 8)
    assert all(0 < figure.value < float("inf") for figure in figures)
    assert (
        (tmp_path / "s.jsonl").read_text().count('"check"') == 3 == len(list(records.read_lines(tmp_path / "s.jsonl")))
    )
    assert '"check"' not in (tmp_path / "plain.jsonl").read_text()


def test_damage_to_the_files_that_are_measured_is_seen(tmp_path: Path) -> None:
    figures = verifying.files(tmp_path, 64_000, 1)
    assert [figure.what for figure in figures] == ["checkpoint.pt", "weights/, stages/<n>/"]
    assert not is_damaged(tmp_path / "checkpoint.pt")
    check_seal(tmp_path / "weights")
    for file in (tmp_path / "checkpoint.pt", tmp_path / "weights" / "model.safetensors"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert is_damaged(tmp_path / "checkpoint.pt")
    with pytest.raises(BenchError):
        check_seal(tmp_path / "weights")


def test_a_shard_of_the_size_is_opened_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "LATENTS", (1, 2, 2))
    opening, reading = verifying.cache(tmp_path, 64, 1)
    assert (opening.unit, reading.unit) == ("µs/row", "s/GB") and opening.value > 0 < reading.value
    (shard,) = Store(tmp_path / "latents", {}).folder.glob("*.safetensors")
    assert shard.stat().st_size >= 64


def test_weights_in_memory_are_hashed() -> None:
    assert verifying.model(1, torch.device("cpu")).value > 0
