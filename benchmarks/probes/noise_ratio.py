"""Whether a model predicts more noise in its sampler's states than on the path."""

from __future__ import annotations

from collections.abc import Iterator

from bench.probes import Probe, Reading, Trajectories


class NoiseRatio(Probe):
    """``|z + (1 - s) v|``, the length of the predicted noise, where the sampler leads over on the path."""

    name, label, version = "noise_ratio", "Predicted noise", 1
    ideal = 1.0

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        for start, steps in paths.displaced():
            at = start + steps
            rest = 1 - paths.sigma(at)
            off = paths.landed(start, steps) + rest * paths.landed_velocity(start, steps)
            on = paths.state(at) + rest * paths.velocity(at)
            yield Reading(start, at, off.flatten(1).norm(dim=1) / on.flatten(1).norm(dim=1), steps)
