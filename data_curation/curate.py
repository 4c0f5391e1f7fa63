"""Scores a corpus once and cuts subsets from the scores."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from bench import records
from bench.corpus import Corpus, Manifest, Subset
from bench.errors import BenchError
from bench.metric import Metric
from bench.suite import Prompt

CHUNK = 512
"""Pairs scored and written at once; a killed run loses at most one chunk."""


def score_corpus(
    corpus: Corpus, metric: Metric, cache: Path, tick: Callable[[int], None] = lambda pairs: None
) -> pd.DataFrame:
    """Score every pair, once ever per corpus, metric and metric version.

    Scores lie in ``cache/scores/<corpus>/<metric>-v<version>/part-*.parquet`` with columns index, key, score (NaN where
    the metric failed) and error. A run that was cut short goes on at the first missing part.

    Args:
        tick: called with the number of pairs just finished.
    """
    if metric.needs_facts:
        raise BenchError(f"{metric.name} checks facts that captions do not hold; curate with clipscore or aesthetic")
    folder = cache / "scores" / corpus.fingerprint[:16] / f"{metric.name}-v{metric.version}"
    parts = []
    for start in range(0, len(corpus), CHUNK):
        stop = min(start + CHUNK, len(corpus))
        path = folder / f"part-{start:09d}.parquet"
        if not path.exists():
            frame = _score_chunk(corpus, metric, range(start, stop))
            records.write_bytes(path, frame.to_parquet(index=False))
        parts.append(_read_part(path, stop - start))
        tick(stop - start)
    return pd.concat(parts, ignore_index=True)


def _score_chunk(corpus: Corpus, metric: Metric, indices: range) -> pd.DataFrame:
    from bench.evaluation import score_each

    images = [corpus.image(i) for i in indices]
    prompts = [Prompt(str(i), corpus.caption(i)) for i in indices]
    cells = score_each(metric, images, prompts)
    return pd.DataFrame(
        {
            "index": np.array(indices, np.int64),
            "key": [corpus.key(i) for i in indices],
            "score": np.array([cell.get("score", np.nan) for cell in cells], np.float64),
            "error": [cell.get("error") for cell in cells],
        }
    ).astype({"key": "string", "error": "string"})


def _read_part(path: Path, rows: int) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except Exception as error:
        raise BenchError(f"{path} is damaged; delete it and the chunk is scored again") from error
    if len(frame) != rows:
        raise BenchError(f"{path} has {len(frame)} rows instead of {rows}; delete it and the chunk is scored again")
    return frame


def cut(
    corpus: Corpus,
    subset: Subset,
    metric: Metric | None,
    cache: Path,
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    tick: Callable[[int], None] = lambda pairs: None,
) -> Manifest:
    """Make (or read back) a subset of a corpus and write its manifest.

    Args:
        metric: what plays the subset's role; None for a subset without a rule.
        threshold: least score kept, instead of the subset's own.
        quantile: share of the corpus to keep, best first, instead of a threshold.

    Returns:
        The manifest, which holds the threshold that was used, the count and a hash over the pairs' contents.
    """
    if quantile is None and threshold is None:
        quantile = corpus.quantiles.get(subset.name)
    used = subset.threshold if threshold is None else threshold
    name = subset.name
    if metric is not None:
        if quantile is None and used is None:
            raise BenchError(
                f"the subset {subset.name} has no threshold for {corpus.name}; give --threshold or --quantile"
            )
        rule = f"t{used:g}" if quantile is None else f"q{quantile:g}"
        name = f"{subset.name}-{rule}-{metric.name}-v{metric.version}"
    path = cache / "subsets" / corpus.fingerprint[:16] / name / "manifest.json"
    if path.exists():
        return read_manifest(path, corpus)
    if metric is None:
        members = pd.DataFrame({"index": range(len(corpus)), "key": [corpus.key(i) for i in range(len(corpus))]})
        tick(len(corpus))
    else:
        scores = score_corpus(corpus, metric, cache, tick)
        if quantile is not None:
            used = float(scores["score"].quantile(1 - quantile, interpolation="higher"))
        members = scores[scores["score"] >= used][["index", "key", "score"]]
    if members.empty:
        best = f"; the best score is {scores['score'].max():.3f}" if metric is not None else ""
        raise BenchError(
            f"no pair of {corpus.name} is in {subset.name} (score of at least {used}){best}; lower --threshold"
        )
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
            "threshold": used,
            "quantile": quantile,
            "count": len(members),
            "of": len(corpus),
            "left_out": len(corpus.problems()),
            "content_hash": _content_hash(members["key"]),
            "members_hash": hashlib.sha256(table).hexdigest(),
        },
    )
    return read_manifest(path, corpus)


def _content_hash(keys: pd.Series) -> str:
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


_HEAD = tuple(field.name for field in fields(Manifest) if field.name not in ("indices", "path"))


def read_manifest(path: Path, corpus: Corpus) -> Manifest:
    """Read a manifest and check it against its members and the corpus. A damaged one ends in one line."""
    head = records.read_json(path)
    again = f"delete {path.parent} and run `bench curate` again"
    try:
        table = (path.parent / "members.parquet").read_bytes()
        if hashlib.sha256(table).hexdigest() != head["members_hash"]:
            raise BenchError(f"the manifest {path} does not match its members; {again}")
        members = pd.read_parquet(io.BytesIO(table))
        manifest = Manifest(
            **{name: head[name] for name in _HEAD},
            indices=tuple(int(i) for i in members["index"]),
            path=path,
        )
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise BenchError(f"the manifest {path} is damaged ({type(error).__name__}: {error}); {again}") from error
    if len(members) != manifest.count or _content_hash(members["key"]) != manifest.content_hash:
        raise BenchError(f"the manifest {path} does not match its members; {again}")
    if manifest.corpus_fingerprint != corpus.fingerprint:
        raise BenchError(f"the manifest {path} was cut from another corpus; {again}")
    return manifest
