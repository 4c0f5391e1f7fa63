"""Whether post-training made a model's velocities longer than the base's."""

from __future__ import annotations

from collections.abc import Iterator

from bench.probes import Probe, Reading, Trajectories


class NormRatio(Probe):
    """``|v| / |v_base|`` on the path."""

    name, label, version = "norm_ratio", "Length of velocities", 1
    ideal = 1.0
    needs_base = True

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for at in paths.visited:
            ours, base = (v.flatten(1).norm(dim=1) for v in (paths.velocity(at), paths.base_velocity(at)))
            yield Reading(at, at, ours / base)
