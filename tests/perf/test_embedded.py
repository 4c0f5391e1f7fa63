"""The script that measures the embedded default keeps up with the doors it times."""

from __future__ import annotations

from collections.abc import Callable

import embedded
import pytest

from bench.training.meter import Meter


def test_what_metering_costs_is_measured_on_a_job_that_charges(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that takes the calls and not the time: 32 samples a step and 32 a charge, on the same meter."""
    meters: list[Meter] = []
    charged: list[int] = []

    class Kept(Meter):
        def __init__(self) -> None:
            super().__init__()
            meters.append(self)

    def clock(call: Callable[[], object], repeats: int) -> float:
        before = meters[0].forwards
        call()
        charged.append(meters[0].forwards - before)
        return {9: 0.5, 99: 0.01}[repeats]

    monkeypatch.setattr("bench.training.ledger.Meter", Kept)
    monkeypatch.setattr(embedded, "clock", clock)
    found = embedded.meter_cost()
    assert charged == [32, 32]
    assert found.value == pytest.approx(2.0) and found.unit == "%"


def test_the_clock_takes_the_median_and_leaves_out_the_first_call() -> None:
    calls: list[int] = []
    assert embedded.clock(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 4


def test_the_clock_takes_the_middle_of_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls of 4, 9 and 1 seconds."""
    readings = iter([0.0, 4.0, 10.0, 19.0, 20.0, 21.0])
    monkeypatch.setattr(embedded.time, "perf_counter", lambda: next(readings))
    assert embedded.clock(lambda: None, 3) == 4.0
