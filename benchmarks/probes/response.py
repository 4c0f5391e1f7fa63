"""How far a model's velocity is thrown by the displacement that its own steps leave."""

from __future__ import annotations

from collections.abc import Iterator

from bench import flow
from bench.probes import Probe, Reading, Trajectories


class Response(Probe):
    """``|v(z, s) - v(z^, s)|² / d`` between the path and where the sampler leads, at one level s."""

    name, label, version = "response", "Response to its displacement", 1

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for start, steps in paths.displaced():
            at = start + steps
            moved = flow.velocity_error(paths.landed_velocity(start, steps), paths.velocity(at))
            yield Reading(start, at, moved, steps)
