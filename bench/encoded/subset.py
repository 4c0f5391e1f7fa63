"""Latents and text embeddings of a subset, computed once and kept: never per step, and the same for every method."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone, at_once
from bench.corpus import BadPair, Corpus, Manifest
from bench.encoded.ahead import AheadText
from bench.encoded.encode import TEXT_BATCH, encode_pictures, encode_texts
from bench.encoded.store import Rows, Shard, Store, gigabytes
from bench.errors import BenchError
from bench.machine.crew import ALONE, Crew
from bench.prompt import Prompt
from bench.training.data import TrainingData
from bench.training.prefetch import Prefetch

READERS = min(8, os.cpu_count() or 1)
"""Threads that decode the pictures of the next batch while one is encoded."""

TEXT_PARTS = ("prompt_embeds", "pooled_prompt_embeds")


class StoredLatents:
    """Latents by pair, read from a cache."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor, /) -> Tensor:
        return self._rows.read("latents", index)


class StoredText:
    """Conditions by caption, read from a cache."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor, /) -> TextCondition:
        return TextCondition(*(self._rows.read(part, index) for part in TEXT_PARTS))


def training_data(
    backbone: Backbone,
    corpus: Corpus,
    manifest: Manifest,
    cache: Path,
    *,
    text_limit: float,
    crew: Crew = ALONE,
) -> TrainingData:
    """Latents and conditions of a subset's pairs. What no earlier run has encoded is encoded now, shared by the crew.

    Args:
        cache: rows lie in ``cache/encoded/<backbone>/``, in ``latents-<C>x<H>x<W>`` by the keys of pairs and in
            ``text-<T5 tokens>-<computed in>-<stored in>`` by the SHA-256 of captions.
        text_limit: bytes that each such text folder may come to; captions that would exceed it are encoded ahead.
        crew: who shares the work. Its ``tick`` hears of the pairs whose latents are ready, and the numbers add up to
            ``manifest.count``; process 0 says in one line how text is kept, and why.

    Raises:
        BenchError: a shard is damaged or another backbone's, or a picture is not what the subset was cut from.
        DiskFull: the cache does not fit.
    """
    work = _Work(backbone, cache / "encoded" / backbone.fingerprint[:16], crew)
    shapes = [backbone.latent_shape_of(width, height) for width, height in manifest.sizes]
    latents = _latents(work, corpus, manifest, shapes)
    captions = [corpus.caption(i) for i in manifest.indices]
    texts = sorted(set(captions))
    row = {text: i for i, text in enumerate(texts)}
    text = _text(work, texts, text_limit)
    return TrainingData(
        latents=latents,
        shapes=torch.tensor(shapes),
        text=text,
        ahead=text if isinstance(text, AheadText) else None,
        prompts=tuple(Prompt(str(i), text) for i, text in enumerate(texts)),
        text_of=torch.tensor([row[caption] for caption in captions]),
    )


@dataclass(frozen=True)
class _Work:
    """Who encodes, into which folder, and with whom."""

    backbone: Backbone
    folder: Path
    crew: Crew

    def store(self, name: str) -> Store:
        return Store(self.folder / name, {"backbone": self.backbone.fingerprint, "kind": name})


@dataclass
class _Group:
    """The pairs of one latent shape, as positions in the subset."""

    store: Store
    pairs: list[int] = field(default_factory=list)


def _latents(work: _Work, corpus: Corpus, manifest: Manifest, shapes: Sequence[tuple[int, int, int]]) -> StoredLatents:
    """Latents stay in float32. They are the targets of training, and bfloat16 would move each by up to 1/256 of its
    value, the same way in every epoch; at 262 kB for 512 px they are a tenth of a caption's embeddings in bfloat16."""
    groups: dict[tuple[int, int, int], _Group] = {}
    for pair, shape in enumerate(shapes):
        if shape not in groups:
            groups[shape] = _Group(work.store("latents-" + "x".join(map(str, shape))))
        groups[shape].pairs.append(pair)
    work.crew.barrier()  # every rank has seen the same folders before one adds to them
    ready = 0
    with ExitStack() as vae:
        for shape, group in groups.items():
            keys = [manifest.keys[pair] for pair in group.pairs]
            missing = group.store.missing(keys)
            work.crew.tick(len(keys) - len(missing))
            ready += len(keys) - len(missing)
            if not missing:
                continue
            vae.enter_context(work.backbone.vae_loaded())  # the second time and later, this only counts
            width, height = manifest.sizes[group.pairs[0]]
            with _Pictures(work.backbone, corpus, manifest, group.pairs) as pictures:
                ready += group.store.fill(
                    keys,
                    pictures.encode,
                    row_bytes=4 * math.prod(shape),
                    batch=at_once(height, width),
                    crew=work.crew,
                )
    work.crew.barrier()
    places: dict[int, tuple[Shard, int]] = {}
    for group in groups.values():
        group.store.open()
        places |= zip(group.pairs, group.store.places([manifest.keys[p] for p in group.pairs]), strict=True)
    work.crew.tick(len(shapes) - ready)  # what the other ranks encoded
    return StoredLatents(Rows([places[pair] for pair in range(len(shapes))]))


