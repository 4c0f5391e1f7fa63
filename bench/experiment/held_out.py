"""Which pairs an experiment keeps from training, and the probes that are read on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench import registry
from bench.encoded.subset import training_data
from bench.errors import BenchError, stop_if_lost
from bench.machine.crew import Crew
from bench.probes.reader import PAIRS, EncodedPairs, ProbeReader, affordable, routine_probing

if TYPE_CHECKING:
    from bench.corpus import Corpus, Manifest
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.workbench import Workbench
    from bench.suite import Suite


def cut_off(config: ExperimentConfig, corpus: Corpus) -> int:
    """How many pairs of each subset are kept from training; 0 where the corpus has fresh ones."""
    return 0 if corpus.holdout else config.holdout or 0


def pairs_to_probe(config: ExperimentConfig, fresh: bool) -> int:
    """Held-out pairs that probes are to be read on; 0: none, or no probes.

    Args:
        fresh: whether the corpus has pairs that no subset holds.
    """
    if not config.probes:
        return 0
    return config.holdout if config.holdout is not None else PAIRS if fresh else 0


def probe_reader(
    workbench: Workbench, corpus: Corpus, manifest: Manifest, suite: Suite, *, bounded: bool = True
) -> ProbeReader | None:
    """What reads the probes of a subset's rows; None without held-out pairs. Where there are too few, it says so.

    Every process must call it.

    Args:
        manifest: the subset as methods train on it.
        suite: whose sampler the probes follow, and whose images say what they may cost.
        bounded: read as many pairs as an evaluation may pay for; False: all that are asked for.
    """
    config, engine, backbone = workbench.config, workbench.engine, workbench.backbone
    count = pairs_to_probe(config, bool(corpus.holdout))
    if not count:
        return None
    say = workbench.progress.say if engine.is_main else lambda line: None
    probing = routine_probing(suite, float(backbone.scheduler().config.shift), say)
    subset = registry.load("subsets", manifest.subset)
    metric = workbench.metric_of(subset)
    crew = Crew(engine.rank, engine.world_size, engine.barrier)

    def encoded(source: Corpus, part: Manifest) -> EncodedPairs:
        data = training_data(backbone, source, part, workbench.cache, text_limit=math.inf, crew=crew)
        return EncodedPairs(data, part.content_hash, suite.seed, engine)

    try:
        with workbench.progress.task(f"hold out {manifest.subset}", 1):
            source, part = registry.load("curation", "hold_out")(
                corpus, manifest, subset, metric, workbench.cache,
                count=count, at_most=affordable(suite, probing, len(config.fractions)) if bounded else count, crew=crew,
            )  # fmt: skip
            if not part.count:
                raise BenchError("an evaluation is too short for them: they may cost at most a quarter of its forwards")
            held_out = encoded(source, part)
            known = registry.load("curation", "alike")(manifest, part)
            training = encoded(corpus, known) if known.count == part.count else None
    except BenchError as error:
        stop_if_lost(error)
        if engine.world_size > 1:  # the others may be inside a collective and cannot know
            raise
        say(f"{manifest.subset}: no measures of exposure bias: {error}")
        return None
    say(f"{manifest.subset}: measures of exposure bias on {len(held_out)} held-out pairs")
    if training is None:
        say(f"{manifest.subset}: no loss on training pairs: {known.count} of them have the size of the held-out pairs")
    return ProbeReader(probing, held_out, training, engine, config.evaluation_batch, say)
