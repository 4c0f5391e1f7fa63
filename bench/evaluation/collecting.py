"""Images that came from elsewhere, taken in as if they had been drawn here. Nothing replaces one that is missing."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import records
from bench.errors import BenchError
from bench.evaluation.drawing import Drawn, image_name, problem_of, sample_row
from bench.suite import PromptSet, Suite

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def collect_suite(suite: Suite, source: Path, folder: Path, *, header: dict[str, Any]) -> dict[str, int]:
    """Copy the images of a suite from ``source`` into ``folder``, which appears only when it is whole.

    An image is called ``<prompt set>-<prompt id>-<repeat>`` and lies in ``source`` or its ``images/``; or, as GenEval
    keeps them, ``<prompt id>/samples/<repeat, four digits>``, in ``source`` or in a folder named like the prompt set.
    One that is not there or is damaged has a row that says so.

    Returns:
        How many images there are of each size, as ``{"512x512": 2212}``.

    Raises:
        BenchError: no image of the suite is there at all.
    """
    if (folder / "evaluation.json").exists():
        return dict(records.read_json(folder / "evaluation.json")["sizes"])
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    rows, sizes = [], Counter[str]()
    for prompts in suite.prompt_sets:
        for prompt in prompts.prompts:
            for repeat in range(prompts.repeats):
                rows.append(_take(suite, prompts, (prompt, repeat), source, partial, sizes))
    if not sizes:
        shutil.rmtree(partial)
        first = suite.prompt_sets[0]
        example = image_name(first, first.prompts[0], 0)
        raise BenchError(
            f"{source} holds no image of the suite {suite.name}; they are called <prompt set>-<prompt id>-<repeat>, "
            f"e.g. {example}.png"
        )
    records.write_lines(partial / "samples.jsonl", rows)
    records.write_json(
        partial / "evaluation.json", {"v": records.VERSION, **header, "sizes": dict(sorted(sizes.items()))}
    )
    partial.rename(folder)
    return dict(sizes)


def _take(
    suite: Suite, prompts: PromptSet, drawn: Drawn, source: Path, folder: Path, sizes: Counter[str]
) -> dict[str, Any]:
    found = _find(source, prompts, drawn)
    name = image_name(prompts, *drawn)
    if found is None:
        problem: str | None = f"the image {name} is not there"
        return sample_row(suite, prompts, drawn, f"images/{name}.png", None, problem)
    file = f"images/{name}{found.suffix.lower()}"
    try:
        with Image.open(found) as image:
            picture = np.asarray(image.convert("RGB"))
        sizes[f"{picture.shape[1]}x{picture.shape[0]}"] += 1
        problem = problem_of(picture)
    except OSError as error:
        problem = f"the image {found.name} cannot be read: {str(error).splitlines()[0]}"
    shutil.copyfile(found, folder / file)
    return sample_row(suite, prompts, drawn, file, None, problem)


def _find(source: Path, prompts: PromptSet, drawn: Drawn) -> Path | None:
    prompt, repeat = drawn
    stem = image_name(prompts, prompt, repeat)
    as_geneval = Path(prompt.id) / "samples" / f"{repeat:04d}"
    places = (source / stem, source / "images" / stem, source / as_geneval, source / prompts.name / as_geneval)
    return next((file for place in places for suffix in SUFFIXES if (file := Path(f"{place}{suffix}")).is_file()), None)