class _Pictures:
    """Batches of a subset's pictures. The next batch is read ahead, and each is checked against the subset's keys."""

    def __init__(self, backbone: Backbone, corpus: Corpus, manifest: Manifest, pairs: Sequence[int]) -> None:
        self._backbone, self._corpus, self._manifest, self._pairs = backbone, corpus, manifest, pairs
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="picture")
        self._batches = Prefetch(self._read)

    def __enter__(self) -> _Pictures:
        return self

    def __exit__(self, *error: object) -> None:
        self._batches.close()
        self._readers.shutdown(cancel_futures=True)

    def encode(self, now: tuple[int, ...], then: tuple[int, ...] | None) -> dict[str, Tensor]:
        """Latents of the pairs at the positions ``now``, while those at ``then`` are read."""
        return {"latents": encode_pictures(self._backbone, self._batches.get(now, then))}

    def _read(self, positions: tuple[int, ...]) -> np.ndarray:
        return np.stack(list(self._readers.map(self._picture, positions)))

    def _picture(self, position: int) -> np.ndarray:
        pair = self._pairs[position]
        index = self._manifest.indices[pair]
        name = f"pair {index} of {self._corpus.name}"
        again = f"put the picture back, or delete the folders scans, scores and cuts of {self._corpus.fingerprint[:16]}"
        try:
            image, key = self._corpus.read(index)
        except BadPair as problem:
            raise BenchError(f"{name} could be read when it was scanned and cannot now ({problem}); {again}") from None
        if key != self._manifest.keys[pair]:
            raise BenchError(f"{name} is not the one that was scanned; {again}")
        return image


def _text(work: _Work, texts: Sequence[str], limit: float) -> StoredText | AheadText:
    """Conditions from the cache if what it lacks fits the limit, otherwise encoded ahead."""
    backbone, say = work.backbone, work.crew.say if work.crew.is_main else ALONE.say
    tokens = backbone.spec.max_sequence_length
    # float32 costs nothing where all is tiny. Elsewhere bfloat16, in which GPUs encode, halves the 5 MB of a caption.
    dtype = torch.float32 if backbone.spec.scale == "embedded" else torch.bfloat16
    computed, stored = (str(kind).removeprefix("torch.") for kind in (backbone.engine.dtype, dtype))
    store = work.store(f"text-{tokens}-{computed}-{stored}")
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    missing = store.missing(keys)
    work.crew.barrier()  # every rank has seen the same folder, and decides alike
    with ExitStack() as encoders:
        if store.shards:
            row_bytes = store.shards[0].row_bytes
        else:  # only the encoders know how many tokens they give
            encoders.enter_context(backbone.text_encoders())
            row_bytes = _bytes(encode_texts(backbone, texts[:1], dtype))
        total = gigabytes((len(store) + len(missing)) * row_bytes)
        fits = not missing or (len(store) + len(missing)) * row_bytes <= limit
        if not missing:
            say(f"text: the cache ({total}) has the embeddings of all {len(texts):,} captions")
        elif fits:
            say(
                f"text: {len(texts):,} captions are cached; the cache comes to {total}, its limit is {gigabytes(limit)}"
            )
            encoders.enter_context(backbone.text_encoders())
            store.fill(
                keys,
                lambda now, then: _parts(encode_texts(backbone, [texts[i] for i in now], dtype)),
                row_bytes=row_bytes,
                batch=TEXT_BATCH,
                crew=replace(work.crew, tick=ALONE.tick),  # it hears of pairs, and these are captions
            )
        else:
            say(
                f"text: {len(texts):,} captions are encoded ahead on a worker; cached, they would bring the cache to "
                f"{total}, and its limit is {gigabytes(limit)}"
            )
    work.crew.barrier()
    if not fits:
        return AheadText(backbone, texts, dtype)
    store.open()
    return StoredText(Rows(store.places(keys)))


def _parts(condition: TextCondition) -> dict[str, Tensor]:
    return {part: getattr(condition, part) for part in TEXT_PARTS}


def _bytes(condition: TextCondition) -> int:
    return sum(rows.nbytes for rows in _parts(condition).values()) // len(condition)
