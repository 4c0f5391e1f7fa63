"""Velocities at many states of each row, without a graph: in as few forwards as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition

if TYPE_CHECKING:
    from bench.job import Job

Velocity = Callable[[Tensor, Tensor, TextCondition], Tensor]
"""(states (M, C, H, W), levels (M,), conditions (M)) → velocities like the states."""


@torch.no_grad()
def velocities(job: Job, velocity: Velocity, states: Tensor, levels: Tensor, text: TextCondition) -> Tensor:
    """Velocities (n, K, C, H, W) at K states of each of a micro-batch's n rows.

    A GPU that takes one state of a few rows at a time waits for its host. Without a graph there is room for more:
    forwards are as large as an evaluation's.

    Args:
        velocity: such as ``job.policy.velocity``; no weight may change while it is called.
        states: (n, K, C, H, W).
        levels: (K,), or (n, K) where rows have their own.
        text: of the rows (n).
    """
    rows, count = states.shape[:2]
    flat, each = states.flatten(0, 1), levels.expand(rows, count).flatten()
    with job.policy.at_rest():
        pieces = job.pieces(rows * count, per_row=count)
        parts = [velocity(flat[piece], each[piece], text[piece // count]) for piece in pieces]
    of_states: Tensor = torch.cat(parts)[: rows * count].unflatten(0, (rows, count))  # padding comes last
    return of_states
