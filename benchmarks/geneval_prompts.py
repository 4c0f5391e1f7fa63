"""GenEval's 553 prompts and what each must show, from the benchmark's own file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from bench import assets
from bench.errors import BenchError
from bench.suite import Prompt

ASSET = "geneval_prompts"
TASKS = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
"""Task → prompts of it: ``prompts/evaluation_metadata.jsonl`` of djghosh13/geneval @ af4902f."""
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""In the order of ``evaluation/evaluate_images.py``."""
RELATIONS = ("left of", "right of", "above", "below")


def prompts() -> tuple[Prompt, ...]:
    """GenEval's prompts. Raises BenchError with how to get the file where it is missing."""
    return read(assets.path(ASSET))


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file in GenEval's layout: ids 00000 to 00552 as its picture folders, the task as the group.

    Raises:
        BenchError: another number of prompts, or a line of another layout.
    """
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    result = []
    for number, line in enumerate(lines):
        try:
            result.append(_prompt(number, json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _another(path, f"line {number + 1} is no prompt with its facts") from error
    sizes = Counter(prompt.group for prompt in result)
    if sizes != TASKS:
        raise _another(path, f"it holds {len(result)} prompts ({_counts(sizes)})")
    return tuple(result)


def _prompt(number: int, entry: Any) -> Prompt:
    if entry["tag"] not in TASKS or not entry["prompt"] or not isinstance(entry["prompt"], str) or not entry["include"]:
        raise ValueError(entry)
    for place, clause in enumerate(entry["include"]):
        _check(clause)
        if clause.get("color", COLOURS[0]) not in COLOURS:
            raise ValueError(clause)
        relation, target = clause.get("position", (None, None))
        if "position" in clause and (relation not in RELATIONS or target not in range(place)):
            raise ValueError(clause)
    for clause in entry.get("exclude", ()):
        _check(clause)
    facts = {key: entry[key] for key in ("include", "exclude") if key in entry}
    return Prompt(f"{number:05d}", entry["prompt"], entry["tag"], facts)


def _check(clause: Any) -> None:
    if not isinstance(clause["class"], str) or clause["count"] not in range(1, 1000):
        raise ValueError(clause)


def _counts(tasks: Any) -> str:
    return ", ".join(f"{tasks[task]} {task}" for task in TASKS)


def _another(path: Path, reason: str) -> BenchError:
    return BenchError(
        f"{path} is not GenEval's {sum(TASKS.values())} prompts ({_counts(TASKS)}): {reason}; "
        f"run `bench assets fetch {ASSET}`"
    )
