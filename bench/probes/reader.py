"""The probes of an evaluation: which are read, on how many pairs, and what they may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import records, registry
from bench.errors import one_line, stop_if_lost
from bench.machine.engine import Engine
from bench.probes.probe import LONG_EVERY, Probe, check_description, chunks, forwards, reads
from bench.probes.records import PairSource, Probing, probe_pairs
from bench.probes.routes import Field, NoisyPairs, route
from bench.sampling import levels
from bench.suite import Suite
from bench.training.data import TrainingData

SHARE = 0.25
"""Most of the forwards of a job's evaluations that probes may add."""

STARTS = 5
"""Levels that probes start from: more would leave fewer pairs."""

PAIRS = 20
"""Held-out pairs of a corpus that has fresh ones, unless another number is asked for: about as many as the embedded
suite affords with four evaluations. With two it would afford 41, and a plain run would take a tenth longer. Ours."""


class EncodedPairs:
    """Pairs whose latents and conditions are encoded.

    Args:
        identity: a hash of pictures and captions.
        seed: of their noise; the suite's.
    """

    def __init__(self, data: TrainingData, identity: str, seed: int, engine: Engine) -> None:
        self.identity = identity
        self._data, self._seed, self._device = data, seed, engine.device

    def __len__(self) -> int:
        return len(self._data)

    def pairs(self, positions: Sequence[int]) -> NoisyPairs:
        index = torch.tensor(positions)
        assert self._data.latents is not None
        latents, text = self._data.latents[index], self._data.text[self._data.text_of[index]]
        return NoisyPairs(latents.to(self._device), text.to(self._device), tuple(positions), self._seed)


def routine_probing(suite: Suite, shift: float, say: Callable[[str], None]) -> Probing:
    """The routine probes at the suite's levels, without guidance and with the suite's.

    Args:
        shift: timestep shift of the backbone.
        say: prints a line. A probe that cannot be loaded is left out, with one line.
    """
    probes: list[Probe] = []
    for name in registry.table("probes"):
        try:
            probe: Probe = registry.load("probes", name)()
            check_description(probe, name)
        except Exception as error:  # whatever a stranger's module raises
            stop_if_lost(error)
            say(f"the probe {name} is left out: {one_line(str(error))}")
        else:
            probes += [probe] if probe.routine else []
    sampler = suite.sampler
    sigmas = torch.from_numpy(levels.sigmas(sampler.levels, sampler.steps, shift))
    scales = tuple(dict.fromkeys((1.0, float(sampler.guidance_scale))))
    return Probing(tuple(probes), route(sigmas, shift, starts=STARTS), scales)


def affordable(suite: Suite, probing: Probing, evaluations: int = 1) -> int:
    """The most pairs whose forwards are at most ``SHARE`` of those that the images of a job's evaluations take."""
    sampler = suite.sampler
    limit = SHARE * suite.images(evaluations) / evaluations * sampler.steps * (1 if sampler.guidance_scale == 1 else 2)
    costs = _costs(probing)
    pairs = int(limit // max(min(costs), 1))
    while pairs and _spent(costs, pairs) > limit:
        pairs -= 1
    return pairs


def spent(probing: Probing, pairs: int) -> int:
    """Samples that go through the model for all probes on so many held-out pairs, and on as many of training."""
    return _spent(_costs(probing), pairs)


def _costs(probing: Probing) -> list[int]:
    """Of a pair, by the number of its chunk."""
    return [
        forwards([probe for probe in probing.probes if reads(probe, chunk)], probing.route, probing.scales)
        for chunk in range(LONG_EVERY)
    ]


def _spent(costs: Sequence[int], pairs: int) -> int:
    return sum(len(part) * costs[number % LONG_EVERY] for number, part in enumerate(chunks(pairs)))


@dataclass(frozen=True)
class ProbeReader:
    """Probes on the held-out pairs of one subset, and those of ``fit`` on as many that methods train on.

    Attributes:
        batch: pairs in a forward.
        say: prints a line; each probe that gave no value has one.
    """

    probing: Probing
    held_out: PairSource
    training: PairSource | None
    engine: Engine
    batch: int
    say: Callable[[str], None]

    def read(self, field: Field, folder: Path) -> None:
        """Read them into ``folder``, unless the same are there. Every process must call it."""
        probe_pairs(
            field, self.held_out, self.probing, folder, engine=self.engine, training=self.training, batch=self.batch
        )
        if self.engine.is_main:
            for line in failures(folder):
                self.say(f"{folder}: {line}")


def failures(folder: Path) -> Iterator[str]:
    """A line for each probe that has rows without a value."""
    found: dict[str, list[str]] = {}
    for row in records.read_lines(folder / "probes.jsonl"):
        if "error" in row:
            without = row["values"].count(None) if "values" in row else 1
            found.setdefault(row["probe"], []).extend([row["error"]] * without)
    for name, errors in found.items():
        yield f"the probe {name} has {len(errors)} readings without a value, the first: {errors[0]}"
