"""Whether a sampler steers back: what is left at the end of a state's perturbation."""

from __future__ import annotations

from collections.abc import Iterator

from bench import flow
from bench.probes import Probe, Reading, Trajectories

SIZE = 0.05
"""Of the perturbation, over the norm of the state: the size of a few Euler steps' own errors. No source has a value."""


class Recovery(Probe):
    """``|change of the sample| / |change of the state|`` for a random change of a state in the middle."""

    name, label, version = "recovery", "Recovery from a perturbation", 1
    ideal = None  # even the exact flow leaves what belongs to the data
    long = True

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        direction = paths.pairs.normal("recovery")
        for start in paths.route.middle:
            state, steps = paths.state(start), paths.route.end - start
            length = SIZE * state.flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1)
            change = flow.per_sample(length, state) * direction
            moved = paths.solve(state + change, paths.route.sigmas[start:]) - paths.landed(start, steps)
            left = moved.flatten(1).norm(dim=1) / change.flatten(1).norm(dim=1)
            yield Reading(start, paths.route.end, left, steps)
