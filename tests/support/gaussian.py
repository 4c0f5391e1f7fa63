"""A world in which everything that a probe measures has a value on paper: pictures from one Gaussian.

``z0 ~ N(m, s² I)`` and ``z1 ~ N(0, I)``. With ``a = 1 - sigma`` and ``y = z - a m``, a state on the path has
``y = a e0 + sigma z1`` with ``e0 = z0 - m``, of variance ``V = a² s² + sigma²``. The optimal velocity is the mean of
``z1 - z0`` given z:

    v(z, sigma) = -m + c y        c = Cov(z1 - z0, z) / V = (sigma - a s²) / V

since ``Cov(z1, z) = sigma`` and ``Cov(z0, z) = a s²``. ``dV/dsigma = 2 (sigma - a s²)``, so ``c = V' / (2 V)``, and the
exact flow scales y with ``sqrt(V)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.backbone.loader import TextCondition
from bench.probes.routes import NoisyPairs


@dataclass(frozen=True)
class GaussianWorld:
    mean: float
    std: float

    def variance(self, sigma: float) -> float:
        """V."""
        return (1 - sigma) ** 2 * self.std**2 + sigma**2

    def slope(self, sigma: float) -> float:
        """c."""
        return (sigma - (1 - sigma) * self.std**2) / self.variance(sigma)

    def shrink(self, sigmas: list[float], wrong: float = 1.0) -> float:
        """What Euler steps through ``sigmas`` multiply y with, of velocities that are ``wrong`` times the optimal."""
        product = 1.0
        for sigma, after in pairwise(sigmas):
            product *= 1 - (sigma - after) * wrong * self.slope(sigma)
        return product


@dataclass(frozen=True)
class GaussianField:
    """The optimal velocity of a world, or ``wrong`` times it; that of the empty prompt has another mean."""

    world: GaussianWorld
    empty_mean: float = 0.0
    wrong: float = 1.0

    def velocity(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> Tensor:
        return self._of(self.world.mean, latents, float(sigma))

    def branches(self, latents: Tensor, sigma: Tensor | float, text: TextCondition) -> tuple[Tensor, Tensor]:
        means = (self.empty_mean, self.world.mean)
        unconditional, conditional = (self._of(mean, latents, float(sigma)) for mean in means)
        return unconditional, conditional

    def _of(self, mean: float, latents: Tensor, sigma: float) -> Tensor:
        y = latents.double() - (1 - sigma) * mean
        return (self.wrong * (-mean + self.world.slope(sigma) * y)).float()


@dataclass(frozen=True)
class Given(NoisyPairs):
    """Pairs whose noise is given."""

    given: Tensor

    @property
    def noise(self) -> Tensor:  # type: ignore[override]
        return self.given


def text(count: int) -> TextCondition:
    return TextCondition(torch.zeros(count, 1, 1), torch.zeros(count, 1))


def exact_pairs(world: GaussianWorld, count: int = 8, *, over_pairs: bool = False) -> Given:
    """Pairs whose e0 and z1 have exactly their expected means, variances and covariance.

    So a mean of squares of them is its expectation, and needs no tolerance for chance. The moments are those within
    each pair over its 64 elements; or, ``over_pairs``, those of each element, as an unbiased estimate has them.
    """
    draws = torch.randn(count, 64, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    draws = draws.transpose(0, 1) if over_pairs else draws
    centred = draws - draws.mean(1, keepdim=True)
    size = centred.shape[1] - 1 if over_pairs else centred.shape[1]
    root = torch.linalg.cholesky(centred.transpose(1, 2) @ centred / size)
    white = torch.linalg.solve_triangular(root, centred.transpose(1, 2), upper=False).transpose(1, 2)
    white = white.transpose(0, 1) if over_pairs else white
    clean, noise = world.mean + world.std * white[..., 0], white[..., 1]
    shape = (count, 1, 8, 8)
    return Given(clean.reshape(shape).float(), text(count), tuple(range(count)), 0, noise.reshape(shape).float())


def drawn_pairs(world: GaussianWorld, count: int, seed: int = 3) -> NoisyPairs:
    """Pairs by chance, with noise from their own generators."""
    clean = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * world.std + world.mean
    return NoisyPairs(clean, text(count), tuple(range(count)), seed)
