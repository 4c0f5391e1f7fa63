"""Preference data: a corpus whose rows say, in two tags, which pair they belong to and whether they were preferred.

Any layout that keeps tags will do: a folder with ``metadata.jsonl`` of lines
``{"file_name": "a.jpg", "text": "a red cat", "pair": "17", "preferred": "1"}``, a parquet file with those columns, …
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from bench.corpus import BadPair, Corpus, Manifest
from bench.errors import BenchError, some
from data_curation.tables import TAG_LENGTH

PREFERRED = {"true": True, "false": False}
"""Words for whether a picture was preferred; the numbers 1 and 0 say the same, written in any way."""


def pair_up(corpus: Corpus, manifest: Manifest, say: Callable[[str], None] = lambda line: None) -> Tensor:
    """(P, 2) positions in ``manifest``: the preferred picture of each pair, and the other one.

    A picture may stand in several pairs. Pairs of which a picture cannot be read, and ties (both or none preferred, or
    the same picture twice), are left out and counted to ``say``.

    Raises:
        BenchError: a row without the tags, a pair of more than two pictures or of two captions, or no pair at all.
    """
    rows: dict[str, list[tuple[bool, int]]] = defaultdict(list)
    for index, position in _positions(corpus, manifest):
        tags = corpus.tags(index)
        preferred = _preferred(tags.get("preferred", ""))
        if "pair" not in tags or preferred is None:
            raise BenchError(f"{corpus.label(index)} of {corpus.name} is not half of a preference pair: {_lacks(tags)}")
        rows[tags["pair"]].append((preferred, position))
    pairs, torn, ties = [], 0, 0
    for name, halves in rows.items():
        captions = {corpus.caption(manifest.indices[position]) for _, position in halves}
        if len(captions) > 1:
            one, other, *_ = sorted(captions)
            raise BenchError(f"preference pair {name} of {corpus.name} is of different prompts: {one!r} and {other!r}")
        if len(halves) > 2:
            raise BenchError(f"preference pair {name} of {corpus.name} has {len(halves)} pictures; a pair has two")
        if len(halves) < 2:
            torn += 1
        elif halves[0][0] == halves[1][0] or halves[0][1] == halves[1][1]:
            ties += 1
        else:
            pairs.append([position for _, position in sorted(halves, reverse=True)])
    if torn or ties:
        say(f"{corpus.name}: {torn} pairs lack a picture and {ties} are ties; {len(pairs)} are left")
    if not pairs:
        raise BenchError(f"{corpus.name} holds no preference pair")
    return torch.tensor(pairs)


def _preferred(text: str) -> bool | None:
    """What the tag says: 1, 1.0, True, …; None for anything else."""
    word = text.strip().lower()
    if word in PREFERRED:
        return PREFERRED[word]
    try:
        return {1.0: True, 0.0: False}.get(float(word))
    except ValueError:
        return None


def _lacks(tags: Mapping[str, str]) -> str:
    if {"pair", "preferred"} <= set(tags):
        return f"its `preferred` is {tags['preferred']!r}, and must be 1 or 0, or true or false"
    return (
        f"it needs the columns `pair` (the same in both pictures, at most {TAG_LENGTH} characters) and `preferred` "
        f"(1 or 0, or true or false), and has {some(tags) or 'none'}"
    )


def _positions(corpus: Corpus, manifest: Manifest) -> Iterator[tuple[int, int]]:
    """Every usable row of the corpus with its position in the manifest, which holds equal pictures once."""
    listed = {index: position for position, index in enumerate(manifest.indices)}
    positions = {key: position for position, key in enumerate(manifest.keys)}
    for index in range(len(corpus)):
        position = listed.get(index)
        if position is None:
            try:
                position = positions.get(corpus.key(index))
            except BadPair:
                continue
        if position is not None:
            yield index, position
