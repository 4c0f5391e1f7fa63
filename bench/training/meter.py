"""Counts what a job has spent. Every door to compute charges it; no method can."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Meter:
    """Totals of one job. All are exact counts except ``seconds``, a clock reading, and ``peak_memory``.

    Attributes:
        flops: training FLOPs (multiply and add counted as two), including rollouts, decoding and reward models.
        steps: finished iterations of the method.
        updates: optimizer updates.
        forwards: model forwards in samples (a batch of 8 counts 8), training and rollout alike.
        reference_forwards: those among them of the weights under an adapter, which cost less.
        backwards: backward passes in samples.
        images: images decoded by the method.
        reward_calls: images scored by the method's reward.
        pairs: training pairs read.
        seconds: device-seconds of training (wall time of every process added up), evaluation excluded.
        peak_memory: bytes, of the process with most, evaluation excluded; device memory on CUDA, resident set on CPU.
    """

    flops: int = 0
    steps: int = 0
    updates: int = 0
    forwards: int = 0
    reference_forwards: int = 0
    backwards: int = 0
    images: int = 0
    reward_calls: int = 0
    pairs: int = 0
    seconds: float = 0.0
    peak_memory: int = 0

    def counts(self) -> dict[str, Any]:
        """The exact part, which an interrupted and resumed job reproduces byte for byte."""
        return {key: value for key, value in asdict(self).items() if key not in ("seconds", "peak_memory")}

    def spent(self, currency: str) -> float:
        """Amount spent in a budget's currency."""
        return float(self.seconds if currency == "device-seconds" else getattr(self, currency))

    def load(self, state: dict[str, Any]) -> None:
        for field in fields(self):
            setattr(self, field.name, state[field.name])

    def state(self) -> dict[str, Any]:
        return asdict(self)
