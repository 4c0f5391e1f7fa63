"""The second pass: scores of images that are there. A scorer that fails marks its cells and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench import records
from bench.errors import BenchError, Missing, stop_if_lost
from bench.evaluation.drawing import read_picture
from bench.machine.engine import Engine
from bench.metric import Metric, checked, checked_words
from bench.prompt import Prompt
from bench.records import atomic
from bench.records.schema import SampleLine, ScoreRecord
from bench.suite import Suite

BATCH = 32
"""Images given to a metric together."""

UNITS = 8
"""Batches (or prompts) that a process scores before what was scored is written."""

Row = dict[str, Any]
Cell = dict[str, Any]


def score_suite(
    suite: Suite,
    metrics: Mapping[str, Metric],
    folder: Path,
    *,
    engine: Engine,
    again: bool = False,
    keep: Collection[str] = (),
    tick: Callable[[int], None] = lambda images: None,
) -> None:
    """Give every image of an evaluation the scores it lacks. Every process must call it.

    A score of another version of a metric is replaced. ``samples.jsonl`` is written anew after each few batches, so
    that a pass that was cut off goes on there.

    Args:
        metrics: those to score with; a metric of the suite that is not among them is left out.
        again: also try cells again that hold an error.
        keep: metrics that are not released afterwards, nor are those that stand on a model of theirs.
        tick: called with the number of images that a metric has just scored.
    """
    path = folder / "samples.jsonl"
    if engine.is_main:
        atomic.sweep(folder)
    rows: list[Row] = list(records.read_rows(SampleLine, path))
    engine.barrier()  # every process has read what is written anew below
    shared = {asset for name in keep if name in metrics for asset in metrics[name].assets}
    for prompts in suite.prompt_sets:
        facts = {prompt.id: prompt for prompt in prompts.prompts}
        for metric in (metrics[name] for name in prompts.metrics if name in metrics):
            missing = [row for row in rows if row["prompt_set"] == prompts.name and _is_missing(row, metric, again)]
            if not missing:
                continue
            scoring = _Scoring(metric, facts, folder, engine)
            for number, cells in scoring.run(missing):
                for row, cell in cells:
                    missing[row]["scores"][metric.name] = cell
                if engine.is_main:
                    records.write_lines(path, rows)
                tick(number)
            if metric.name not in keep and not shared.intersection(metric.assets):
                metric.release()
    engine.barrier()


def count_missing(suite: Suite, metrics: Mapping[str, Metric], folder: Path, *, again: bool = False) -> int:
    """How many scores ``score_suite`` would make."""
    columns = {(prompts.name, name) for name, prompts in suite.metrics()}
    return sum(
        (row["prompt_set"], name) in columns and _is_missing(row, metric, again)
        for row in records.read_rows(SampleLine, folder / "samples.jsonl")
        for name, metric in metrics.items()
    )


def _is_missing(row: Row, metric: Metric, again: bool) -> bool:
    cell = row["scores"].get(metric.name)
    if cell is None or cell["version"] != metric.version:
        return True
    # An image with a problem stays as it is; but all images of a prompt are scored together or not at all.
    return again and "error" in cell and (metric.per_prompt or "problem" not in row)


class _Scoring:
    """One metric on images of one prompt set, shared out over processes."""

    def __init__(self, metric: Metric, prompts: Mapping[str, Prompt], folder: Path, engine: Engine) -> None:
        self.metric, self.prompts, self.folder, self.engine = metric, prompts, folder, engine

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[int, list[tuple[int, Cell]]]]:
        """(images scored, their cells by number of the row), the same on every process."""
        problem = next((p for p in self.engine.gather_rows([self._unready()]) if p), None)
        if problem:
            yield len(rows), [(number, error_cell(self.metric, problem)) for number in range(len(rows))]
            return
        units = list(self._units(rows))
        turn = UNITS * self.engine.world_size
        for first in range(0, len(units), turn):
            mine = units[first : first + turn][self.engine.rank :: self.engine.world_size]
            cells = [pair for unit in mine for pair in zip(unit, self._unit([rows[n] for n in unit]), strict=True)]
            yield sum(map(len, units[first : first + turn])), self.engine.gather_rows(cells)

    def _unready(self) -> str | None:
        """Reason why the metric cannot score at all."""
        try:
            self.metric.prepare()
        except Missing as error:
            return f"missing: {error}"
        except Exception as error:
            stop_if_lost(error)
            return str(error) if isinstance(error, BenchError) else _reason(error)
        return None

    def _units(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Numbers of the rows that are scored together."""
        numbers = list(range(len(rows)))
        if self.metric.per_prompt:
            in_order = sorted(numbers, key=lambda n: rows[n]["prompt_id"])
            for _, unit in groupby(in_order, key=lambda n: rows[n]["prompt_id"]):
                yield list(unit)
        else:
            for start in range(0, len(rows), BATCH):
                yield numbers[start : start + BATCH]

    def _unit(self, rows: Sequence[Row]) -> list[Cell]:
        held = [self._image(row) for row in rows]
        if self.metric.per_prompt:
            if problem := next((image for image in held if isinstance(image, str)), None):
                return [error_cell(self.metric, f"an image of this prompt: {problem}")] * len(rows)
            return score_prompt(self.metric, held, [self._prompt(row) for row in rows])
        good = [n for n, image in enumerate(held) if not isinstance(image, str)]
        scored = score_each(self.metric, [held[n] for n in good], [self._prompt(rows[n]) for n in good])
        cells = dict(zip(good, scored, strict=True))
        return [cells[n] if n in cells else error_cell(self.metric, str(image)) for n, image in enumerate(held)]

    def _prompt(self, row: Row) -> Prompt:
        return self.prompts[row["prompt_id"]]

    def _image(self, row: Row) -> Any:
        """uint8 (H, W, 3) pixels, or why there is nothing to score."""
        if "problem" in row:
            return row["problem"]
        if row["prompt_id"] not in self.prompts:
            return f"the suite has no prompt {row['prompt_id']} in {row['prompt_set']}"
        if not records.inside(row["image"]):
            return f"the image {row['image']} lies outside the evaluation's folder"
        try:
            return read_picture(self.folder / row["image"], row.get("sha256"))
        except FileNotFoundError:
            return f"the image {row['image']} is not there"
        except OSError as error:
            return str(error)


