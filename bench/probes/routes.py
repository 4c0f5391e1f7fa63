"""Pairs with their noise, and where a velocity field leads from them: what every probe reads, computed once and shared.

Notation as in ``bench/flow.py``. A *start* is a level of the sampler's list at which a pair's state is put on the path,
``z = (1 - sigma) z0 + sigma z1``. From there the sampler's own Euler steps lead off it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bench import flow
from bench.backbone.loader import TextCondition
from bench.rng import torch_generator
from bench.sampling import levels
from bench.sampling.solvers import solve


class Field(Protocol):
    """A velocity field with an empty prompt; a ``Policy`` is one."""

    def velocity(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> Tensor:
        """Conditional velocity like ``latents`` (N, C, H, W), at one level for all."""
        ...

    def branches(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> tuple[Tensor, Tensor]:
        """Unconditional and conditional velocity."""
        ...


@dataclass(frozen=True)
class NoisyPairs:
    """Pairs, each with noise of its own that never changes.

    Attributes:
        latents: clean latents z0 (N, C, H, W), float32.
        text: their captions' conditions (N).
        indices: positions among the held-out pairs, or among those of training, which name the noise.
        seed: of the noise; the suite's.
    """

    latents: Tensor
    text: TextCondition
    indices: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.indices)

    def normal(self, stream: str) -> Tensor:
        """Gaussian draws like ``latents``: one generator per pair, named (seed, pair, stream)."""
        shape = self.latents.shape[1:]
        rows = [
            torch.randn(shape, generator=torch_generator(self.seed, index, "probe", stream)) for index in self.indices
        ]
        return torch.stack(rows).to(self.latents.device)

    @cached_property
    def noise(self) -> Tensor:
        """z1 (N, C, H, W)."""
        return self.normal("noise")


@dataclass(frozen=True)
class Route:
    """Which levels probes start from, and how far they go.

    Attributes:
        sigmas: the sampler's list, (steps + 1,) from 1 down to 0.
        shift: timestep shift of the backbone.
        starts: positions in ``sigmas`` from which one Euler step leads to a level above 0.
        middle: those of them from which paths of many steps start: at level 1 spread is diversity and no error.
        span: steps of the short paths that start in ``middle``.
    """

    sigmas: Tensor
    shift: float
    starts: tuple[int, ...]
    middle: tuple[int, ...]
    span: int

    @property
    def end(self) -> int:
        """Position of the last level, 0."""
        return len(self.sigmas) - 1


MIDDLE = (0.75, 0.5)
"""Levels near which paths of many steps start."""

SPAN = 4
"""Steps of the short paths."""


def route(sigmas: Tensor, shift: float, *, starts: int | None = None, span: int = SPAN) -> Route:
    """The levels that probes use of a sampler's list.

    Args:
        starts: how many, evenly spread over the list; None: every level that can be one.
        span: at most; a list of few levels has shorter paths.
    """
    can = range(len(sigmas) - 2)  # the last step leads to 0, where no velocity leads anywhere
    if starts is None or starts >= len(can):
        chosen = tuple(can)
    else:
        spread = torch.linspace(0, len(can) - 1, starts, dtype=torch.float64)
        chosen = tuple(dict.fromkeys(int(position) for position in spread.round()))
    span = min(span, len(can))
    far = [position for position in can if position + span <= len(can)]
    middle = [min(far, key=lambda position: abs(float(sigmas[position]) - level)) for level in MIDDLE] if far else []
    both = tuple(dict.fromkeys(middle))
    return Route(sigmas, shift, tuple(sorted({*chosen, *both})), both, span)


class OnPath:
    """Velocities of a field at states on the path, for every guidance scale.

    Args:
        field: the model.
        pairs: their latents and noise.
        route: the levels.
        guided: whether any scale but 1 is asked for, so that both branches are computed together.
        batch: pairs in a forward; None: all.

    Attributes:
        forwards: samples that went through the model.
    """

    def __init__(
        self, field: Field, pairs: NoisyPairs, route: Route, *, guided: bool, batch: int | None = None
    ) -> None:
        self.pairs, self.route, self.forwards = pairs, route, 0
        self._field, self._guided, self._batch = field, guided, batch or len(pairs)
        self._known: dict[int, tuple[Tensor, Tensor | None]] = {}

    def state(self, position: int) -> Tensor:
        """``(1 - sigma) z0 + sigma z1`` (N, C, H, W)."""
        return flow.interpolate(self.pairs.latents, self.pairs.noise, self.route.sigmas[position])

    def velocity(self, position: int, scale: float) -> Tensor:
        """Velocity there."""
        if position not in self._known:
            state, sigma = self.state(position), self.route.sigmas[position]
            unconditional = None
            if self._guided:
                unconditional, conditional = self._both(state, sigma)
            else:
                conditional = self.call(state, sigma, 1.0)
            self._known[position] = conditional, unconditional
        conditional, unconditional = self._known[position]
        if scale == 1:
            return conditional
        assert unconditional is not None
        return flow.guide(unconditional, conditional, scale)

    @torch.no_grad()
    def call(self, state: Tensor, sigma: Tensor | float, scale: float) -> Tensor:
        """Velocity at any states of the pairs, all at one level."""
        if scale != 1:
            return flow.guide(*self._both(state, sigma), scale)
        self.forwards += len(state)
        parts = [self._field.velocity(state[rows], sigma, self.pairs.text[rows]) for rows in self._parts()]
        return torch.cat(parts).float()

    @torch.no_grad()
    def _both(self, state: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        self.forwards += 2 * len(state)
        parts = [self._field.branches(state[rows], sigma, self.pairs.text[rows]) for rows in self._parts()]
        unconditional, conditional = (torch.cat(side).float() for side in zip(*parts, strict=True))
        return unconditional, conditional

    def _parts(self) -> tuple[Tensor, ...]:
        rows: tuple[Tensor, ...] = torch.arange(len(self.pairs), device=self.pairs.latents.device).split(self._batch)
        return rows


class Trajectories:
    """Where a field leads from held-out pairs at one guidance scale: the argument of every probe.

    Positions are positions in ``route.sigmas``. All results are float32 and (N, C, H, W), without a graph.

    Args:
        model: of the policy.
        scale: of classifier-free guidance; 1: none.
    """

    def __init__(self, model: OnPath, scale: float) -> None:
        self.pairs, self.route, self.scale = model.pairs, model.route, scale
        self._model = model
        self._landed: dict[tuple[int, int], Tensor] = {}
        self._off: dict[tuple[int, int], Tensor] = {}

    def sigma(self, position: int) -> float:
        """The level at a position."""
        return float(self.route.sigmas[position])

    @property
    def clean(self) -> Tensor:
        """z0."""
        return self.pairs.latents

    @property
    def noise(self) -> Tensor:
        """z1."""
        return self.pairs.noise

    @property
    def visited(self) -> tuple[int, ...]:
        """Positions of the starts, and of the levels one step below them."""
        return tuple(sorted({position + after for position in self.route.starts for after in (0, 1)}))

    def displaced(self) -> Iterator[tuple[int, int]]:
        """(start, Euler steps): one step from every start, and ``span`` steps from those in the middle."""
        yield from ((start, 1) for start in self.route.starts)
        yield from self.far()

    def far(self) -> Iterator[tuple[int, int]]:
        """The latter alone."""
        if self.route.span > 1:
            yield from ((start, self.route.span) for start in self.route.middle)

    def state(self, position: int) -> Tensor:
        """The pairs' states on the path."""
        return self._model.state(position)

    def velocity(self, position: int) -> Tensor:
        """The model's velocity there."""
        return self._model.velocity(position, self.scale)

    def landed(self, start: int, steps: int) -> Tensor:
        """Where Euler steps of the sampler lead from the path at ``start``."""
        if steps == 0:
            return self.state(start)
        if (start, steps) not in self._landed:
            before, at = self.landed(start, steps - 1), start + steps - 1
            sigmas = self.route.sigmas
            self._landed[start, steps] = flow.euler(
                before, self.landed_velocity(start, steps - 1), sigmas[at], sigmas[at + 1]
            )
        return self._landed[start, steps]

    def landed_velocity(self, start: int, steps: int) -> Tensor:
        """The model's velocity there, at the level that the sampler believes."""
        if steps == 0:
            return self.velocity(start)
        if (start, steps) not in self._off:
            self._off[start, steps] = self.call(self.landed(start, steps), self.route.sigmas[start + steps])
        return self._off[start, steps]

    def call(self, state: Tensor, sigma: Tensor | float) -> Tensor:
        """The model's velocity at any states of the pairs, all at one level."""
        return self._model.call(state, sigma, self.scale)

    def solve(self, state: Tensor, sigmas: Tensor) -> Tensor:
        """Euler steps from any states of the pairs through ``sigmas``, which begin at the states' level."""
        return solve(self.call, state, sigmas)

    def sigmas_from(self, position: int, steps: int) -> Tensor:
        """Levels from a position's down to 0 in so many steps, evenly spread before the shift: (steps + 1,)."""
        sigmas = levels.sigmas_from(self.sigma(position), steps, self.route.shift)
        return torch.from_numpy(sigmas).to(self.route.sigmas.device)


def trajectories(
    field: Field, pairs: NoisyPairs, route: Route, scales: Sequence[float], *, batch: int | None = None
) -> tuple[list[Trajectories], OnPath]:
    """Trajectories from pairs at each scale, and what lies on the path, which they share and which counts forwards."""
    model = OnPath(field, pairs, route, guided=any(scale != 1 for scale in scales), batch=batch)
    return [Trajectories(model, scale) for scale in scales], model
