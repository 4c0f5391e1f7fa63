"""How long a model's velocities are. Beside the base's: whether post-training made them longer."""

from __future__ import annotations

from collections.abc import Iterator

from bench.probes import Probe, Reading, Trajectories


class VelocityNorm(Probe):
    """``|v| / sqrt(d)`` on the path. A report shows ``|v| / |v_base|`` of the same pair."""

    name, label, version = "velocity_norm", "Length of velocities", 1
    ideal = 1.0
    relative = True

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for at in paths.visited:
            yield Reading(at, at, paths.velocity(at).flatten(1).pow(2).mean(1).sqrt())
