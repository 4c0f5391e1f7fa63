"""What every method that learns from pictures by flow matching begins with: noise and a level for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor

from bench import flow
from bench.method import AdamWConfig

if TYPE_CHECKING:
    from bench.batches import Rows
    from bench.job import Job


class MatchingConfig(AdamWConfig):
    """Optimizer and batch are the SOAR paper's for SD3.5-Medium (section 3.1), the same for supervised fine-tuning."""

    batch_size: int = Field(32, gt=0, description="pairs per update; 32 on the curated subsets, 512 on the full corpus")


def draw(job: Job, rows: Rows, stream: str = "") -> tuple[Tensor, Tensor, Tensor]:
    """Noise z1 (N, C, H, W), time u (N,) before the timestep shift and level sigma (N,) after it, one of each per row.

    Times are logit-normal (Esser et al. 2024). The streams are ``noise`` and ``time``, so methods of one seed see the
    same draws.

    Args:
        stream: added to the streams' names, where a step draws for the same rows more than once.
    """
    u = flow.logit_normal_time(job.normal(rows, f"time{stream}"))
    return job.noise(rows, f"noise{stream}"), u, flow.shift_time(u, job.policy.shift)
