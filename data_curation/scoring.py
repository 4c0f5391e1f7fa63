"""Scores a corpus once per metric, in parts, reading each picture once for its hash and its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.corpus import Corpus
from bench.errors import BenchError
from bench.machine.crew import ALONE, Crew
from bench.metric import Metric
from bench.suite import Prompt
from data_curation import scan
from data_curation.parts import Parts

SCHEMA = pa.schema({"index": pa.int64(), "score": pa.float64(), "error": pa.string()})


def score_corpus(corpus: Corpus, metric: Metric, cache: Path, crew: Crew = ALONE) -> pd.DataFrame:
    """Score every pair, once ever per corpus, metric and metric version.

    Args:
        crew: who shares the work; the parts are dealt out in turn. Its ``tick`` hears of each part.

    Returns:
        index and score (NaN where the metric failed) of every usable pair, exact duplicates only once.
    """
    score_parts(corpus, metric, cache, crew)
    crew.barrier()
    return scores(corpus, metric, cache)[["index", "score"]]


def score_parts(corpus: Corpus, metric: Metric, cache: Path, crew: Crew = ALONE) -> None:
    """Score this process's parts; what is there is kept.

    Scores lie in ``cache/scores/<corpus>/<metric>-v<version>/part-*.parquet`` with columns index, score (NaN where
    there is none) and error. The same reading fills the parts of the scan that are missing.
    """
    parts, scanned = metric_parts(corpus, metric, cache), scan.scan_parts(corpus, cache)
    for start in parts.starts(crew.rank, crew.world_size):
        indices = parts.indices(start)
        if not (parts.path(start).exists() and scanned.path(start).exists()):
            rows, facts = [], []
            for group in scan.read(corpus, indices):
                rows += score_group(corpus, metric, group)
                facts += [scan.scan_row(pair) for pair in group]
            scanned.write(start, pa.Table.from_pylist(facts, scan.SCHEMA))
            parts.write(start, pa.Table.from_pylist(rows, SCHEMA))
        crew.tick(len(indices))


def scores(corpus: Corpus, metric: Metric, cache: Path) -> pd.DataFrame:
    """index, key, width, height and score of every usable pair, each content once, from parts that are all there.

    Raises:
        BenchError: a part is missing, no pair is usable, or the metric could score none of them.
    """
    frame, _ = scan.usable(corpus, cache)
    parts = metric_parts(corpus, metric, cache)
    frame["score"] = parts.read(["score"]).column("score").to_numpy()[frame["index"]]
    if frame["score"].isna().all():
        reason = errors(corpus, metric, cache, frame["index"]).iloc[0]
        raise BenchError(
            f"{metric.name} can score no pair of {corpus.name}: {reason}; once that is mended, delete {parts.folder} "
            "and score again"
        )
    return frame


def errors(corpus: Corpus, metric: Metric, cache: Path, indices: pd.Series) -> pd.Series:
    """Why the metric failed, of those of some pairs that have no score."""
    found: pd.Series = metric_parts(corpus, metric, cache).read(["error"]).column("error").to_pandas().iloc[indices]
    return found.dropna()


def metric_parts(corpus: Corpus, metric: Metric, cache: Path) -> Parts:
    """Where a corpus's scores by a metric lie. A metric that cannot score pairs ends in one line."""
    check(metric)
    return Parts(cache / "scores" / corpus.fingerprint[:16] / metric.edition(), len(corpus))


def check(metric: Metric) -> None:
    """BenchError for a metric that no pair of a picture and a caption can feed."""
    other = "curate with clipscore or aesthetic"
    if metric.needs_facts:
        raise BenchError(f"{metric.name} checks facts that captions do not hold; {other}")
    if metric.per_prompt:
        raise BenchError(f"{metric.name} compares several pictures of one prompt, and a pair has one; {other}")


def score_group(corpus: Corpus, metric: Metric, group: list[scan.Tried]) -> list[dict[str, Any]]:
    """Rows of scores. Pictures of one shape go to the metric together, since many metrics stack them."""
    from bench.evaluation import score_each

    results: dict[int, dict[str, Any]] = {}
    shapes: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for pair in group:
        if pair.image is None:
            results[pair.index] = {"error": pair.problem}
        else:
            shapes.setdefault(pair.image.shape, []).append((pair.index, pair.image))
    for same in shapes.values():
        prompts = [Prompt(str(index), corpus.caption(index)) for index, _ in same]
        cells = score_each(metric, [image for _, image in same], prompts)
        results |= {index: cell for (index, _), cell in zip(same, cells, strict=True)}
    return [
        {
            "index": pair.index,
            "score": results[pair.index].get("score", np.nan),
            "error": results[pair.index].get("error"),
        }
        for pair in group
    ]
