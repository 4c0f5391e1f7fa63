"""The script that measures the embedded default keeps up with the doors it times."""

from __future__ import annotations

import embedded


def test_what_metering_costs_is_measured_on_a_job_that_charges() -> None:
    assert 0 < embedded.meter_cost().value < float("inf")


def test_the_clock_takes_the_median_and_leaves_out_the_first_call() -> None:
    calls: list[int] = []
    assert embedded.clock(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 4