def score_each(metric: Metric, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[Cell]:
    """Score images; one that fails gets an error instead of a score, and the others keep theirs."""
    if not images:
        return []
    try:
        judged = _judged(metric, images, prompts)
    except Exception as error:
        stop_if_lost(error)
        return [_score_one(metric, image, prompt) for image, prompt in zip(images, prompts, strict=True)]
    return [_cell(metric, *of) for of in judged]


def score_prompt(metric: Metric, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[Cell]:
    """Score all images of one prompt together, by a metric with ``per_prompt``; they share a score or an error."""
    try:
        values = checked(metric.score(images, prompts), len(images))
    except Exception as error:
        stop_if_lost(error)
        return [error_cell(metric, _reason(error))] * len(images)
    if np.isfinite(values).all() and (values != values[0]).any():
        return [error_cell(metric, "different numbers for the images of a prompt")] * len(images)
    return [_cell(metric, value) for value in values]


def error_cell(metric: Metric, error: str) -> Cell:
    """The cell of an image that has no score, and why."""
    return records.document(ScoreRecord(version=metric.version, error=" ".join(error.split())))


def _score_one(metric: Metric, image: np.ndarray, prompt: Prompt) -> Cell:
    try:
        ((value, seen),) = _judged(metric, [image], [prompt])
    except Exception as error:
        stop_if_lost(error)
        return error_cell(metric, _reason(error))
    return _cell(metric, value, seen)


def _judged(metric: Metric, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[tuple[float, str | None]]:
    """Scores, and what the metric saw."""
    values = checked(metric.score(images, prompts), len(images))
    return [*zip(values, checked_words(metric.observations(images, prompts), len(images)), strict=True)]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"


def _cell(metric: Metric, value: float, seen: str | None = None) -> Cell:
    if not math.isfinite(value):
        return error_cell(metric, "not a finite number")
    rounded = round(float(value), 6)
    if metric.low is not None and rounded < metric.low:
        return error_cell(metric, f"{rounded:g} is below the metric's lowest score, {metric.low:g}")
    if metric.high is not None and rounded > metric.high:
        return error_cell(metric, f"{rounded:g} is above the metric's highest score, {metric.high:g}")
    score = ScoreRecord(version=metric.version, score=rounded)
    return records.document(score if seen is None else score.model_copy(update={"seen": seen}))
