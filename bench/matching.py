"""What every method that learns from pictures by flow matching begins with: noise and a level for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from bench import flow

if TYPE_CHECKING:
    from bench.batches import Pairs
    from bench.job import Job


def draw(job: Job, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Noise z1 (N, C, H, W), time u (N,) before the timestep shift and level sigma (N,) after it, one of each per pair.

    Times are logit-normal (Esser et al. 2024). The streams are ``noise`` and ``time``, so methods of one seed see the
    same draws.
    """
    u = flow.logit_normal_time(job.normal(pairs, "time"))
    return job.noise(pairs, "noise"), u, flow.shift_time(u, job.policy.shift)
