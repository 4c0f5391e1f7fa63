"""The gap after several steps of the sampler, from levels in the middle."""

from __future__ import annotations

from collections.abc import Iterator

from bench.probes import Probe, Reading, Trajectories
from benchmarks.probes.gap import gaps


class KStepGap(Probe):
    """Error of the corrective velocity after k Euler steps, less the error on the path."""

    name, label, version = "k_step_gap", "Gap after k steps", 1
    weight = "sigma_squared"

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        return gaps(paths, paths.far())
