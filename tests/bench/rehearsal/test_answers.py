"""What a rehearsal needs of a machine, and the library that is built for it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.rehearsal import answers


def test_a_machine_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "COMPILERS", ("no-such-compiler",))
    monkeypatch.setattr(answers, "TORCH", ("0.1",))
    assert str(answers.why_not()).startswith("rehearsals are tried with torch 0.1, and this is")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert str(answers.why_not()).startswith("rehearsals run on Linux, not on darwin")


@pytest.mark.skipif(answers.compiler() is None, reason="there is no C compiler")
def test_the_library_answers_and_is_built_once(tmp_path: Path) -> None:
    path = answers.library(tmp_path)
    built = path.stat().st_mtime_ns
    assert answers.library(tmp_path) == path and path.stat().st_mtime_ns == built
    library = ctypes.CDLL(str(path))
    for name in ("_ZN2at11accelerator14getAcceleratorEb", "_ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE"):
        assert library[name](1) & 0xFF == 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_compiler_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if answers.compiler() is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(answers, "SOURCE", "this is no C")
    with pytest.raises(BenchError, match="could not build the library that a rehearsal needs"):
        answers.library(tmp_path)


def test_the_answers_come_before_torch(tmp_path: Path) -> None:
    import torch  # noqa: F401

    with pytest.raises(RuntimeError, match="before torch"):
        answers.load(tmp_path / "any.so")
