"""The data of an experiment: subsets of its corpus and preference pairs, curated and encoded, or read from caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench import records, registry
from bench.encoded.subset import training_data
from bench.errors import BenchError, stop_if_lost
from bench.experiment.config import SubsetRule
from bench.experiment.held_out import cut_off, probe_reader
from bench.experiment.toml import parse_size
from bench.training.data import Preferences, TrainingData

if TYPE_CHECKING:
    from pathlib import Path

    from bench.corpus import Corpus, Manifest, Subset
    from bench.experiment.workbench import Workbench
    from bench.probes.reader import ProbeReader


@dataclass(frozen=True)
class SubsetData:
    """A subset of the corpus: which pairs, and their latents and conditions.

    Attributes:
        probes: what reads measures of exposure bias on its held-out pairs, if it has any.
    """

    manifest: Manifest
    training: TrainingData
    probes: ProbeReader | None = None


@dataclass(frozen=True)
class ExperimentData:
    """What the jobs of an experiment learn from.

    Attributes:
        subsets: by name; each holds the preference pairs too, if there are any.
        lacking: why there are no preference pairs, where a job needs them.
    """

    subsets: Mapping[str, SubsetData]
    preferences: Preferences | None = None
    lacking: str | None = None

    def close(self) -> None:
        """Free the text encoders that preferences hold, where captions are encoded ahead."""
        if self.preferences:
            self.preferences.pictures.close()


def prepare(workbench: Workbench, *, preference_pairs: bool) -> ExperimentData:
    """Curate and encode what the experiment names, or read it from the caches. Every process calls it.

    Args:
        preference_pairs: whether any job needs them.
    """
    subsets = _prepare_subsets(workbench)
    if not preference_pairs:
        return ExperimentData(subsets)
    preferences = prepare_preferences(workbench)
    if isinstance(preferences, str):
        return ExperimentData(subsets, lacking=preferences)
    with_pairs = {
        name: replace(each, training=replace(each.training, preferences=preferences)) for name, each in subsets.items()
    }
    return ExperimentData(with_pairs, preferences)


def _prepare_subsets(workbench: Workbench) -> dict[str, SubsetData]:
    config, backbone = workbench.config, workbench.backbone
    corpus = workbench.engine.main_first(
        lambda: open_corpus(config.corpus, workbench.cache, backbone.spec.resolution, config.aspect_buckets)
    )
    subsets = {}
    for name in config.subsets:
        rule = config.subset.get(name, SubsetRule())
        manifest = cut_subset(workbench, corpus, name, rule, holdout=cut_off(config, corpus))
        backbone.check_sides(side for size in manifest.sizes for side in size)  # buckets are wider than the resolution
        training = _encoded(workbench, corpus, manifest, name)
        workbench.progress.say(
            f"{name}: {manifest.count} of {manifest.of} pairs"
            + (f", {manifest.metric} of at least {manifest.threshold:.3f}" if manifest.threshold is not None else "")
        )
        subsets[name] = SubsetData(manifest, training, probe_reader(workbench, corpus, manifest, workbench.suite))
    return subsets


def prepare_preferences(workbench: Workbench) -> Preferences | str:
    """Preference data, or what is wrong with it: that ends the jobs that need it, and no other."""
    config, engine, cache = workbench.config, workbench.engine, workbench.cache
    side, say = workbench.backbone.spec.resolution, workbench.progress.say
    name = config.preferences
    try:
        if not name:
            name = engine.main_first(lambda: open_corpus(config.corpus, cache, side, config.aspect_buckets)).preferences
        if not name:  # which every process finds alike
            return f"no preference pairs go with the corpus {config.corpus}; give some with --preferences"
        corpus = engine.main_first(lambda: open_corpus(name, cache, side))
        manifest = cut_subset(workbench, corpus, "all")
        try:
            pairs = registry.load("curation", "pair_up")(corpus, manifest, say)
        except BenchError as error:  # of what every process has read alike
            return str(error)
        pictures = _encoded(workbench, corpus, manifest, name)
    except BenchError as error:
        stop_if_lost(error)
        if engine.world_size > 1:  # the others may be inside a collective and cannot know
            raise
        return str(error)
    say(f"{name}: {len(pairs)} preference pairs")
    preferred = records.digest(sorted([manifest.keys[picture] for picture in pair] for pair in pairs.tolist()))
    about = {"corpus": name, "pairs": len(pairs), "hash": manifest.content_hash, "preferred_hash": preferred}
    encoded = [metric for role in corpus.encodes if (metric := workbench.suite.roles.get(role))]
    return Preferences(pictures, pairs, about | ({"encodes": encoded} if encoded else {}))


def _encoded(workbench: Workbench, corpus: Corpus, manifest: Manifest, name: str) -> TrainingData:
    """Latents and text of a manifest's pairs, encoded now or read from the cache."""
    limit = parse_size(workbench.config.text_cache_limit)
    with workbench.crew(f"encode {name}", manifest.count) as crew:
        return training_data(workbench.backbone, corpus, manifest, workbench.cache, text_limit=limit, crew=crew)


def open_corpus(name: str, cache: Path, resolution: int, aspect_buckets: bool = False) -> Corpus:
    """A corpus by registered name or by path. Opening lists it and decodes no picture."""
    corpus: Corpus = registry.load("curation", "open")(name, cache, resolution, aspect_buckets)
    return corpus


def cut_subset(
    workbench: Workbench, corpus: Corpus, name: str, rule: SubsetRule | None = None, *, holdout: int = 0
) -> Manifest:
    """A subset's manifest, curated now if it is missing, by all processes together.

    Args:
        rule: the experiment's own threshold or quantile.
        holdout: how many of its pairs are kept from training.
    """
    subset: Subset = registry.load("subsets", name)
    metric = workbench.metric_of(subset)
    changed = rule.model_dump(exclude={"pairs"}) if rule else {}
    with workbench.crew(f"curate {name}", len(corpus)) as crew:
        cut = registry.load("curation", "cut")
        manifest: Manifest = cut(corpus, subset, metric, workbench.cache, holdout=holdout, crew=crew, **changed)
        return manifest
