"""Noise that a sampler's steps leave over: its states are at another level than it believes."""

from __future__ import annotations

from collections.abc import Iterator

from bench.probes import Probe, Reading, Trajectories


class Slowness(Probe):
    """``<z^ - z0, z1 - z0> / |z1 - z0|² - s``: the level on the pair's path nearest to the state, less s."""

    name, label, version = "slowness", "Slowness", 1

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        line = (paths.noise - paths.clean).flatten(1)
        for start, steps in paths.displaced():
            moved = (paths.landed(start, steps) - paths.clean).flatten(1)
            nearest = (moved * line).sum(1) / line.pow(2).sum(1)
            yield Reading(start, start + steps, nearest - paths.sigma(start + steps), steps)
