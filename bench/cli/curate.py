"""``bench curate``: score a corpus and cut subsets from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.cli import options, types
from bench.errors import BenchError, shortened
from bench.machine.bounds import LARGEST_SIDE, MOST_HELD_OUT


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise BenchError(f"--shard takes I/N with I from 1 to N, e.g. 1/8, not {shortened(value, 80)!r}")
    return int(match[1]) - 1, int(match[2])


@click.command()
@click.option("--corpus", default="world", show_default=True, help="world, or the path of a corpus.")
@click.option("--subset", "names", callback=types.names, default="high_aesthetic,high_clipscore", show_default=True)
@click.option("--suite", default="embedded", show_default=True, help="Suite whose metrics score the corpus.")
@click.option("--threshold", type=types.Number(), help="Least score kept, instead of the subset's own.")
@click.option("--quantile", type=types.Number(0, 1, min_open=True), help="Share of the corpus to keep, best first.")
@click.option(
    "--holdout", type=click.IntRange(0, MOST_HELD_OUT), default=0, help="Pairs of each subset that no method trains on."
)
@click.option("--metric", help="Only score the corpus with this metric and show the distribution of the scores.")
@click.option(
    "--resolution",
    type=click.IntRange(1, LARGEST_SIDE),
    default=64,
    show_default=True,
    help="Side of the pictures in pixels.",
)
@click.option("--buckets", "aspect_buckets", is_flag=True, help="Keep aspect ratios, in buckets.")
@click.option("--shard", callback=_shard, metavar="I/N", help="Do just the I-th of N shares of the work; cut nothing.")
@options.cache
def curate(corpus: str, names: tuple[str, ...], suite: str, cache: Path, **settings: Any) -> None:
    """Score a corpus once and cut subsets from it into manifests. `bench run` does this on its own when needed.

    \b
        bench curate --subset high_aesthetic,high_clipscore
        bench curate --subset high_aesthetic --quantile 0.1
        bench curate --metric world_clipscore
    Share a large corpus out over processes, then run the command without --shard to cut:
        bench curate --corpus train.jsonl --suite drawbench --resolution 512 --subset high_aesthetic --shard 1/8
    Then `bench run --set high_aesthetic.quantile=0.1` trains on that cut.
    """
    registry.load("curation", "command")(corpus, names, suite, cache, **settings)
