"""The gap after one step of the sampler."""

from __future__ import annotations

from collections.abc import Iterator

from bench.probes import Probe, Reading, Trajectories
from benchmarks.probes.gap import gaps


class OneStepGap(Probe):
    """Error of the corrective velocity after one Euler step, less the error on the path."""

    name, label, version = "one_step_gap", "Gap after one step", 1
    weight = "sigma_squared"

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        return gaps(paths, ((start, 1) for start in paths.route.starts))
