"""What a process of several on one machine takes for itself."""

from __future__ import annotations

import os

import pytest

from bench.machine.environment import own_cores


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert own_cores() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert own_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert own_cores() == 1
