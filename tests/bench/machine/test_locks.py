"""Two commands in one run folder: one works, the other waits, says so once, and finds the work done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from bench.machine import locks
from bench.machine.engine import Engine
from bench.machine.locks import hold_lock


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Replaces waiting: the n-th wait calls the n-th of ``then``; one more fails. Returns what was waited so far."""

    def replace(*then: Callable[[], object]) -> list[int]:
        waited: list[int] = []

        def pause() -> None:
            then[len(waited)]()
            waited.append(len(waited))

        monkeypatch.setattr(locks, "pause", pause)
        return waited

    return replace


def test_a_row_that_is_free_is_taken_at_once(tmp_path: Path, waits: Callable[..., list[int]]) -> None:
    waited, said = waits(), list[str]()
    with hold_lock(tmp_path, "base", Engine(), said.append), hold_lock(tmp_path, "sft--all--s0", Engine(), said.append):
        assert (waited, said) == ([], [])
    with hold_lock(tmp_path, "base", Engine(), said.append):
        assert (waited, said) == ([], [])


def test_a_row_that_is_held_is_waited_for_and_that_is_said_once(
    tmp_path: Path, waits: Callable[..., list[int]]
) -> None:
    (tmp_path / locks.FOLDER).mkdir()
    other = FileLock(tmp_path / locks.FOLDER / "base")
    other.acquire()
    waited, said = waits(lambda: None, lambda: None, other.release), list[str]()
    with hold_lock(tmp_path, "base", Engine(), said.append):
        assert len(waited) == 3
        assert said == [f"base: another command works on it in {tmp_path}; waiting for its end"]


def test_a_row_is_free_again_after_an_error(tmp_path: Path, waits: Callable[..., list[int]]) -> None:
    waits()
    with pytest.raises(KeyboardInterrupt), hold_lock(tmp_path, "base", Engine(), print):
        raise KeyboardInterrupt
    with hold_lock(tmp_path, "base", Engine(), print):
        pass


def test_a_killed_command_holds_nothing(tmp_path: Path, waits: Callable[..., list[int]]) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from bench.machine.engine import Engine; from bench.machine.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), 'base', Engine(), print): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"

        def kill() -> None:
            os.kill(other.pid, signal.SIGKILL)
            other.wait()

        waited = waits(kill)
        with hold_lock(tmp_path, "base", Engine(), print):
            assert waited == [0]
