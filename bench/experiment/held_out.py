"""Which pairs an experiment keeps from training, and the probes that are read on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone
    from bench.corpus import Corpus, Manifest
    from bench.machine.engine import Engine
    from bench.machine.progress import Progress
    from bench.metric import Metric
    from bench.probes.reader import ProbeReader
    from bench.suite import Suite


def cut_off(config: ExperimentConfig, corpus: Corpus) -> int:
    """How many pairs of each subset are kept from training; 0 where the corpus has fresh ones."""
    return 0 if corpus.holdout else config.holdout or 0


def probe_reader(
    config: ExperimentConfig,
    corpus: Corpus,
    manifest: Manifest,
    metric: Metric | None,
    cache: Path,
    suite: Suite,
    backbone: Backbone,
    engine: Engine,
    progress: Progress,
) -> ProbeReader | None:
    """What reads the probes of a subset's rows; None without held-out pairs. Where there are too few, it says so.

    Every process must call it.

    Args:
        manifest: the subset as methods train on it.
        metric: what plays the subset's role; None for a subset without one.
        suite: whose sampler the probes follow, and whose images say what they may cost.
    """
    from bench.encoded.subset import training_data
    from bench.probes.reader import PAIRS, EncodedPairs, ProbeReader, affordable, routine_probing

    count = config.holdout if config.holdout is not None else PAIRS if corpus.holdout else 0
    if not count or not config.probes:
        return None
    say = progress.say if engine.is_main else lambda line: None
    probing = routine_probing(suite, float(backbone.scheduler().config.shift), say)
    subset = registry.load("subsets", manifest.subset)
    together: dict[str, Any] = {"rank": engine.rank, "world_size": engine.world_size, "barrier": engine.barrier}
    try:
        with progress.task(f"hold out {manifest.subset}", 1):
            source, part = registry.load("curation", "hold_out")(
                corpus, manifest, subset, metric, cache,
                count=count, at_most=affordable(suite, probing), **together,
            )  # fmt: skip
            if not part.count:
                raise BenchError("an evaluation is too short for any; a quarter of its forwards is what they may cost")
            data = training_data(backbone, source, part, cache, text_limit=math.inf, **together)
    except BenchError as error:
        if engine.world_size > 1:  # the others may be inside a collective and cannot know
            raise
        say(f"{manifest.subset}: no measures of exposure bias: {error}")
        return None
    held_out = EncodedPairs(data, part.content_hash, suite.seed, engine)
    say(f"{manifest.subset}: measures of exposure bias on {len(held_out)} held-out pairs")
    return ProbeReader(probing, held_out, engine, config.evaluation_batch, say)
