"""Flow-GRPO's OCR test set: 1,018 prompts, each with the text to draw in double quotes."""

from __future__ import annotations

from pathlib import Path

from bench import assets
from bench.errors import BenchError
from bench.suite import Prompt
from benchmarks.ocr import wanted_text

ASSET = "ocr_prompts"
PROMPTS = 1018
_ANEW = f"run `bench assets fetch {ASSET}`"


def prompts() -> tuple[Prompt, ...]:
    """The test set's prompts. Raises BenchError with how to get the file where it is missing."""
    return read(assets.path(ASSET))


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file in its order; ids 0000 to 1017, the text to draw as the fact ``word``.

    Source: yifan123/flow_grpo @ ac4c86e, ``dataset/ocr/test.txt``, one prompt a line.
    Raises BenchError for a file of another length and for a line without quotes.
    """
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(lines) != PROMPTS:
        raise BenchError(f"{path} holds {len(lines)} lines instead of {PROMPTS} OCR prompts; {_ANEW}")
    return tuple(_prompt(path, number, line) for number, line in enumerate(lines))


def _prompt(path: Path, number: int, line: str) -> Prompt:
    try:
        word = wanted_text(line)
    except ValueError as error:
        raise BenchError(f"{path}, line {number + 1}: {error}; {_ANEW}") from error
    return Prompt(f"{number:04d}", line, facts={"word": word})
