"""Disk that an experiment fills: weights, caches, checkpoints, images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.plan.estimates import Amount, JobPlan

if TYPE_CHECKING:
    from bench.plan.work import Work

PNG = 0.6
"""Size of a saved picture against its pixels, about that of lossless files of generated pictures."""


def disk(work: Work, jobs: Sequence[JobPlan]) -> tuple[Amount, ...]:
    """The lines of the disk table."""
    largest = max((job.disk for job in jobs), default=0)
    states = sum(job.disk for job in jobs) + largest
    trained = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    return (
        _weights(work),
        *(line for subset in work.config.subsets for line in _cached(work, subset)),
        Amount(
            "checkpoints and weights",
            states,
            f"{trained}, and one more being written",
        ),
        _images(work, len(jobs)),
    )


def _weights(work: Work) -> Amount:
    architecture = work.architecture
    if architecture.folder is not None:
        return Amount("weights to fetch", 0, f"{architecture.name} is here")
    models = (architecture.empty_transformer(), architecture.empty_vae())
    count = sum(p.numel() for model in models for p in model.parameters()) + architecture.text_parameters
    return Amount("weights to fetch", 2 * count, f"{architecture.name}, 2 bytes each")


def _cached(work: Work, subset: str) -> Iterator[Amount]:
    count, picture, text = work.pairs(subset), 4 * math.prod(work.architecture.latent_shape()), work.text_row
    if count is None:
        sizes = f"{picture / 1e3:,.0f} kB and {text / 1e3:,.0f} kB a pair"
        yield Amount(f"latents and text of {subset}", None, f"{sizes}; how many is known after curation")
        return
    yield Amount(f"latents of {subset}", count * picture, f"{count:,} pairs, float32")
    if work.ahead(subset):
        size = f"{count * text / 1e9:,.0f} GB"
        yield Amount(f"text of {subset}", 0, f"{size} are over {work.config.text_cache_limit}: encoded ahead instead")
    else:
        yield Amount(f"text of {subset}", count * text, f"{text / 1e6:.2f} MB a caption, if all differ")


def _images(work: Work, jobs: int) -> Amount:
    if work.suite is None:
        return Amount("images", None, "the suite cannot be read here")
    side = work.suite.sampler.resolution
    untrained, of_a_job = 1 + len(work.config.context), len(work.config.fractions)
    images = untrained * work.suite.images() + jobs * work.suite.images(of_a_job)
    size = round(images * side * side * 3 * PNG)
    return Amount("images", size, f"{images:,} of {untrained + jobs * of_a_job} evaluations at {side} px")
