"""DrawBench: 200 prompts, from the file of the release that the paper follows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench import assets
from bench.errors import BenchError
from bench.suite import Prompt

ASSET = "drawbench_prompts"
PROMPTS, REPEATS = 200, 5
"""Prompts, and lines of each in the release's file: each is drawn as often."""


def prompts() -> tuple[Prompt, ...]:
    """DrawBench's prompts. Raises BenchError with how to get the file where it is missing."""
    return read(assets.path(ASSET))


def read(path: Path) -> tuple[Prompt, ...]:
    """The 200 prompts in the order of their first line; ids 000 to 199.

    The release's file (NVlabs/DiffusionNFT @ 24af555) holds each prompt on five of its 1,000 lines, in mixed order.
    Raises BenchError for a file of another layout.
    """
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    times = Counter(lines)
    if len(times) != PROMPTS or set(times.values()) != {REPEATS} or "" in times:
        raise BenchError(
            f"{path} holds {len(lines)} lines with {len(times)} different prompts instead of {PROMPTS} prompts on "
            f"{REPEATS} lines each; run `bench assets fetch {ASSET}`"
        )
    return tuple(Prompt(f"{number:03d}", text) for number, text in enumerate(times))
