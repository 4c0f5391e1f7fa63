"""The flow-matching loss on pairs that no method trains on, by level."""

from __future__ import annotations

from collections.abc import Iterator

from bench import flow
from bench.probes import Probe, Reading, Trajectories


class HeldOutLoss(Probe):
    """``E_on = |v(z, sigma) - (z1 - z0)|² / d``: fit on the path."""

    name, label, version = "heldout_loss", "Held-out loss", 1
    ideal = None  # what the noise hides of a picture stays hidden

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for at in paths.visited:
            yield Reading(at, at, flow.velocity_error(paths.velocity(at), paths.noise - paths.clean))
