"""What ``bench curate`` does: says what it will cost, scores or scans, cuts, and shows how scores lie."""

from __future__ import annotations

from pathlib import Path

import click

from bench import registry
from bench.corpus import Corpus, Subset
from bench.errors import BenchError
from bench.machine.crew import Crew
from bench.machine.progress import Progress
from bench.metric import Metric
from bench.suite import Suite
from data_curation import cost, curate, scan, scoring, summary
from data_curation.opening import open_corpus

SHOWN = 5
"""Pairs left out that are printed with their reasons; all of them are in a file."""


def run(
    name: str,
    subsets: tuple[str, ...],
    suite: str,
    cache: Path,
    *,
    threshold: float | None,
    quantile: float | None,
    holdout: int,
    metric: str | None,
    resolution: int,
    aspect_buckets: bool,
    shard: tuple[int, int] | None,
) -> None:
    """Cut ``subsets`` from the corpus ``name``, or only score it with ``metric``.

    Args:
        holdout: pairs of each subset to keep from training; fresh ones are taken where the corpus has them.
        shard: (rank, world_size): do just this share of the parts, and cut nothing.
    """
    progress = Progress()
    judge: Suite = registry.load("suites", suite)()
    if metric is not None:
        if threshold is not None or quantile is not None or holdout:
            raise BenchError("--metric scores and cuts nothing; leave --threshold, --quantile and --holdout out")
        wanted: list[tuple[Subset | None, str | None]] = [(None, metric)]
    else:
        loaded: list[Subset] = [registry.load("subsets", subset) for subset in subsets]
        for rule in loaded:
            rule.check(threshold, quantile)
        wanted = [(subset, _metric_of(subset, judge)) for subset in loaded]
    metrics: dict[str | None, Metric] = {
        used: registry.load("metrics", used)() for used in {used for _, used in wanted} if used is not None
    }
    for scorer in metrics.values():
        scoring.check(scorer)
        scorer.prepare()
    corpus = open_corpus(name, cache, resolution, aspect_buckets)
    for subset, used in wanted:
        judging = metrics.get(used)
        _work(corpus, judging, cache, progress, shard)
        if shard is not None:
            continue
        if subset is not None:
            cut_off = 0 if corpus.holdout else holdout
            manifest = curate.cut(
                corpus, subset, judging, cache, threshold=threshold, quantile=quantile, holdout=cut_off
            )
            least = "no score" if manifest.threshold is None else f"{used} of at least {manifest.threshold:.4f}"
            apart = f" and {manifest.held_out.count} held out" if manifest.held_out else ""
            click.echo(f"{subset.name}: {manifest.count} of {manifest.of} pairs{apart}, {least}, {manifest.path}")
        if judging is not None:
            cuts = {} if subset is None or manifest.threshold is None else {"this cut": manifest.threshold}
            _show_scores(corpus, judging, cache, _published(judge, used) | cuts, every_share=subset is None)
    if shard is None:
        _show_left_out(corpus, cache, progress)


def _metric_of(subset: Subset, suite: Suite) -> str | None:
    return None if subset.role is None else suite.metric_of(subset.role)


def _work(
    corpus: Corpus, metric: Metric | None, cache: Path, progress: Progress, shard: tuple[int, int] | None
) -> None:
    """Score (or just scan) what is missing, after saying what that costs."""
    rank, world_size = shard or (0, 1)
    if expected := cost.estimate(corpus, metric, cache, rank=rank, world_size=world_size):
        progress.say(str(expected))
    parts = scan.scan_parts(corpus, cache) if metric is None else scoring.metric_parts(corpus, metric, cache)
    mine = parts.starts(rank, world_size)
    what = f"score with {metric.name}" if metric else "scan"
    with progress.task(what, max(1, sum(len(parts.indices(start)) for start in mine))) as task:
        crew = Crew(rank, world_size, tick=task.advance)
        if metric is None:
            scan.scan(corpus, cache, crew)
        else:
            scoring.score_parts(corpus, metric, cache, crew)
    if shard is not None:
        click.echo(
            f"{what}, shard {rank + 1}/{world_size}: its {len(mine)} parts are done; {len(parts.missing())} of all "
            f"{len(parts.starts())} are missing; when none is, the command without --shard cuts the subsets"
        )


def _published(suite: Suite, metric: str | None) -> dict[str, float]:
    """Thresholds of the registered subsets that this metric scores."""
    subsets: list[Subset] = [registry.load("subsets", name) for name in registry.BUILT_IN["subsets"]]
    return {
        f"{subset.name} as published": subset.threshold
        for subset in subsets
        if subset.role and subset.threshold is not None and suite.roles.get(subset.role) == metric
    }


def _show_scores(
    corpus: Corpus, metric: Metric, cache: Path, thresholds: dict[str, float], *, every_share: bool
) -> None:
    pairs = scoring.scores(corpus, metric, cache)
    scores = pairs["score"]
    folder = scoring.metric_parts(corpus, metric, cache).folder
    if every_share:
        for share in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
            click.echo(f"{share:>5.0%} of {scores.count()} pairs score at most {scores.quantile(share):.4f}")
    failed = scoring.errors(corpus, metric, cache, pairs["index"])
    if not failed.empty:
        click.echo(
            f"{len(failed)} of {len(scores)} pairs have no score, e.g. {failed.iloc[0]}; no subset by {metric.name} "
            f"has them; to score them again, delete {folder}"
        )
    click.echo(summary.summarise(scores, folder, metric.label, thresholds))
    click.echo(f"histogram: {folder / 'histogram.png'}")


def _show_left_out(corpus: Corpus, cache: Path, progress: Progress) -> None:
    _, counts = scan.usable(corpus, cache)
    click.echo(f"{corpus.name}: {counts}")
    if not counts.left_out:
        return
    left_out, path = scan.write_problems(corpus, cache)
    for item, reason in left_out[:SHOWN]:
        progress.say(f"left out: {item}: {reason}")
    progress.say(f"all {len(left_out)} that are left out: {path}")
