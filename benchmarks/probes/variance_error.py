"""Whether the noise in a sampler's states has the variance that their level says.

Ning et al. 2023 (arXiv 2308.15321; forever208/ADM-ES @ da955c1, ``datasets/exposure_bias_xt.py``, which plots the
difference of the two variances), carried over from noise prediction to flows: the noise part of a state is
``z^ - (1 - s) z0``, and on the path its variance is s².
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.errors import BenchError
from bench.probes import Probe, Reading, Trajectories


class VarianceError(Probe):
    """Variance over pairs of ``z^ - (1 - s) z0``, averaged over the latent dimensions, less s².

    A pair's value is its share of the unbiased variance within its chunk, so the mean over pairs is the measure.
    """

    name, label, version = "variance_error", "Variance error", 1

    def read(self, paths: Trajectories) -> Iterator[Reading]:
        count = len(paths.pairs)
        if count < 2:
            raise BenchError("a variance needs at least two pairs; hold out more with --holdout")
        for start, steps in paths.displaced():
            sigma = paths.sigma(start + steps)
            noise = (paths.landed(start, steps) - (1 - sigma) * paths.clean).flatten(1)
            share = (noise - noise.mean(0)).pow(2).mean(1) * count / (count - 1)
            yield Reading(start, start + steps, share - sigma**2, steps)
