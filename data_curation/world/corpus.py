"""The embedded corpus: scenes drawn from a seed, rendered once and cached."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from bench.corpus import Corpus
from bench.launch.bound import die_with
from bench.machine.progress import Progress
from bench.records import digest, write_bytes, write_json, write_with
from bench.rng import derive_seed, numpy_generator
from data_curation.world.render import SIZE, render
from data_curation.world.scene import Scene, TrainingPrompts, compose

VERSION = 4
"""Raise when the drawing or the sampling of scenes changes: cached corpora are then rendered anew."""
_CHUNK = 512
FILES = ("images.npy", "rows.jsonl")
"""Of a rendered corpus."""


Drawing = tuple[Scene, dict[str, str]]
"""A scene, and what its row says of it besides its caption, task and style."""


def training_scene(seed: int, index: int, prompts: TrainingPrompts) -> Scene:
    """Scene ``index`` of the training corpus with this seed; independent of every other scene."""
    rng = numpy_generator(seed, index, 0, "world-scene")
    return compose(prompts.draw(rng), rng)


def _training_row(seed: int, index: int, prompts: TrainingPrompts) -> Drawing:
    return training_scene(seed, index, prompts), {}


def _render_chunk(
    draw: Callable[[int, int, TrainingPrompts], Drawing], seed: int, start: int, stop: int
) -> tuple[np.ndarray, list[dict[str, object]]]:
    prompts = TrainingPrompts()
    drawn = [draw(seed, i, prompts) for i in range(start, stop)]
    rows = [{"caption": s.prompt.text, "task": s.prompt.tag, "style": round(s.style, 6)} | more for s, more in drawn]
    return np.stack([render(scene) for scene, _ in drawn]), rows


def render_corpus(
    folder: Path,
    size: int,
    seed: int,
    name: str = "world",
    draw: Callable[[int, int, TrainingPrompts], Drawing] = _training_row,
) -> Path:
    """Render ``size`` scenes into ``folder/<name>-v…`` unless they are there and whole, and return that folder.

    The folder holds ``images.npy`` (uint8, N x 64 x 64 x 3) and ``rows.jsonl`` (caption, task, style, and what ``draw``
    adds). ``style`` is ground truth for tests and for the aesthetic head; no caption mentions it. The hashes of both
    stand in ``<name>-v….json`` beside it; what does not match them is rendered anew, which the user is told.

    Args:
        draw: from seed, index and the training prompts to a row; a function of a module, for worker processes.
    """
    target = folder / f"{name}-v{VERSION}-n{size}-s{seed}"
    hashes = target.with_name(f"{target.name}.json")
    if hashes.exists():
        if not (wrong := _damaged(target, hashes)):
            return target
        Progress().say(f"{wrong} is damaged or not there; the corpus is rendered anew")
        hashes.unlink()
    starts = range(0, size, _CHUNK)
    stops = [min(start + _CHUNK, size) for start in starts]
    rows: list[dict[str, object]] = []

    def write_images(file: IO[bytes]) -> None:
        # Written and not mapped: where the disk is full, a write fails and a map ends the process.
        header = {"descr": "|u1", "fortran_order": False, "shape": (size, SIZE, SIZE, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        workers = min(os.cpu_count() or 1, len(stops))
        with ProcessPoolExecutor(workers, initializer=die_with, initargs=(os.getpid(),)) as pool:
            for pixels, chunk in pool.map(partial(_render_chunk, draw, seed), starts, stops):
                file.write(np.ascontiguousarray(pixels).data)
                rows.extend(chunk)

    write_with(target / "images.npy", write_images)
    write_bytes(target / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    write_json(hashes, {file: _sha256(target / file) for file in FILES})  # last: it says that the others are complete
    return target


def _damaged(target: Path, hashes: Path) -> Path | None:
    """The first file of a rendered corpus that is not as it was written, if one is not."""
    try:
        sums = json.loads(hashes.read_bytes())
        return next((target / file for file in FILES if _sha256(target / file) != sums[file]), None)
    except FileNotFoundError as error:
        return Path(error.filename)
    except (ValueError, LookupError, TypeError, RecursionError):
        return hashes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RenderedCorpus(Corpus):
    """Base of the corpora that are drawn here: the rows of a folder that ``render_corpus`` made."""

    tag_names: ClassVar[tuple[str, ...]] = ("task",)

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        self.images: np.ndarray = np.load(folder / "images.npy", mmap_mode="r")
        with (folder / "rows.jsonl").open(encoding="utf-8") as file:
            self.rows = [json.loads(line) for line in file]
        self._fingerprint = digest({"corpus": self.name, "version": VERSION, **identity})

    def __len__(self) -> int:
        return len(self.rows)

    def caption(self, index: int) -> str:
        return str(self.rows[index]["caption"])

    def image(self, index: int) -> np.ndarray:
        return np.array(self.images[index])

    def size(self, index: int) -> tuple[int, int]:
        return SIZE, SIZE

    def tags(self, index: int) -> Mapping[str, str]:
        return {name: str(self.rows[index][name]) for name in self.tag_names}

    @property
    def fingerprint(self) -> str:
        return self._fingerprint


class WorldCorpus(RenderedCorpus):
    """Rendered shapes and signs with captions after GenEval's tasks; drawn by this project, no download."""

    name = "world"
    preferences = "world_preferences"
    holdout = "world_holdout"
    # The world's scores have no 6.8 and no 0.40; a fifth of it plays the part of the paper's 1.3 % and 2.4 %.
    quantiles: ClassVar[Mapping[str, float]] = {"high_aesthetic": 0.2, "high_clipscore": 0.2, "random": 0.2}

    def __init__(self, cache: Path, size: int = 4096, seed: int = 1) -> None:
        super().__init__(render_corpus(cache / "corpora", size, seed), {"size": size, "seed": seed})


class WorldHoldout(RenderedCorpus):
    """Fresh scenes of the shape world, which no method trains on: measures of exposure bias are read on them."""

    name = "world_holdout"

    def __init__(self, cache: Path, size: int = 1536, seed: int = 1) -> None:
        fresh = derive_seed("holdout", seed)
        super().__init__(render_corpus(cache / "corpora", size, fresh, self.name), {"size": size, "seed": fresh})
