"""Data of the sample browser: every final picture with its scores, and contact sheets in a folder beside the page.

A contact sheet holds the pictures of one evaluation, edge to edge, so that thousands of pictures make few files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from bench.records import pictures
from bench.report.page.payload import jobs_of, rounded
from bench.report.study import Evaluation, Sample, StudiedJob, Study
from bench.report.tables import Section

FOLDER = "pictures"
SIDE = 2048
"""Most pixels along a side of a sheet; a browser decodes one of that size in some 50 ms. Ours."""

Key = tuple[str, str, int]


@dataclass
class Browser:
    """``data`` goes into the page; ``sheets`` are files beside it, by name.

    What many evaluations share is held once: ``columns`` are lists of items that have a score, ``words`` what metrics
    saw in pictures. Each is numbered in the order in which it was met. ``graded`` are metrics with other scores than
    0 and 1.
    """

    data: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, bytes] = field(default_factory=dict)
    columns: dict[tuple[int, ...], int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    graded: set[str] = field(default_factory=set)


def final_images(study: Study) -> dict[Path, str | None]:
    """Files of the pictures that the browser shows of every row, with their hashes: those of each last evaluation."""
    return {
        sample.image: sample.sha256
        for job in _all(study)
        for evaluation in job.evaluations
        if evaluation.fraction in (0.0, study.fractions[-1])
        for sample in evaluation.samples
        if sample.image
    }


def browser(study: Study, sections: Sequence[Section], shown: Collection[Path]) -> Browser:
    """The browser of a study.

    Args:
        shown: pictures that are kept of checkpoints before the last one.
    """
    items = _items(study)
    numbers = {key: number for number, key in enumerate(items)}
    names = {key[:2]: sample for key, sample in items.items()}
    prompts = {key: number for number, key in enumerate(names)}
    made = Browser()
    seen: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for section in sections:
        for row in section.rows:
            jobs, _ = jobs_of(study, row)
            for job in jobs:
                if job.name not in seen:
                    seen[job.name] = [_evaluation(study, job, e, numbers, shown, made) for e in job.evaluations]
            rows.append({"subset": section.subset, "name": row.method, "jobs": [job.name for job in jobs]})
    made.data = {
        "prompts": [[*key, sample.prompt, sample.group] for key, sample in names.items()],
        "items": [[prompts[key[:2]], key[2]] for key in items],
        "rows": rows,
        "columns": [*made.columns],
        "words": [*made.words],
        "binary": [metric.name for metric in study.metrics if metric.name not in made.graded],
        "jobs": {job.name: {"seed": job.seed, "at": seen[job.name]} for job in _all(study) if job.name in seen},
        "folder": FOLDER,
        "side": SIDE,
    }
    return made


def _all(study: Study) -> Iterator[StudiedJob]:
    yield from (*study.untrained, *study.jobs)


def _items(study: Study) -> dict[Key, Sample]:
    """Every prompt with every noise, by prompt set, and a sample of it."""
    found = {_key(s): s for job in _all(study) for evaluation in job.evaluations for s in evaluation.samples}
    sets = {key[0]: number for number, key in reversed([*enumerate(found)])}
    return {key: found[key] for key in sorted(found, key=lambda key: (sets[key[0]], key[1], key[2]))}


def _key(sample: Sample) -> Key:
    return sample.prompt_set, sample.prompt_id, sample.repeat


def _evaluation(
    study: Study, job: StudiedJob, made: Evaluation, numbers: dict[Key, int], shown: Collection[Path], into: Browser
) -> dict[str, Any]:
    """Scores of an evaluation and where its pictures lie; before the last checkpoint only of pictures that are kept."""
    last = made.fraction in (0.0, study.fractions[-1])
    samples = [s for s in made.samples if last or s.image in shown]
    items = [(numbers[_key(s)], s) for s in samples]
    scores = {metric.name: column for metric in study.metrics if (column := _column(items, metric.name, into))}
    tiles = [(numbers[_key(s)], picture) for s in _kept(samples) if (picture := _picture(s))]
    name = f"{job.name}-{100 * made.fraction:g}"
    return {"fraction": made.fraction, "scores": scores, **_sheets(name, tiles, into)}


def _column(samples: Sequence[tuple[int, Sample]], metric: str, into: Browser) -> dict[str, Any]:
    """Scores of one metric, of which items they are, and what the metric saw there; empty where it has no score."""
    held = [
        (number, score.score, score.seen)
        for number, sample in samples
        if (score := sample.scores.get(metric)) and score.score is not None
    ]
    if not held:
        return {}
    if any(score not in (0, 1) for _, score, _ in held):
        into.graded.add(metric)
    of = into.columns.setdefault(tuple(number for number, _, _ in held), len(into.columns))
    column = {"of": of, "is": [rounded(score, 4) for _, score, _ in held]}
    if any(seen is not None for _, _, seen in held):
        saw = [None if seen is None else into.words.setdefault(seen, len(into.words)) for _, _, seen in held]
        return column | {"saw": saw}
    return column


def _kept(samples: Sequence[Sample]) -> list[Sample]:
    """The samples whose picture or its copy is there: one look into each folder, not one for each picture."""
    named = [(sample, *sample.file.rpartition("/")[::2]) for sample in samples if sample.file]
    folders = {(sample.folder, below) for sample, below, _ in named}
    there = {key: {path.name for path in key[0].joinpath(key[1]).glob("*")} for key in folders}
    return [s for s, below, name in named if there[s.folder, below] & {name, name + pictures.COPY}]


def _picture(sample: Sample) -> Image.Image | None:
    """A sample's picture, if it is there, whole, and the one that was recorded."""
    try:
        return pictures.scaled(pictures.read_kept(sample.image, sample.sha256)) if sample.image else None
    except (FileNotFoundError, pictures.BadPicture):
        return None


def _sheets(name: str, tiles: Sequence[tuple[int, Image.Image]], into: Browser) -> dict[str, Any]:
    if not tiles:
        return {"pictures": []}
    size = max(max(picture.size) for _, picture in tiles)
    across = SIDE // size
    each = across * across
    names = []
    for start in range(0, len(tiles), each):
        part = [picture for _, picture in tiles[start : start + each]]
        sheet = Image.new("RGB", (min(across, len(part)) * size, -(-len(part) // across) * size), "white")
        for place, picture in enumerate(part):
            sheet.paste(picture, (place % across * size, place // across * size))
        names.append(f"{name}-{start // each}.webp")
        into.sheets[f"{FOLDER}/{names[-1]}"] = pictures.webp(sheet, size, quickly=True)
    return {"pictures": [number for number, _ in tiles], "size": size, "sheets": names}
