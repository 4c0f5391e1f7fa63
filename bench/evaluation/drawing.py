"""The first pass: a suite's images, drawn once and kept with their seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import files, records
from bench.engine import Engine
from bench.evaluation.painters import Painter
from bench.suite import Prompt, PromptSet, Suite

NOT_A_NUMBER = "the model drew no number but NaN or infinity"
CONSTANT = "every pixel of the picture is the same"

Drawn = tuple[Prompt, int]
"""A prompt and which of its repeats."""


def image_name(prompts: PromptSet, prompt: Prompt, repeat: int) -> str:
    """What an image is called, without its suffix."""
    return f"{prompts.name}-{prompt.id}-{repeat}"


def sample_row(
    suite: Suite, prompts: PromptSet, drawn: Drawn, image: str, seed: int | None, problem: str | None
) -> dict[str, Any]:
    """The line of an image in ``samples.jsonl``, not scored yet.

    Args:
        image: its file, from the evaluation's folder on.
        seed: of its noise; None where an image came from elsewhere.
        problem: why there is nothing to score.
    """
    prompt, repeat = drawn
    return {
        "v": records.VERSION,
        "prompt_set": prompts.name,
        "prompt_id": prompt.id,
        "prompt": prompt.text,
        "group": prompt.group,
        "repeat": repeat,
        "seed": seed,
        "image": image,
        "scores": {},
    } | ({"problem": problem} if problem else {})


def problem_of(picture: np.ndarray | None) -> str | None:
    """Why a picture cannot be scored: it is no number, or all of one colour."""
    if picture is None:
        return NOT_A_NUMBER
    return CONSTANT if (picture == picture[0, 0]).all() else None


def read_picture(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) pixels of an image file. OSError, in one line, for one that is not there or cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except Exception as error:  # of damaged files PIL raises SyntaxError and ValueError too, of huge ones its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"the image {path.name} cannot be read: {reason}") from error


def draw_suite(
    suite: Suite,
    painter: Painter,
    folder: Path,
    *,
    header: Mapping[str, Any],
    engine: Engine,
    batch: int,
    tick: Callable[[int], None] = lambda images: None,
) -> None:
    """Draw every image of a suite into ``folder``, which appears only when all are there. Every process must call it.

    Images that a pass left which was cut off are kept, unless its ``header`` was another one.

    Args:
        header: written to ``evaluation.json``.
        batch: images drawn together; neither it nor the number of processes changes their noise.
        tick: called with the number of images that are there now and were not before.
    """
    if engine.broadcast((folder / "evaluation.json").exists()):
        return
    partial = folder.with_name(f".{folder.name}.partial")
    if engine.is_main:
        _begin(partial, {"v": records.VERSION, **header})
    engine.barrier()
    drawing = _Drawing(suite, painter, partial, engine, batch, tick)
    rows = [row for prompts in suite.prompt_sets for row in drawing.prompt_set(prompts)]
    if engine.is_main:
        records.write_lines(partial / "samples.jsonl", rows)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    engine.barrier()


def _begin(partial: Path, header: dict[str, Any]) -> None:
    path = partial / "evaluation.json"
    if not path.exists() or records.read_json(path) != header:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "images").mkdir(parents=True)
        records.write_json(path, header)
    files.sweep(partial / "images")


class _Drawing:
    def __init__(
        self, suite: Suite, painter: Painter, folder: Path, engine: Engine, batch: int, tick: Callable[[int], None]
    ) -> None:
        self.suite, self.painter, self.folder, self.engine = suite, painter, folder, engine
        self.batch, self.tick = batch, tick
        there = {path.name for path in (folder / "images").iterdir()} if engine.is_main else set()
        self.there: set[str] = engine.broadcast(there)

    def prompt_set(self, prompts: PromptSet) -> list[dict[str, Any]]:
        """Rows of one prompt set. Processes take turns at whole batches, so that batches never depend on them."""
        drawn = [(prompt, repeat) for prompt in prompts.prompts for repeat in range(prompts.repeats)]
        batches = [drawn[start : start + self.batch] for start in range(0, len(drawn), self.batch)]
        mine: list[tuple[int, list[dict[str, Any]]]] = []
        for first in range(0, len(batches), self.engine.world_size):
            turn = batches[first : first + self.engine.world_size]
            missing = [not all(self._file(prompts, one) in self.there for one in part) for part in turn]
            number = self.engine.rank
            if number < len(turn) and not missing[number]:
                kept = [self._read(prompts, one) for one in turn[number]]
                mine.append((first + number, self._rows(prompts, turn[number], kept)))
            if any(missing):  # weights that are spread over processes draw with all of them or not at all
                at = number if number < len(turn) and missing[number] else missing.index(True)
                pictures = self._draw(prompts, turn[at])
                if at == number:
                    self._keep(prompts, turn[at], pictures)
                    mine.append((first + number, self._rows(prompts, turn[at], pictures)))
            self.tick(sum(map(len, turn)))
        return [row for _, rows in sorted(self.engine.gather_rows(mine), key=lambda part: part[0]) for row in rows]

    def _file(self, prompts: PromptSet, drawn: Drawn) -> str:
        return f"{image_name(prompts, *drawn)}.png"

    def _seed(self, prompts: PromptSet, drawn: Drawn) -> int:
        return self.suite.noise_seed(prompts.name, *drawn)

    def _draw(self, prompts: PromptSet, batch: Sequence[Drawn]) -> Sequence[np.ndarray | None]:
        return self.painter.draw([prompt for prompt, _ in batch], [self._seed(prompts, one) for one in batch])

    def _keep(self, prompts: PromptSet, batch: Sequence[Drawn], pictures: Sequence[np.ndarray | None]) -> None:
        for one, picture in zip(batch, pictures, strict=True):
            if picture is not None:
                image, path = Image.fromarray(picture), self.folder / "images" / self._file(prompts, one)
                records.write_with(path, lambda file, image=image: image.save(file, "PNG"))  # type: ignore[misc]

    def _read(self, prompts: PromptSet, drawn: Drawn) -> np.ndarray:
        return read_picture(self.folder / "images" / self._file(prompts, drawn))

    def _rows(
        self, prompts: PromptSet, batch: Sequence[Drawn], pictures: Sequence[np.ndarray | None]
    ) -> list[dict[str, Any]]:
        return [
            sample_row(
                self.suite, prompts, one, f"images/{self._file(prompts, one)}", self._seed(prompts, one),
                problem_of(picture),
            )
            for one, picture in zip(batch, pictures, strict=True)
        ]  # fmt: skip
