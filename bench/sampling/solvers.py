"""Solvers of the sampler's ODE: the reference, Euler steps, and two of diffusers' for flow matching.

All go through the same list of levels (``bench/sampling/levels.py``), whatever list a solver of diffusers would make
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from bench import flow
from bench.errors import BenchError
from bench.sampling.names import DPM, EULER, HEUN, check_solver
from bench.sampling.remedies import Remedy

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(states (N, C, H, W), one level) → velocities, like the states."""


def solve(
    velocity: Velocity, state: Tensor, sigmas: Tensor, solver: str = EULER, remedy: Remedy | None = None
) -> Tensor:
    """Follow the ODE from states at ``sigmas[0]`` to ``sigmas[-1]``: like ``state``.

    Args:
        sigmas: (steps + 1,) falling levels.
        solver: one of ``SOLVERS``.
        remedy: changes velocities, and with Euler steps also where a step leads.

    Raises:
        BenchError: an unknown solver, or a remedy that it cannot have.
    """
    check_solver(solver)
    if remedy is not None and remedy.euler_only and solver != EULER:
        raise BenchError(f"this remedy changes where Euler steps lead, and {solver} takes none; choose {EULER}")

    def remedied(latents: Tensor, sigma: Tensor) -> Tensor:
        at_state = velocity(latents, sigma)
        return remedy.velocity(at_state, latents, sigma) if remedy else at_state

    return SOLVERS[solver](remedied, state, sigmas, remedy)


def _euler(velocity: Velocity, state: Tensor, sigmas: Tensor, remedy: Remedy | None) -> Tensor:
    for sigma, after in pairwise(sigmas):
        at_state = velocity(state, sigma)
        landed = flow.euler(state, at_state, sigma, after)
        state = remedy.landed(landed, flow.endpoint(state, at_state, sigma), sigma) if remedy else landed
    return state


def _heun(velocity: Velocity, state: Tensor, sigmas: Tensor, remedy: Remedy | None) -> Tensor:
    """Two velocities a step, but one in the last, which leads to 0."""
    from diffusers import FlowMatchHeunDiscreteScheduler

    twice = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    return _diffusers(FlowMatchHeunDiscreteScheduler(), twice, velocity, state, len(sigmas) - 1)


def _dpm(velocity: Velocity, state: Tensor, sigmas: Tensor, remedy: Remedy | None) -> Tensor:
    """DPM-Solver++ of second order, multistep (Lu et al. 2022, arXiv 2211.01095): one velocity a step."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, final_sigmas_type="zero", solver_order=2
    )
    return _diffusers(scheduler, sigmas, velocity, state, len(sigmas) - 1)


def _diffusers(scheduler: Any, visited: Tensor, velocity: Velocity, state: Tensor, steps: int) -> Tensor:
    """Run a scheduler of diffusers on levels of ours."""
    scheduler.set_timesteps(steps)
    scheduler.sigmas, scheduler.timesteps = visited.cpu(), 1000 * visited[:-1].cpu()
    scheduler.set_begin_index(0)
    for sigma, timestep in zip(visited[:-1], scheduler.timesteps, strict=True):
        state = scheduler.step(velocity(state, sigma), timestep, state, return_dict=False)[0]
    return state


SOLVERS: Final[dict[str, Callable[[Velocity, Tensor, Tensor, Remedy | None], Tensor]]] = {
    EULER: _euler,
    HEUN: _heun,
    DPM: _dpm,
}
"""Name → solver; Euler is the reference, which every suite draws with."""
