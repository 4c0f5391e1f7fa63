"""The model being post-trained, seen as a velocity field. Every forward is charged to the meter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench import flow
from bench.backbone.condition import TextCondition
from bench.backbone.weights import adapters_off
from bench.machine.engine import Engine
from bench.sampling import levels
from bench.sampling.names import EULER
from bench.sampling.remedies import Remedy
from bench.sampling.solvers import solve

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


class Policy:
    """Velocity, guidance and sampling on top of an SD3 transformer.

    Args:
        transformer: the weights.
        scheduler: gives the timestep shift.
        null: the empty prompt's condition (1 row), for guidance.
        engine: where it computes; the weights and ``null`` are moved there.
        charge: called with the latents of each forward, whether a graph is built, and whether adapters are off.
        levels: name of the list of noise levels that it samples at (``bench/sampling/levels.py``): the suite's.

    Attributes:
        module: what is called in a forward: the transformer, or what a data-parallel engine wraps around it.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        null: TextCondition,
        engine: Engine | None = None,
        charge: Callable[[Tensor, bool, bool], None] = lambda latents, graph, bare: None,
        levels: str = levels.DIFFUSERS,
    ) -> None:
        self.engine = engine or Engine()
        self.transformer = transformer.to(self.engine.device)
        self.module: torch.nn.Module = transformer
        self.scheduler = scheduler
        self.null = null.to(self.engine.device)
        self._charge, self._bare, self._levels = charge, False, levels

    @property
    def shift(self) -> float:
        """Timestep shift of the scheduler (3 for SD3 and SD3.5)."""
        return float(self.scheduler.config.shift)

    def sigmas(self, steps: int, name: str | None = None) -> Tensor:
        """The levels that a sampler of ``steps`` steps visits: (steps + 1,) from 1 down to 0, on the CPU.

        What is done with each of them is told by the host. ``tolist`` gives numbers, which cost a GPU nothing.

        Args:
            name: of the list (``bench/sampling/levels.py``); None: the policy's own.
        """
        return torch.from_numpy(levels.sigmas(name or self._levels, steps, self.shift))

    def velocity(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> Tensor:
        """Conditional velocity.

        Args:
            latents: (N, C, H, W).
            sigma: scalar or (N,) noise level in [0, 1]; the model is given the timestep ``1000 sigma``.
            text: N prompts.

        Returns:
            (N, C, H, W) in float32.
        """
        self._charge(latents, torch.is_grad_enabled(), self._bare)
        timestep = self._timestep(sigma, len(latents))
        with self.engine.autocast():
            velocity: Tensor = self.module(
                hidden_states=latents,
                encoder_hidden_states=text.prompt_embeds,
                pooled_projections=text.pooled_prompt_embeds,
                timestep=timestep,
                return_dict=False,
            )[0]
        return velocity.float()

    def _timestep(self, sigma: Tensor | float, count: int) -> Tensor:
        device = self.engine.device
        if isinstance(sigma, Tensor):
            return (1000 * sigma.to(device, torch.float32)).expand(count)
        return torch.full((count,), 1000 * sigma, dtype=torch.float32, device=device)  # no copy, which would be a wait

    def unconditional_velocity(self, latents: Tensor, sigma: Tensor | float) -> Tensor:
        """Velocity for the empty prompt."""
        return self.velocity(latents, sigma, self.null.expand(len(latents)))

    def guided_velocity(
        self,
        latents: Tensor,
        sigma: Tensor | float,
        text: TextCondition,
        guidance_scale: float,
        *,
        detach_unconditional: bool = False,
        unconditional: Tensor | None = None,
    ) -> Tensor:
        """Velocity with classifier-free guidance, both branches in one call of the model. Scale 1: one branch only.

        Args:
            detach_unconditional: no gradient leads through the unconditional branch, where there is one at all.
            unconditional: that branch's velocity where it is known already, which spares its forward.
        """
        if guidance_scale == 1.0:
            return self.velocity(latents, sigma, text)
        if unconditional is None and not (detach_unconditional and torch.is_grad_enabled()):
            return flow.guide(*self.branches(latents, sigma, text), guidance_scale)
        if unconditional is None:
            with torch.no_grad():
                unconditional = self.unconditional_velocity(latents, sigma)
        return flow.guide(unconditional, self.velocity(latents, sigma, text), guidance_scale)

    def branches(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> tuple[Tensor, Tensor]:
        """Unconditional and conditional velocity, in one call of the model."""
        level = sigma.expand(len(latents)).repeat(2) if isinstance(sigma, Tensor) else sigma
        both = self.velocity(
            latents.repeat(2, 1, 1, 1), level, TextCondition.cat([self.null.expand(len(latents)), text])
        )
        unconditional, conditional = both.chunk(2)
        return unconditional, conditional

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Inside, nothing has a graph and no weight may change: weights are cast once, and not in every forward."""
        with torch.no_grad(), self.engine.autocast():
            yield

    def sample(
        self,
        noise: Tensor,
        text: TextCondition,
        *,
        steps: int,
        guidance_scale: float,
        levels: str | None = None,
        solver: str = EULER,
        remedy: Remedy | None = None,
    ) -> Tensor:
        """Solve the ODE from ``noise``: clean latents like ``noise``.

        Args:
            levels: name of the list of noise levels; None: the policy's own.
            solver: one of ``bench/sampling/solvers.py``; Euler steps are the reference.
            remedy: changes what the solver does (``bench/sampling/remedies.py``).
        """

        def velocity(latents: Tensor, sigma: float) -> Tensor:
            return self.guided_velocity(latents, sigma, text, guidance_scale)

        with self.at_rest():
            return solve(velocity, noise, self.sigmas(steps, levels), solver, remedy)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, every velocity is that of the weights under a LoRA: the pretrained ones, or an earlier stage's."""
        with adapters_off(self.transformer):
            self._bare = True
            try:
                yield
            finally:
                self._bare = False
