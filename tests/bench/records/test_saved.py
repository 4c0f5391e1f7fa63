"""A training's state is what was saved, to the bit, or one line says that it is damaged."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.records import saved

STATE = {"step": 3, "weights": [torch.arange(300.0), torch.arange(7).bfloat16()], "names": {"a": None}}


def test_a_state_comes_back(tmp_path: Path) -> None:
    saved.save(STATE, tmp_path / "state.pt")
    back = saved.load(tmp_path / "state.pt", "")
    assert (back["step"], back["names"]) == (3, {"a": None})
    assert all(
        torch.equal(one, two) and one.dtype == two.dtype
        for one, two in zip(back["weights"], STATE["weights"], strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_no_flipped_bit_gives_another_state(tmp_path: Path) -> None:
    """Bits all over the file: it is told, or nothing that is read has changed (padding, dates)."""
    path = tmp_path / "state.pt"
    saved.save(STATE, path)
    whole, told = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        try:
            back = saved.load(path, "delete it")
        except BenchError as error:
            told += 1
            assert str(error) == f"{path} is damaged; delete it"
            continue
        assert (back["step"], back["names"]) == (3, {"a": None})
        assert all(torch.equal(one, two) for one, two in zip(back["weights"], STATE["weights"], strict=True))
    assert told > 1214 // 7  # at least every one in the tensors


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no state", b"\x80\x04N."])
def test_what_is_no_state_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(BenchError, match=r"state\.pt is damaged; delete it"):
        saved.load(tmp_path / "state.pt", "delete it")


def test_a_state_is_written_beside_what_follows_and_an_error_is_told_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, go = saved.Writer(tmp_path / "state.pt"), Event()
    save = saved.save

    def slow(state: Any, path: Path) -> None:
        assert go.wait(30)
        if state == "bad":
            raise BenchError("no room")
        save(state, path)

    monkeypatch.setattr(saved, "save", slow)
    writer.write({"step": 1})
    assert not (tmp_path / "state.pt").exists()  # and the caller goes on
    go.set()
    writer.write({"step": 2})  # waits for the first
    writer.wait()
    assert saved.load(tmp_path / "state.pt", "") == {"step": 2}
    writer.write("bad")
    with pytest.raises(BenchError, match="no room"):
        writer.close()
    assert saved.load(tmp_path / "state.pt", "") == {"step": 2}
