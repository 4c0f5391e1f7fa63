"""Images that came from elsewhere, taken in as if they had been drawn here. Nothing replaces one that is missing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import records
from bench.assets.download import hash_of
from bench.errors import BenchError
from bench.evaluation.drawing import Drawn, image_name, problem_of, sample_row
from bench.records import pictures
from bench.records.pictures import SUFFIXES
from bench.records.schema import EvaluationRecord, SampleLine
from bench.suite import PromptSet, Suite

METADATA = "metadata.jsonl"
"""Beside GenEval's images of a prompt: its record, with its text."""


def collect_suite(suite: Suite, source: Path, folder: Path, *, header: EvaluationRecord) -> dict[str, Any]:
    """Copy the images of a suite from ``source`` into ``folder``, which appears only when it is whole.

    ``Layout`` says how an image is called. One that is not there, is there twice, or is damaged has a row that says so.

    Returns:
        ``identity``, a SHA-256 of the images, and ``sizes``: how many there are of each, as ``{"512x512": 2212}``.

    Raises:
        BenchError: no image of the suite is there at all, or ``folder`` holds others than ``source``.
    """
    layout = Layout(suite, source)
    matches = [(prompts, drawn, layout.find(prompts, drawn)) for prompts, drawn in _images_of(suite)]
    identity = _identity(matches)
    if (folder / "evaluation.json").exists():
        taken = records.read_raw(EvaluationRecord, folder / "evaluation.json")
        if taken.get("identity") != identity:
            raise BenchError(
                f"the images in {source} are not those that {folder} holds; give these a name with --name, or delete "
                "that folder"
            )
        return {"identity": identity, "sizes": taken.get("sizes", {})}
    if not any(candidates.files for _, _, candidates in matches):
        raise BenchError(f"{source} holds no image of the suite {suite.name}; {layout.expected()}")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    sizes = Counter[str]()
    rows = [_take(suite, each, partial, sizes) for each in matches]
    records.write_lines(partial / "samples.jsonl", map(records.document, rows))
    about = {"identity": identity, "sizes": dict(sorted(sizes.items()))}
    records.write_record(partial / "evaluation.json", header.model_copy(update=about))
    partial.rename(folder)
    return about


@dataclass(frozen=True)
class Candidates:
    """Files that may be an image, at most one where all is well; ``problem`` says why none of them is taken."""

    files: tuple[Path, ...]
    problem: str | None = None


Match = tuple[PromptSet, Drawn, Candidates]


class Layout:
    """Where the images of a suite lie in a folder, by any of the layouts that generators write.

    - ``<prompt set>-<prompt id>-<repeat>``, in the folder or in its ``images/``: what is drawn here;
    - ``<prompt id>/samples/<repeat>`` as GenEval's generator writes it, or ``<prompt id>/<repeat>``, in the folder or
      in one that is named like the prompt set.

    Repeats count from 0. They, and prompt ids that are numbers, may have any number of digits: ``0000.png`` and
    ``00000.png`` are the same repeat. In the folder itself, where prompts of several sets may lie, a prompt's folder
    has the very id, or a ``metadata.jsonl`` with the prompt's text. Where that file holds another text, the images of
    its folder are not taken.
    """

    def __init__(self, suite: Suite, source: Path) -> None:
        self._suite, self._source = suite, source
        self._keys = {prompts.name: _keys(prompts) for prompts in suite.prompt_sets}
        self._listed: dict[Path, dict[int | str, list[Path]]] = {}
        self._texts: dict[Path, str | None] = {}
        self._named: dict[tuple[str, int | str, int], list[Path]] = {}
        for file in (file for place in (source, source / "images") for file in _pictures(place)):
            for name, keys in self._keys.items():
                prompt, _, repeat = file.stem.removeprefix(f"{name}-").rpartition("-")
                if file.stem.startswith(f"{name}-") and _is_number(repeat):
                    key = _number(prompt) if keys else prompt
                    self._named.setdefault((name, key, int(repeat)), []).append(file)

    def find(self, prompts: PromptSet, drawn: Drawn) -> Candidates:
        """The files of one image. More than one is a problem: which of them is meant is not known."""
        prompt, repeat = drawn
        keys, problem = self._keys[prompts.name], None
        files = list(self._named.get((prompts.name, keys.get(prompt.id, prompt.id), repeat), ()))
        for place in (self._source, self._source / prompts.name):
            alone = bool(keys) and (place != self._source or len(self._keys) == 1)
            for folder in self._folders(place).get(_number(prompt.id), ()):
                text = self._text(folder)
                if folder.name == prompt.id or alone or text == prompt.text.strip():
                    here = self._numbered(folder / "samples", repeat) + self._numbered(folder, repeat)
                    if here and text not in (None, prompt.text.strip()):
                        problem = f"{folder.name}/{METADATA} holds another prompt: {text!r}"
                    files += here
        if len(files) > 1:
            names = " and ".join(sorted(str(file.relative_to(self._source)) for file in files))
            problem = f"the image {image_name(prompts, prompt, repeat)} is there more than once: {names}"
        return Candidates(tuple(files), problem)

    def expected(self) -> str:
        """How images are called, with an example."""
        first = self._suite.prompt_sets[0]
        example = image_name(first, first.prompts[0], 0)
        return f"they are called <prompt set>-<prompt id>-<repeat>, e.g. {example}.png"

    def _folders(self, place: Path) -> dict[int | str, list[Path]]:
        if place not in self._listed:
            self._listed[place] = _by_number(path for path in _entries(place) if path.is_dir())
        return self._listed[place]

    def _numbered(self, place: Path, repeat: int) -> list[Path]:
        """Pictures of a folder whose name is a number."""
        if place not in self._listed:
            self._listed[place] = _by_number(_pictures(place))
        return self._listed[place].get(repeat, [])

    def _text(self, folder: Path) -> str | None:
        """The prompt that GenEval's record of a folder holds; None where there is no such record."""
        if folder not in self._texts:
            try:
                record = json.loads((folder / METADATA).read_text(encoding="utf-8").strip())
            except (OSError, ValueError, RecursionError):
                record = None
            text = record.get("prompt") if isinstance(record, dict) else None
            self._texts[folder] = text.strip() if isinstance(text, str) else None
        return self._texts[folder]


