"""What few steps cost by themselves, to be told from what a model's own states cost."""

from __future__ import annotations

from collections.abc import Iterator

from bench import flow
from bench.probes import Probe, Reading, Trajectories

STEPS = (2, 4, 8)
REFERENCE = 32


class StepError(Probe):
    """``|x0(N) - x0(32)|² / d`` of samples in N Euler steps from one state in the middle."""

    name, label, version = "step_error", "Error of few steps", 1
    routine = False
    long = True

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for start in paths.route.middle:
            state = paths.state(start)
            fine = paths.solve(state, paths.sigmas_from(start, REFERENCE))
            for steps in STEPS:
                coarse = paths.solve(state, paths.sigmas_from(start, steps))
                yield Reading(start, paths.route.end, flow.velocity_error(coarse, fine), steps)
