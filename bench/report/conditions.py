"""What the numbers of a page were measured under: two numbers compare only where these lines are the same."""

from __future__ import annotations

from collections.abc import Iterator

from bench import records
from bench.report.read import Metric, Study
from bench.report.text import Grid, count


def grid(study: Study) -> Grid:
    """Suite, metrics with their versions, sampler and the rule of the noise."""
    return Grid(["What", "Value"], [[name, value] for name, value in _lines(study)])


def _lines(study: Study) -> Iterator[tuple[str, str]]:
    experiment, suite = study.experiment, study.experiment.suite
    yield "Suite", f"{suite.name} v{suite.version}"
    if experiment.backbone:
        yield "Backbone", f"{experiment.backbone} {experiment.backbone_hash}".strip()
    yield "Sampler", f"{suite.sampler.steps} steps, CFG {suite.sampler.guidance_scale:g}, {suite.sampler.resolution} px"
    if experiment.max_sequence_length:
        yield "T5 tokens", str(experiment.max_sequence_length)
    seed = "the suite's seed" if suite.seed is None else f"the suite's seed {suite.seed}"
    yield (
        "Noise",
        f"derived from {seed}, prompt set, prompt and repeat: the same for every row, another for every image",
    )
    for metric in suite.metrics:
        yield metric.label, _about(metric)


def _about(metric: Metric) -> str:
    """Name, version, images and files of a metric."""
    text = f"{metric.name} v{metric.version}, {count(metric.images)} images of {metric.prompt_set}"
    if metric.weights is None:
        return text
    weights = metric.weights if isinstance(metric.weights, str) else records.dumps(metric.weights)
    return f"{text}, weights {weights}"
