"""The first pass: a suite's images, drawn once and kept with their seeds."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import records
from bench.evaluation.painters import Painter
from bench.machine.engine import Engine
from bench.prompt import Prompt
from bench.records import atomic, pictures
from bench.records.schema import EvaluationRecord, SampleLine
from bench.suite import PromptSet, Suite

NOT_A_NUMBER = "the model drew no number but NaN or infinity"
CONSTANT = "every pixel of the picture is the same"

Drawn = tuple[Prompt, int]
"""A prompt and which of its repeats."""


def image_name(prompts: PromptSet, prompt: Prompt, repeat: int) -> str:
    """What an image is called, without its suffix."""
    return f"{prompts.name}-{prompt.id}-{repeat}"


def sample_row(
    suite: Suite,
    prompts: PromptSet,
    drawn: Drawn,
    image: str,
    seed: int | None,
    problem: str | None,
    sha256: str | None = None,
) -> SampleLine:
    """The line of an image in ``samples.jsonl``, not scored yet.

    Args:
        image: its file, from the evaluation's folder on.
        seed: of its noise; None where an image came from elsewhere.
        problem: why there is nothing to score.
        sha256: of the file, which is verified before it is scored; None where there is none.
    """
    prompt, repeat = drawn
    line = SampleLine(
        v=records.VERSION,
        prompt_set=prompts.name,
        prompt_id=prompt.id,
        prompt=prompt.text,
        group=prompt.group,
        repeat=repeat,
        seed=seed,
        image=image,
        sha256=sha256,
        scores={},
    )
    return line.model_copy(update={"problem": problem}) if problem else line


def problem_of(picture: np.ndarray) -> str | None:
    """Why a picture cannot be scored: it is all of one colour."""
    return CONSTANT if (picture == picture[0, 0]).all() else None


def read_picture(path: Path, sha256: str | None = None) -> np.ndarray:
    """uint8 (H, W, 3) pixels of an image file, as ``pictures.read`` decodes and verifies it, and with its errors."""
    return np.asarray(pictures.read(path, sha256))


def draw_suite(
    suite: Suite,
    painter: Painter,
    folder: Path,
    *,
    header: EvaluationRecord,
    engine: Engine,
    batch: int,
    tick: Callable[[int], None] = lambda images: None,
) -> None:
    """Draw every image of a suite into ``folder``, which appears only when all are there. Every process must call it.

    Images that a pass left which was cut off are kept, and so is a whole evaluation, unless the ``header`` was another
    one: it says which weights were drawn.

    Args:
        header: written to ``evaluation.json``.
        batch: images drawn together; neither it nor the number of processes changes their noise.
        tick: called with the number of images that are there now and were not before.
    """
    whole = records.document(header)
    if engine.broadcast(engine.is_main and _is_of(folder, whole)):
        return
    partial = folder.with_name(f".{folder.name}.partial")
    if engine.is_main:
        shutil.rmtree(folder, ignore_errors=True)  # no report is to show it meanwhile
        _begin(partial, whole)
    engine.barrier()
    drawing = _Drawing(suite, painter, partial, engine, batch, tick)
    rows = [row for prompts in suite.prompt_sets for row in drawing.prompt_set(prompts)]
    if engine.is_main:
        records.write_lines(partial / "samples.jsonl", map(records.document, rows))
        partial.rename(folder)
    engine.barrier()


def clear_others(evaluations: Path, keep: str, fraction: float) -> None:
    """Delete evaluations of a job at the same ``fraction``, and unfinished ones.

    Both are of an earlier start of the job. Only whoever holds the job may call it.

    Args:
        keep: name of the folder that is to be the job's evaluation at ``fraction``.
    """
    for begun in evaluations.glob(".*.partial"):
        if begun.name != f".{keep}.partial":
            shutil.rmtree(begun, ignore_errors=True)
    for record in evaluations.glob("[!.]*/evaluation.json"):
        other = records.read_json(record)
        if record.parent.name != keep and isinstance(other, dict) and other.get("fraction") == fraction:
            shutil.rmtree(record.parent, ignore_errors=True)


def _is_of(folder: Path, header: Mapping[str, Any]) -> bool:
    path = folder / "evaluation.json"
    return path.exists() and records.read_json(path) == header


def _begin(partial: Path, header: dict[str, Any]) -> None:
    if not _is_of(partial, header):
        shutil.rmtree(partial, ignore_errors=True)
        records.write_json(partial / "evaluation.json", header)
    (partial / "images").mkdir(exist_ok=True)
    atomic.sweep(partial, partial / "images")


@dataclass(frozen=True)
class _ImageFile:
    """An image that lies in its folder: the hash of its file, and why there is nothing to score, if so."""

    sha256: str
    problem: str | None


class _Drawing:
    def __init__(
        self, suite: Suite, painter: Painter, folder: Path, engine: Engine, batch: int, tick: Callable[[int], None]
    ) -> None:
        self.suite, self.painter, self.folder, self.engine = suite, painter, folder, engine
        self.batch, self.tick = batch, tick
        self.images = self._look()

    def _look(self) -> dict[str, _ImageFile]:
        """What an earlier pass left, by name. What is damaged goes, and is drawn again. Processes share the work."""
        images = self.folder / "images"
        names = self.engine.broadcast(sorted(path.name for path in images.iterdir()) if self.engine.is_main else [])
        mine: list[tuple[str, _ImageFile | None]] = []
        for name in names[self.engine.rank :: self.engine.world_size]:
            try:
                data = pictures.load(images / name)
                file = _ImageFile(pictures.digest(data), problem_of(np.asarray(pictures.decode(data))))
            except (FileNotFoundError, pictures.BadPicture):
                mine.append((name, None))
            else:
                mine.append((name, file))
        seen = self.engine.gather_rows(mine)
        if self.engine.is_main:
            for damaged in (images / name for name, file in seen if file is None):
                shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink(missing_ok=True)
        return {name: file for name, file in seen if file is not None}

    def prompt_set(self, prompts: PromptSet) -> list[SampleLine]:
        """Rows of one prompt set. Processes take turns at whole batches, so that batches never depend on them."""
        drawn = [(prompt, repeat) for prompt in prompts.prompts for repeat in range(prompts.repeats)]
        batches = [drawn[start : start + self.batch] for start in range(0, len(drawn), self.batch)]
        mine: list[tuple[int, list[SampleLine]]] = []
        for first in range(0, len(batches), self.engine.world_size):
            turn = batches[first : first + self.engine.world_size]
            missing = [not all(self._file(prompts, one) in self.images for one in part) for part in turn]
            number = self.engine.rank
            if number < len(turn) and not missing[number]:
                mine.append((first + number, self._rows(prompts, turn[number])))
            if any(missing):  # weights that are spread over processes draw with all of them or not at all
                at = number if number < len(turn) and missing[number] else missing.index(True)
                drawn_now = self._draw(prompts, turn[at])
                if at == number:
                    self._keep(prompts, turn[at], drawn_now)
                    mine.append((first + number, self._rows(prompts, turn[at])))
            self.tick(sum(map(len, turn)))
        return [row for _, rows in sorted(self.engine.gather_rows(mine), key=lambda part: part[0]) for row in rows]

    def _file(self, prompts: PromptSet, drawn: Drawn) -> str:
        return f"{image_name(prompts, *drawn)}.png"

    def _seed(self, prompts: PromptSet, drawn: Drawn) -> int:
        return self.suite.noise_seed(prompts.name, *drawn)

    def _draw(self, prompts: PromptSet, batch: Sequence[Drawn]) -> Sequence[np.ndarray | None]:
        return self.painter.draw([prompt for prompt, _ in batch], [self._seed(prompts, one) for one in batch])

    def _keep(self, prompts: PromptSet, batch: Sequence[Drawn], drawn: Sequence[np.ndarray | None]) -> None:
        for one, picture in zip(batch, drawn, strict=True):
            name = self._file(prompts, one)
            if picture is None:
                self.images.pop(name, None)
                continue
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "PNG")
            records.write_bytes(self.folder / "images" / name, content.getbuffer())
            self.images[name] = _ImageFile(pictures.digest(content.getvalue()), problem_of(picture))

    def _rows(self, prompts: PromptSet, batch: Sequence[Drawn]) -> list[SampleLine]:
        """Rows of the images. A missing image was not a number."""
        rows = []
        for one in batch:
            name = self._file(prompts, one)
            file = self.images.get(name)
            problem, sha256 = (file.problem, file.sha256) if file else (NOT_A_NUMBER, None)
            path = f"images/{name}"
            rows.append(sample_row(self.suite, prompts, one, path, self._seed(prompts, one), problem, sha256))
        return rows
