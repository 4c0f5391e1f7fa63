"""Captions encoded shortly before they are needed, for a corpus whose embeddings do not fit the cache."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.encoded.encode import encode_texts

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone


class AheadText:
    """Conditions by row, like a TextCondition, encoded on a thread; the text encoders stay loaded until ``close``.

    Args:
        texts: caption of each row.
        dtype: conditions are rounded to it, as a cache stores them, so that both give the same bits.
        batches: announced batches held at most. An older one is dropped, and encoded again if it is asked for.
    """

    def __init__(self, backbone: Backbone, texts: Sequence[str], dtype: torch.dtype, *, batches: int = 4) -> None:
        self._backbone, self._texts, self._dtype, self._batches = backbone, texts, dtype, batches
        self._worker = backbone.engine.thread("text-ahead")
        self._encoders = ExitStack()  # entered here and not by the worker: two threads cannot load models at once
        self._encoders.enter_context(backbone.text_encoders())
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, ...], Future[TextCondition]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._texts)

    def announce(self, rows: Tensor) -> None:
        """Start on a batch of rows (N,) that will be asked for."""
        self._ask(rows)

    def __getitem__(self, rows: Tensor) -> TextCondition:
        """Float32 conditions of rows (N,). Waits for them; an error of the encoders is raised here."""
        return self._ask(rows).result()

    def _ask(self, rows: Tensor) -> Future[TextCondition]:
        key = tuple(rows.tolist())
        with self._lock:
            future = self._held.pop(key, None)
            if future is None or (future.done() and future.exception() is not None):
                future = self._worker.submit(self._encode, key)
            self._held[key] = future
            while len(self._held) > self._batches:
                self._held.popitem(last=False)
        return future

    def _encode(self, rows: tuple[int, ...]) -> TextCondition:
        stored = encode_texts(self._backbone, [self._texts[row] for row in rows], self._dtype)
        return TextCondition(stored.prompt_embeds.float(), stored.pooled_prompt_embeds.float())

    def close(self) -> None:
        """Free the encoders and end the thread."""
        self._worker.shutdown(cancel_futures=True)
        self._encoders.close()
        self._held.clear()
