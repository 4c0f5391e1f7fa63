"""Pairs that no method trains on: fresh ones of the same kind, or the part of a subset that was cut off."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.corpus import Corpus, Manifest, Subset
from bench.errors import BenchError
from bench.machine.crew import ALONE, Crew
from bench.metric import Metric
from data_curation.curate import cut, part
from data_curation.opening import open_corpus


def hold_out(
    corpus: Corpus,
    manifest: Manifest,
    subset: Subset,
    metric: Metric | None,
    cache: Path,
    *,
    count: int,
    at_most: int,
    crew: Crew = ALONE,
) -> tuple[Corpus, Manifest]:
    """Held-out pairs of a subset, all of one size: the commonest. Every process of several calls it.

    Args:
        manifest: the subset as methods train on it. Fresh pairs are those of at least its threshold.
        metric: what plays the subset's role; None for a subset without one.
        count: how many are asked for.
        at_most: how many of them are used.
        crew: who shares the work, as in ``curate.cut``.

    Returns:
        The corpus that they lie in, and which they are.

    Raises:
        BenchError: the manifest has no such part, or there are fewer.
    """
    if corpus.holdout:
        source = open_corpus(corpus.holdout, cache, corpus.size(0)[0])
        pairs = cut(source, subset, metric, cache, threshold=manifest.threshold, crew=crew)
        trained = set(manifest.keys)
        chosen = [position for position, key in enumerate(pairs.keys) if key not in trained]
    elif manifest.held_out is None:
        raise BenchError(f"{manifest.path} names no held-out pairs; cut it again with --holdout")
    else:
        source, pairs = corpus, manifest.held_out
        chosen = [*range(pairs.count)]
    if len(chosen) < count:
        raise BenchError(
            f"{source.name} has {len(chosen)} held-out pairs of {subset.name}, and {count} are asked for; give a "
            "smaller --holdout"
        )
    ((size, _),) = Counter(pairs.sizes[position] for position in chosen).most_common(1)
    alike = [position for position in chosen if pairs.sizes[position] == size]
    return source, part(pairs, alike[: min(count, at_most)])
