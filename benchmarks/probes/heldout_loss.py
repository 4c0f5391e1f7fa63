"""The flow-matching loss by level, on pairs that no method trains on and on as many that methods do train on."""

from __future__ import annotations

from collections.abc import Iterator

from bench import flow
from bench.probes import Probe, Reading, Trajectories


class HeldOutLoss(Probe):
    """``E_on = |v(z, sigma) - (z1 - z0)|² / d``: fit on the path."""

    name, label, version = "heldout_loss", "Loss on the path", 1
    fit = True
    ideal = None  # what the noise hides of a picture stays hidden

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for at in paths.visited:
            yield Reading(at, at, flow.velocity_error(paths.velocity(at), paths.noise - paths.clean))
