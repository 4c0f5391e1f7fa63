"""Remedies for exposure bias that cost no training: what a sampler does otherwise. See ``docs/exposure-bias.md``.

Each has a scale, which is chosen on validation prompts, and with which it does nothing at all: 1 or 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.sampling.names import EPSILON, read_remedy


class Remedy(Protocol):
    """What a sampler does otherwise.

    Attributes:
        euler_only: it changes where a step leads, which solvers of higher order do not ask.
    """

    euler_only: ClassVar[bool]

    def velocity(self, velocity: Tensor, state: Tensor, sigma: float) -> Tensor:
        """The velocity to go on with, in place of the model's (guided) one at ``state`` (N, C, H, W)."""
        ...

    def landed(self, after: Tensor, endpoint: Tensor, sigma: float) -> Tensor:
        """The state to go on from, in place of ``after``, where a step from ``sigma`` with that ``endpoint`` led."""
        ...


@dataclass(frozen=True)
class EpsilonScaling:
    """Divide the predicted noise by ``scale`` (Ning et al. 2023, arXiv 2308.15321), carried over to flows.

    The noise that a velocity predicts is ``e = z + (1 - sigma) v``. With ``e / scale`` in its place, as well in the
    predicted picture, the velocity is ``(e / scale - z) / (1 - sigma)``. At sigma = 1 the state is the noise, which
    nothing has to predict, so the velocity stays.
    """

    euler_only: ClassVar[bool] = False
    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise BenchError(f"epsilon scaling divides by a scale above 0, not by {self.scale:g}")

    def velocity(self, velocity: Tensor, state: Tensor, sigma: float) -> Tensor:
        if self.scale == 1 or sigma >= 1:
            return velocity
        rest = 1 - sigma
        return ((state + rest * velocity) / self.scale - state) / rest

    def landed(self, after: Tensor, endpoint: Tensor, sigma: float) -> Tensor:
        return after


@dataclass(frozen=True)
class DifferentialCorrection:
    """Move each step's result along its difference to the predicted picture (Yu et al. 2026, arXiv 2604.16044).

    ``z' + w (z' - x0)``, with a weight for the low band of one Haar transform, the means of 2 x 2 latents, and another
    for the rest. In the last step z' is the predicted picture, so nothing moves.

    Attributes:
        low, high: scales of the two bands; equal and ``constant`` it is the correction in pixel space.
        constant: the weights are the scales themselves; else ``low sigma`` and ``high (1 - sigma)``.
    """

    euler_only: ClassVar[bool] = True
    low: float
    high: float = 0.0
    constant: bool = False

    def velocity(self, velocity: Tensor, state: Tensor, sigma: float) -> Tensor:
        return velocity

    def landed(self, after: Tensor, endpoint: Tensor, sigma: float) -> Tensor:
        if self.low == self.high == 0:
            return after
        if after.shape[-1] % 2 or after.shape[-2] % 2:
            raise BenchError(f"differential correction halves latents, and these have sides {tuple(after.shape[-2:])}")
        difference = after - endpoint
        means = torch.nn.functional.avg_pool2d(difference, 2)
        smooth = means.repeat_interleave(2, -1).repeat_interleave(2, -2)
        low = self.low if self.constant else self.low * sigma
        high = self.high if self.constant else self.high * (1 - sigma)
        return after + low * smooth + high * (difference - smooth)


def remedy(text: str) -> Remedy | None:
    """The remedy that a sampler's record names, as of ``names.read_remedy``; None for an empty text."""
    if not text:
        return None
    name, scales = read_remedy(text)
    return EpsilonScaling(scales[0]) if name == EPSILON else DifferentialCorrection(scales[0], sum(scales[1:]))
