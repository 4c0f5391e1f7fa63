"""What a probe is: a measure of where a model's own sampler leads it, on held-out pairs. Never charged.

Formulas, sources and what each cannot tell apart are in ``docs/exposure-bias.md``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from bench import records
from bench.errors import BenchError, stop_if_lost
from bench.probes.routes import NoisyPairs, Route, Trajectories, trajectories
from bench.records.schema import ProbeLine, ProbeRecord

if TYPE_CHECKING:
    from bench.backbone.loader import TextCondition

CHUNK = 16
"""Pairs that are read together, by their positions. Probes over pairs count within a chunk, so it is no setting."""

LONG_EVERY = 4
"""Probes that are ``long`` read every fourth chunk."""


@dataclass(frozen=True)
class Reading:
    """A measure at one level.

    Attributes:
        start: position of the level that the pairs' states were put on the path at.
        at: position of the level that it is taken at.
        values: (N,), one of each pair.
        steps: steps of the sampler between the two; 0: on the path.
    """

    start: int
    at: int
    values: Tensor
    steps: int = 0


class Probe(ABC):
    """A number per pair and level. Changing how it is computed makes a new ``version``, never a silent change.

    Attributes:
        label: what a report calls it.
        version: of the computation.
        ideal: its value for a model without exposure bias, in the limit of many steps; None: there is no such value.
        relative: a number that means something beside the base's alone: a report divides by it, pair by pair.
        weight: of a level in a mean over levels: ``sigma_squared`` where a target grows as 1 / sigma; else equal.
        routine: part of every evaluation; otherwise only where it is named.
        long: follows paths of many steps, so it reads fewer pairs.
        fit: read on training pairs too, without guidance, so that a report can tell fit from overfitting.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    version: ClassVar[int]
    ideal: ClassVar[float | None] = 0.0
    relative: ClassVar[bool] = False
    weight: ClassVar[str] = ""
    routine: ClassVar[bool] = True
    long: ClassVar[bool] = False
    fit: ClassVar[bool] = False

    @abstractmethod
    def read(self, paths: Trajectories) -> Iterable[Reading]:
        """Measure the pairs of ``paths`` at its guidance scale. May raise; other probes then go on."""

    def describe(self) -> dict[str, Any]:
        """The part of a record that makes a reading comparable."""
        about = {"name": self.name, "label": self.label, "version": self.version, "ideal": self.ideal}
        about |= {"relative": True} if self.relative else {}
        return about | ({"weight": self.weight} if self.weight else {})


def check_description(probe: Probe, name: str) -> None:
    """Raise for a probe whose description no record can hold, or that calls itself otherwise than it is registered."""
    ProbeRecord.model_validate(probe.describe())
    if probe.name != name:
        raise BenchError(f"it calls itself {probe.name!r}, and rows of two probes with one name would be mixed")


def chunks(pairs: int) -> list[range]:
    """Positions of pairs that are read together. A last one that is too short for a spread joins its neighbour."""
    starts = [*range(0, pairs, CHUNK)]
    if len(starts) > 1 and pairs - starts[-1] < CHUNK // 2:
        starts.pop()
    return [range(start, end) for start, end in pairwise([*starts, pairs])]


def reads(probe: Probe, chunk: int) -> bool:
    """Whether a probe reads the chunk of this number."""
    return not probe.long or chunk % LONG_EVERY == 0


HELD_OUT = "held_out"
TRAINING = "training"
"""What a row's ``part`` says of its pair."""


def rows(probe: Probe, paths: Trajectories, part: str = HELD_OUT) -> list[dict[str, Any]]:
    """A probe's records of a chunk at one scale: a row for each level, or one that says why there are none.

    A row holds a value for each pair. One that is no number is None, and the row has an error.
    """
    about = {"probe": probe.name, "version": probe.version, "part": part, "guidance": float(paths.scale)}
    head = {"v": records.VERSION} | about
    try:
        return [_checked(head | _row(reading, paths)) for reading in probe.read(paths)]
    except Exception as error:  # whatever a stranger's probe raises
        stop_if_lost(error)
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        return [head | {"pairs": list(paths.pairs.indices), "error": " ".join(reason.split())}]


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    ProbeLine.model_validate(row)
    return row


def _row(reading: Reading, paths: Trajectories) -> dict[str, Any]:
    values, count = reading.values, len(paths.pairs)
    if not isinstance(values, Tensor) or values.shape != (count,):
        what = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise BenchError(f"the probe returned {what} for {count} pairs, not a number for each")
    known = [float(f"{value:.8g}") if math.isfinite(value) else None for value in values.double().tolist()]
    return {
        "pairs": list(paths.pairs.indices),
        "start": round(paths.sigma(reading.start), 6),
        "sigma": round(paths.sigma(reading.at), 6),
        "steps": reading.steps,
        "values": known,
        **({"error": "not a finite number"} if None in known else {}),
    }


class _Nowhere:
    """A field that costs nothing, to count forwards with."""

    def velocity(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> Tensor:
        return torch.zeros_like(latents)

    def branches(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(latents), torch.zeros_like(latents)


def forwards(probes: Sequence[Probe], route: Route, scales: Sequence[float]) -> int:
    """Samples that go through the model for one held-out pair that all of ``probes`` read, and one of training."""
    from bench.backbone.loader import TextCondition

    latents, text = torch.ones(2, 1, 1, 1), TextCondition(torch.zeros(2, 1, 1), torch.zeros(2, 1))
    pairs, count = NoisyPairs(latents, text, (0, 1), 0), 0
    for read, at in ((probes, scales), ([probe for probe in probes if probe.fit], (1.0,))):
        of_scales, counted = trajectories(_Nowhere(), pairs, route, at)
        for paths in of_scales:
            for probe in read:
                rows(probe, paths)
        count += counted.forwards
    return count // 2
