"""Prompt files in the layout of GenEval's, Flow-GRPO's and DrawBench's, with prompts that this project made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import drawbench_prompts, geneval_prompts, ocr_prompts

THINGS = ("person", "dog", "car", "bench", "clock")


def make_prompt_files(folder: Path) -> dict[str, Path]:
    """Asset → its file: as many prompts as the real one has, with facts of every kind, and the names of 80 classes."""
    lines = {
        "geneval_classes": [*THINGS, *(f"thing {i}" for i in range(len(THINGS), 80))],
        "geneval_prompts": [json.dumps(entry) for entry in _geneval()],
        "ocr_prompts": [f'A sign that reads "word {i}" in a street' for i in range(ocr_prompts.PROMPTS)],
        "drawbench_prompts": [f"a {THINGS[i % 5]} number {i}" for i in range(drawbench_prompts.PROMPTS)]
        * drawbench_prompts.REPEATS,
    }
    files = {}
    for name, content in lines.items():
        files[name] = folder / f"{name}.txt"
        files[name].write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return files


def _geneval() -> Iterator[dict[str, Any]]:
    for task, count in geneval_prompts.TASKS.items():
        for number in range(count):
            one, other = THINGS[number % 5], THINGS[(number + 1) % 5]
            include: list[dict[str, Any]] = [{"class": one, "count": 3 if task == "counting" else 1}]
            if task in ("colors", "color_attr"):
                include[0]["color"] = "red"
            if task in ("two_object", "position", "color_attr"):
                include.append({"class": other, "count": 1})
            if task == "position":
                include[1]["position"] = ["left of", 0]
            if task == "color_attr":
                include[1]["color"] = "blue"
            exclude = [{"class": one, "count": 4}] if task == "counting" else []
            yield {"tag": task, "include": include, "exclude": exclude, "prompt": f"{task} {number}: {one}, {other}"}
