"""A corpus from what stands on the command line: a registered name, or a path whose layout is recognised."""

from __future__ import annotations

import inspect
from pathlib import Path
from urllib.parse import parse_qsl

from bench import registry
from bench.corpus import Corpus
from bench.errors import BenchError, one_line, shown, unknown
from data_curation.file_corpus import FileCorpus
from data_curation.paths import as_on_disk

LAYOUTS = ("hy_soar", "saved_dataset", "folder", "webdataset", "parquet")
"""Registered loaders in the order in which they are asked; the most particular ones come first."""


def open_corpus(name: str, cache: Path, resolution: int, aspect_buckets: bool = False) -> Corpus:
    """Open a corpus by registered name (world) or by path, and list what it holds; no picture is decoded.

    Args:
        name: a name, a path, or a path with settings of its loader after it: ``train.jsonl?caption=short&images=jpg``.
        cache: where listings and rendered worlds go.
        resolution: side of a square picture in pixels.
        aspect_buckets: bring pictures to aspect-ratio buckets of about resolution² pixels, where the corpus can.

    Raises:
        BenchError: nothing of that name, a layout that is not known, an unknown setting, or no pair listed.
    """
    if not name:
        raise BenchError("the corpus has no name; give a registered one or a path")
    if name in registry.table("corpora"):
        opened: Corpus = _named(name, cache)
        if opened.size(0) != (resolution, resolution):
            width, height = opened.size(0)
            raise BenchError(
                f"the corpus {name} has pictures of {width} x {height} px and {resolution} px are asked for; "
                "choose another corpus or resolution"
            )
        return opened
    try:
        path, settings = _split(name)
        there = path.exists()
    except (OSError, ValueError) as error:
        raise BenchError(f"the corpus {shown(name)} cannot be looked at ({one_line(str(error))})") from error
    if not there:
        raise unknown("corpus (or path)", str(path), registry.table("corpora"))
    loaders: list[type[FileCorpus]] = [registry.load("corpora", layout) for layout in LAYOUTS]
    loader = next((loader for loader in loaders if loader.accepts(path)), None)
    if loader is None:
        accepted = "; ".join(loader.layout for loader in loaders)
        raise BenchError(f"{path} is no corpus that can be read; accepted are: {accepted}")
    known = set(inspect.signature(loader).parameters) - {"path", "cache", "resolution", "aspect_buckets"}
    for key in settings:
        if key not in known:
            if not known:
                raise BenchError(f"{path} takes no settings after the path, and {key!r} was given")
            raise unknown("corpus setting", key, known)
    return loader(path, cache, resolution, aspect_buckets=aspect_buckets, **settings)


def _named(name: str, cache: Path) -> Corpus:
    loader = registry.load("corpora", name)
    if isinstance(loader, type) and issubclass(loader, FileCorpus):
        raise BenchError(f"{name} is a layout; give the path of {loader.layout}, and it is recognised")
    return loader(cache)  # type: ignore[no-any-return]


def _split(name: str) -> tuple[Path, dict[str, str]]:
    """A path and the settings after it: the longest path that is there, since a path may have question marks too."""
    cuts = [len(name), *(number for number in reversed(range(len(name))) if name[number] == "?")]
    for cut in cuts:
        path = _spelled(name[:cut])
        if name[:cut] and path.exists():
            settings = name[cut + 1 :].replace("+", "%2B")  # a plus is one, as in C++; only forms make it a space
            return path, dict(parse_qsl(settings, keep_blank_values=True))
    return Path(name.partition("?")[0]), {}


def _spelled(name: str) -> Path:
    path = Path(name)
    return as_on_disk(Path(path.anchor), str(path.relative_to(path.anchor)))
