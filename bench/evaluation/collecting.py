"""Images that came from elsewhere, taken in as if they had been drawn here. Nothing replaces one that is missing."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import records
from bench.download import hash_of
from bench.errors import BenchError
from bench.evaluation.drawing import Drawn, image_name, problem_of, read_picture, sample_row
from bench.pictures import SUFFIXES
from bench.suite import PromptSet, Suite

BOTH_CASES = (*SUFFIXES, *map(str.upper, SUFFIXES))


def collect_suite(suite: Suite, source: Path, folder: Path, *, header: dict[str, Any]) -> dict[str, Any]:
    """Copy the images of a suite from ``source`` into ``folder``, which appears only when it is whole.

    An image is called ``<prompt set>-<prompt id>-<repeat>`` and lies in ``source`` or its ``images/``; or, as GenEval
    keeps them, ``<prompt id>/samples/<repeat, four digits>``, in ``source`` or in a folder named like the prompt set.
    One that is not there or is damaged has a row that says so.

    Returns:
        ``identity``, a SHA-256 of the images, and ``sizes``: how many there are of each, as ``{"512x512": 2212}``.

    Raises:
        BenchError: no image of the suite is there at all, or ``folder`` holds others than ``source``.
    """
    identity = _identity(suite, source)
    if (folder / "evaluation.json").exists():
        taken = records.read_json(folder / "evaluation.json")
        if taken.get("identity") != identity:
            raise BenchError(
                f"the images in {source} are not those that {folder} holds; give these a name with --name, or delete "
                "that folder"
            )
        return {"identity": identity, "sizes": taken["sizes"]}
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    sizes = Counter[str]()
    rows = [_take(suite, prompts, drawn, source, partial, sizes) for prompts, drawn in _owed(suite)]
    if not sizes:
        shutil.rmtree(partial)
        first = suite.prompt_sets[0]
        example = image_name(first, first.prompts[0], 0)
        raise BenchError(
            f"{source} holds no image of the suite {suite.name}; they are called <prompt set>-<prompt id>-<repeat>, "
            f"e.g. {example}.png"
        )
    records.write_lines(partial / "samples.jsonl", rows)
    about = {"identity": identity, "sizes": dict(sorted(sizes.items()))}
    records.write_json(partial / "evaluation.json", {"v": records.VERSION, **header, **about})
    partial.rename(folder)
    return about


def _owed(suite: Suite) -> Iterator[tuple[PromptSet, Drawn]]:
    for prompts in suite.prompt_sets:
        for prompt in prompts.prompts:
            yield from ((prompts, (prompt, repeat)) for repeat in range(prompts.repeats))


def _identity(suite: Suite, source: Path) -> str:
    whole = hashlib.sha256()
    for prompts, drawn in _owed(suite):
        if (found := _find(source, prompts, drawn)) is not None:
            whole.update(f"{image_name(prompts, *drawn)}\0{hash_of(found)}\n".encode())
    return whole.hexdigest()


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
        picture = read_picture(found)
        sizes[f"{picture.shape[1]}x{picture.shape[0]}"] += 1
        problem = problem_of(picture)
    except OSError as error:
        problem = str(error)
    shutil.copyfile(found, folder / file)
    return sample_row(suite, prompts, drawn, file, None, problem)


def _find(source: Path, prompts: PromptSet, drawn: Drawn) -> Path | None:
    prompt, repeat = drawn
    stem = image_name(prompts, prompt, repeat)
    as_geneval = Path(prompt.id) / "samples" / f"{repeat:04d}"
    places = (source / stem, source / "images" / stem, source / as_geneval, source / prompts.name / as_geneval)
    return next(
        (file for place in places for suffix in BOTH_CASES if (file := Path(f"{place}{suffix}")).is_file()), None
    )
