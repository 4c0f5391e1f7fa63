"""Cuts subsets from a corpus, by scores and by what captions and tags say, and fixes them in manifests."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import records
from bench.corpus import Corpus, Manifest, Subset
from bench.errors import BenchError
from bench.machine.crew import ALONE, Crew
from bench.metric import Metric
from bench.rng import derive_seed
from data_curation import scan, scoring
from data_curation.parts import wait_for


def cut(
    corpus: Corpus,
    subset: Subset,
    metric: Metric | None,
    cache: Path,
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    holdout: int = 0,
    crew: Crew = ALONE,
) -> Manifest:
    """Make (or read back) a subset of a corpus and write its manifest. Every process of several calls it.

    Pairs that cannot be used and exact duplicates (same picture and caption; the first is kept) are never in it. The
    caption's rule and the tags are applied first, so a quantile is a share of the pairs that they leave.

    Args:
        metric: what plays the subset's role; None for a subset without one.
        threshold: least score kept, instead of the subset's own.
        quantile: share of the corpus to keep, instead of a threshold: best first, or drawn for a subset with a share.
        holdout: how many of the subset's pairs are kept from training: those with the least keys, so that neither the
            corpus's order nor a score decides.
        crew: who shares the work. Its ``tick`` hears of the pairs that this process has scored or scanned. Its
            ``barrier`` is called three times, whatever is there already.

    Returns:
        The manifest, which holds the threshold that was used, the count and a hash over the pairs' contents.
    """
    subset.check(threshold, quantile)
    if quantile is None and (threshold is None or metric is None):
        quantile = corpus.quantiles.get(subset.name, subset.share)
    used = subset.threshold if threshold is None else threshold
    if metric is not None and quantile is None and used is None:
        raise BenchError(f"the subset {subset.name} has no threshold for {corpus.name}; give --threshold or --quantile")
    rule = _Rule(subset, metric, used, quantile, holdout)
    path = cache / "cuts" / corpus.fingerprint[:16] / rule.name / "manifest.json"
    done = path.exists()
    crew.barrier()  # process 0 writes only after all have looked, so all take the same way
    if not done and metric is not None:
        scoring.score_parts(corpus, metric, cache, crew)
    elif not done:
        scan.scan(corpus, cache, crew)
    crew.barrier()
    try:
        if crew.is_main and not done:
            _write(path, corpus, rule, cache)
    finally:
        crew.barrier()  # the others wait here even where nothing could be cut
    if not crew.is_main and not wait_for(path):
        raise BenchError(f"process 0 cut no {subset.name} from {corpus.name}; its own message says why")
    return read_manifest(path, corpus)


@dataclass(frozen=True)
class _Rule:
    """Which pairs of a corpus are in a cut.

    Attributes:
        metric: what scores the pairs; None for a subset that asks for no score.
        threshold: least score kept; unused with a quantile.
        quantile: share kept, by score or drawn.
        holdout: how many of the pairs are kept from training.
    """

    subset: Subset
    metric: Metric | None
    threshold: float | None
    quantile: float | None
    holdout: int

    @property
    def drawn(self) -> float | None:
        """Share of the pairs that a hash draws; None where none does."""
        return None if self.subset.share is None else self.quantile

    @property
    def name(self) -> str:
        """Name of the folder of a cut: everything that decides which pairs are in it."""
        subset, metric = self.subset, self.metric
        parts = [subset.name]
        if metric is not None:
            share = f"t{_exactly(self.threshold)}" if self.quantile is None else f"q{_exactly(self.quantile)}"
            parts += [share, metric.edition()]
        elif self.drawn is not None:
            parts.append(f"q{_exactly(self.drawn)}")
        if subset.caption is not None or subset.tags:
            parts.append("f" + records.digest({"caption": subset.caption, "tags": dict(subset.tags)})[:8])
        if self.holdout:
            parts.append(f"h{self.holdout}")
        return "-".join(parts)


def _exactly(value: float | None) -> str:
    """A number with all its digits: two rules never share a cut."""
    return repr(value).removesuffix(".0")


def _write(path: Path, corpus: Corpus, rule: _Rule, cache: Path) -> None:
    subset, metric, threshold, holdout = rule.subset, rule.metric, rule.threshold, rule.holdout
    usable, counts = scan.usable(corpus, cache)
    pairs = usable if metric is None else scoring.scores(corpus, metric, cache)
    pairs = pairs[_matches(corpus, subset, pairs["index"])]
    if pairs.empty:
        raise BenchError(
            f"no pair of {corpus.name} is in {subset.name}: "
            f"no caption and tags of its {counts.kept} usable pairs are as the subset asks"
        )
    members, best = pairs, ""
    if metric is not None:
        if rule.quantile is not None:
            threshold = float(pairs["score"].quantile(1 - rule.quantile, interpolation="higher"))
        members = pairs[pairs["score"] >= threshold]
        best = f"; the best score is {pairs['score'].max():.3f}"
    elif rule.drawn is not None:
        lot = pairs["key"].map(lambda key: derive_seed("subset", subset.name, key))
        members = pairs[lot >= lot.quantile(1 - rule.drawn, interpolation="higher")]
    if members.empty:
        raise BenchError(
            f"no pair of {corpus.name} is in {subset.name} (score of at least {threshold}){best}; lower --threshold"
        )
    if holdout >= len(members):
        raise BenchError(
            f"{subset.name} has {len(members)} pairs of {corpus.name}, and {holdout} of them are to be held out; give "
            "a smaller --holdout"
        )
    trained, apart = members, {}
    if holdout:
        held_out = members["key"].isin(members["key"].sort_values()[:holdout])
        trained, least = members[~held_out], members["key"][held_out]
        apart = {"holdout": {"count": holdout, "content_hash": _content_hash(least)}}
        members = members.assign(held_out=held_out)
    table = members.to_parquet(index=False)
    records.write_bytes(path.parent / "members.parquet", table)
    records.write_json(
        path,
        {
            "v": records.VERSION,
            "subset": subset.name,
            "corpus": corpus.name,
            "corpus_fingerprint": corpus.fingerprint,
            "metric": metric.name if metric else None,
            "metric_version": metric.version if metric else None,
            "threshold": threshold if metric else None,
            "quantile": rule.quantile if metric else rule.drawn,
            "caption": subset.caption,
            "tags": dict(subset.tags),
            "count": len(trained),
            "of": counts.listed,
            "left_out": counts.left_out,
            "duplicates": counts.duplicates,
            "unscored": int(pairs["score"].isna().sum()) if metric else 0,
            "content_hash": _content_hash(trained["key"]),
            "members_hash": hashlib.sha256(table).hexdigest(),
            **apart,
        },
    )


def _matches(corpus: Corpus, subset: Subset, indices: pd.Series) -> np.ndarray:
    """Which pairs have a caption and tags as the subset asks for."""
    if subset.caption is None and not subset.tags:
        return np.ones(len(indices), bool)
    caption = re.compile(subset.caption or "")

    def matches(index: int) -> bool:
        if not caption.search(corpus.caption(index)):
            return False
        return not subset.tags or subset.tags.items() <= corpus.tags(index).items()

    return np.fromiter((matches(int(index)) for index in indices), bool, len(indices))


def _content_hash(keys: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


_HEAD = tuple(
    field.name for field in fields(Manifest) if field.name not in ("indices", "keys", "sizes", "path", "held_out")
)


def read_manifest(path: Path, corpus: Corpus) -> Manifest:
    """Read a manifest and check it against its members and the corpus. A damaged one ends in one line."""
    head = records.read_json(path)
    again = f"delete {path.parent} and run `bench curate` again"
    try:
        table = (path.parent / "members.parquet").read_bytes()
        if hashlib.sha256(table).hexdigest() != head["members_hash"]:
            raise BenchError(f"the manifest {path} does not match its members; {again}")
        members = pd.read_parquet(io.BytesIO(table))
        apart = members.get("held_out", pd.Series(False, members.index))  # manifests of earlier releases have none
        manifest = _of(path, head, members[~apart])
        if holdout := head.get("holdout"):
            manifest = replace(manifest, held_out=_of(path, head | holdout, members[apart].sort_values("key")))
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise BenchError(f"the manifest {path} is damaged ({type(error).__name__}: {error}); {again}") from error
    for part in (manifest, manifest.held_out):
        if part and (len(part.keys) != part.count or _content_hash(part.keys) != part.content_hash):
            raise BenchError(f"the manifest {path} does not match its members; {again}")
    if manifest.corpus_fingerprint != corpus.fingerprint:
        raise BenchError(f"the manifest {path} was cut from another corpus; {again}")
    return manifest


def _of(path: Path, head: Mapping[str, Any], members: pd.DataFrame) -> Manifest:
    return Manifest(
        **{name: head[name] for name in _HEAD},
        indices=tuple(members["index"].tolist()),
        keys=tuple(members["key"].tolist()),
        sizes=tuple(zip(members["width"].tolist(), members["height"].tolist(), strict=True)),
        path=path,
    )


def part(manifest: Manifest, positions: Sequence[int]) -> Manifest:
    """Some pairs of a manifest, in the order of ``positions``."""
    keys = tuple(manifest.keys[position] for position in positions)
    return replace(
        manifest,
        count=len(keys),
        content_hash=_content_hash(keys),
        indices=tuple(manifest.indices[position] for position in positions),
        keys=keys,
        sizes=tuple(manifest.sizes[position] for position in positions),
        held_out=None,
    )
