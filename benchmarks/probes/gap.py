"""How much worse a model steers from its own states than from the path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench import flow
from bench.probes import Reading, Trajectories


def gaps(paths: Trajectories, ways: Iterable[tuple[int, int]]) -> Iterator[Reading]:
    """``|v(z^, s) - (z^ - z0) / s|² / d - E_on(s)`` where (start, steps) of ``ways`` lead, at the level s there.

    ``(z^ - z0) / s`` is the velocity whose endpoint is the clean latents. On the path it is ``z1 - z0``.
    """
    for start, steps in ways:
        at = start + steps
        target = (paths.landed(start, steps) - paths.clean) / paths.sigma(at)
        off = flow.velocity_error(paths.landed_velocity(start, steps), target)
        on = flow.velocity_error(paths.velocity(at), paths.noise - paths.clean)
        yield Reading(start, at, off - on, steps)
