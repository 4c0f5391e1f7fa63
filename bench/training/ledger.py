"""What a job spends and what it logs. Every door charges it; no method can reach it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bench.machine.engine import Engine
from bench.training.meter import Meter

METERED = ("flops", "forwards", "reference_forwards", "backwards", "images", "reward_calls", "pairs")
"""Counts to which each process adds its part; steps and updates are the same on all of them."""


class Ledger:
    """The account of one job: its meter, the number of its step, and the scalars of that step.

    Attributes:
        meter: what has been spent, by all processes together once a step is finished.
        step: index of the current iteration, from 0.
        padding: True while this process only keeps another one company: nothing is charged or logged then.
    """

    def __init__(self, engine: Engine) -> None:
        self.meter, self.step, self.padding = Meter(), 0, False
        self._engine, self._free = engine, False
        self._logged: dict[str, tuple[Tensor | float, float]] = {}
        self._synced = self.meter.counts()

    def charge(self, count: str, amount: int) -> None:
        """Add to one of ``METERED``, unless this is padding or an evaluation."""
        if not (self.padding or self._free):
            setattr(self.meter, count, getattr(self.meter, count) + amount)

    @contextmanager
    def unmetered(self) -> Iterator[None]:
        """Inside, nothing is charged: an evaluation costs a job nothing."""
        before, self._free = self._free, True
        try:
            yield
        finally:
            self._free = before

    def log(self, name: str, total: Tensor | float, count: float) -> None:
        """Add ``total``, a sum over ``count`` things, to a scalar of this step."""
        before, seen = self._logged.setdefault(name, (0.0, 0.0))  # in padding too: the same names on every process
        if not self.padding:
            value = total.detach().double() if isinstance(total, Tensor) else total
            self._logged[name] = (before + value, seen + count)

    def logged(self, name: str) -> tuple[float, float]:
        """Sum and count of a scalar on this process so far in this step."""
        total, count = self._logged[name]
        return float(total), count

    def finish_step(self, seconds: float, memory: int) -> dict[str, float]:
        """Close a step: add up what all processes spent, and return the means of the scalars that they logged.

        Args:
            seconds: this process's time in the step.
            memory: this process's peak in bytes.
        """
        engine, meter, names = self._engine, self.meter, sorted(self._logged)
        counts = meter.counts()
        spent = torch.tensor([counts[name] - self._synced[name] for name in METERED], dtype=torch.int64)
        for name, total in zip(METERED, engine.sum(spent).tolist(), strict=True):
            setattr(meter, name, self._synced[name] + total)
        self._synced = meter.counts()
        peaks = torch.zeros(engine.world_size, dtype=torch.float64)
        peaks[engine.rank] = memory
        totals_here = _on_host([self._logged[name][0] for name in names])
        logged = [
            part for name, total in zip(names, totals_here, strict=True) for part in (total, self._logged[name][1])
        ]
        sums = engine.sum(torch.tensor([*peaks.tolist(), seconds, *logged], dtype=torch.float64)).tolist()
        meter.peak_memory = max(meter.peak_memory, *map(int, sums[: engine.world_size]))
        meter.seconds += sums[engine.world_size]
        totals = iter(sums[engine.world_size + 1 :])
        self._logged = {}
        self.step += 1
        meter.steps += 1
        return {name: total / count for name, total, count in zip(names, totals, totals, strict=True) if count}

    def state_dict(self) -> dict[str, Any]:
        """The step and the meter."""
        return {"step": self.step, "meter": self.meter.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; what was logged since is forgotten."""
        self.step, self._logged = state["step"], {}
        self.meter.load(state["meter"])
        self._synced = self.meter.counts()


def _on_host(values: Sequence[Tensor | float]) -> list[float]:
    """Numbers, of which those on a device are fetched together: each fetch waits for all that the device has to do."""
    of: dict[torch.device, list[int]] = {}
    for place, value in enumerate(values):
        if isinstance(value, Tensor):
            of.setdefault(value.device, []).append(place)
    out = list(values)
    for places in of.values():
        fetched = torch.stack([torch.as_tensor(values[place]).reshape(()) for place in places]).tolist()
        for place, number in zip(places, fetched, strict=True):
            out[place] = number
    return [float(number) for number in out]
