"""What the numbers of a page were measured under: two numbers compare only where these lines are the same."""

from __future__ import annotations

from collections.abc import Iterator

from bench import records
from bench.records.schema import MetricRecord
from bench.report.study import Study
from bench.report.text import Grid, count, listed, percent
from bench.sampling.levels import DIFFUSERS

MOST_SIZES = 3
"""Sizes of given images that are named; more are counted."""


def grid(study: Study) -> Grid:
    """Suite, metrics with their versions, sampler and the rule of the noise."""
    return Grid(["What", "Value"], [[name, value] for name, value in _lines(study)])


def scales(study: Study) -> str:
    """Guidance scales that were swept, beside the suite's own where other rows have that; empty without a sweep."""
    swept = listed([f"{scale:g}" for scale in sorted({job.guidance_scale for job in study.swept})])
    own = f"{study.experiment.suite.sampler.guidance_scale:g}"
    return swept and (f"{own}, in the sweep {swept}" if study.tabled else swept)


def sampling(study: Study, sampler: str) -> str:
    """``sampler``, the suite's in words, and which rows it does not hold for, since their images were given."""
    rows = study.rows_sampled_elsewhere
    if not rows:
        return sampler
    sizes = sorted({size for job in rows for size in job.made.get("sizes") or ()})
    sizes_text = f"{len(sizes)} sizes" if len(sizes) > MOST_SIZES else f"{listed(sizes)} px"
    sizes_text = f"images as given, {sizes_text}" if sizes else "images as given"
    return f"{sampler}; {listed([job.label for job in rows])}: {sizes_text}" if study.draws else sizes_text


def _lines(study: Study) -> Iterator[tuple[str, str]]:
    experiment, suite = study.experiment, study.experiment.suite
    yield "Suite", f"{suite.name} v{suite.version}"
    if experiment.backbone:
        yield "Backbone", f"{experiment.backbone} {experiment.backbone_hash}".strip()
    guidance = scales(study) or f"{suite.sampler.guidance_scale:g}"
    sampler = f"{suite.sampler.steps} steps, CFG {guidance}, {suite.sampler.resolution} px"
    if suite.sampler.levels != DIFFUSERS:
        sampler += f", levels {suite.sampler.levels}"
    yield "Sampler", sampling(study, sampler)
    if experiment.average_half_life:
        half_life = percent(experiment.average_half_life)
        yield "Weights", f"of every job, an average with a half-life of {half_life} of the budget"
    if study.tokens:
        yield "T5 tokens", str(study.tokens[0]) if len(study.tokens) == 1 else "differs by row"
    if study.draws:
        seed = "the suite's seed" if suite.seed is None else f"the suite's seed {suite.seed}"
        rows = "every row drawn here" if study.rows_sampled_elsewhere else "every row"
        yield (
            "Noise",
            f"derived from {seed}, prompt set, prompt and repeat: the same for {rows}, another for every image",
        )
    for metric in suite.metrics:
        yield metric.label, _about(metric)


def _about(metric: MetricRecord) -> str:
    """Name, version, images and files of a metric."""
    text = f"{metric.name} v{metric.version}, {count(metric.images)} images of {metric.prompt_set}"
    if metric.weights is None:
        return text
    weights = metric.weights if isinstance(metric.weights, str) else records.dumps(metric.weights)
    return f"{text}, weights {weights}"