def _keys(prompts: PromptSet) -> dict[str, int]:
    """Prompt ids as numbers; empty where one is none, or two are the same one: digits then cannot be added to them."""
    numbers = {prompt.id: int(prompt.id) for prompt in prompts.prompts if _is_number(prompt.id)}
    return numbers if len(set(numbers.values())) == len(prompts.prompts) else {}


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BenchError(f"{place} cannot be listed: {error.strerror}") from error


def _pictures(place: Path) -> list[Path]:
    return [path for path in _entries(place) if path.suffix.lower() in SUFFIXES and path.is_file()]


def _by_number(paths: Iterable[Path]) -> dict[int | str, list[Path]]:
    numbered: dict[int | str, list[Path]] = {}
    for path in paths:
        numbered.setdefault(_number(path.stem if path.suffix.lower() in SUFFIXES else path.name), []).append(path)
    return numbered


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int | str:
    return int(text) if _is_number(text) else text


def _images_of(suite: Suite) -> Iterator[tuple[PromptSet, Drawn]]:
    for prompts in suite.prompt_sets:
        for prompt in prompts.prompts:
            yield from ((prompts, (prompt, repeat)) for repeat in range(prompts.repeats))


def _identity(matches: Iterable[Match]) -> str:
    whole = hashlib.sha256()
    for prompts, drawn, candidates in matches:
        for file in candidates.files:
            try:
                content = hash_of(file)
            except OSError as error:
                content = error.strerror or type(error).__name__
            whole.update(f"{image_name(prompts, *drawn)}\0{content}\n".encode())
        if candidates.problem:
            whole.update(candidates.problem.encode())
    return whole.hexdigest()


def _take(suite: Suite, match: Match, folder: Path, sizes: Counter[str]) -> SampleLine:
    prompts, drawn, candidates = match
    name = image_name(prompts, *drawn)
    file = f"images/{name}.png"
    problem = candidates.problem or (None if candidates.files else f"the image {name} is not there")
    sha256 = None
    if problem is None:
        (source,) = candidates.files
        file = f"images/{name}{source.suffix.lower()}"
        try:
            with pictures.naming(source):
                data = pictures.load(source)
                (folder / file).write_bytes(data)
                sha256 = pictures.digest(data)
                picture = np.asarray(pictures.decode(data))
            sizes[f"{picture.shape[1]}x{picture.shape[0]}"] += 1
            problem = problem_of(picture)
        except FileNotFoundError:
            problem = f"the image {name} is not there"
        except pictures.BadPicture as error:
            problem = str(error)
    return sample_row(suite, prompts, drawn, file, None, problem, sha256)
