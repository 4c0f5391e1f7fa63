"""The benchmark of drawing noise holds it against a step and against the rate of a GPU."""

from __future__ import annotations

import time
from argparse import Namespace
from itertools import count

import pytest
import torch
from fakes import World
from noise import measure


def test_shares_are_of_a_step_and_of_a_sample(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", count().__next__)  # all that is timed takes a CPU second
    given = Namespace(backbone="tiny", dtype="float32", compile=False, repeats=1, cpu_time=True, samples_per_second=4.0)
    figures = measure(world.backbone, given, torch.device("cpu"))
    # 8 rows a second are 125 ms a row, and half of a sample at 4 a second.
    assert [figure.value for figure in figures] == [1000, 125, 100, 125, 50]
