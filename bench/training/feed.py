"""Which rows of the training data a step takes, and reading them while the step before trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.batches import Part, cut, deal
from bench.machine.engine import Engine
from bench.machine.transfer import pinned
from bench.rng import numpy_generator
from bench.training.data import TrainingData
from bench.training.needs import Needs
from bench.training.prefetch import Prefetch


@dataclass(frozen=True)
class Portion:
    """A micro-batch that is about to be read.

    Attributes:
        part: its rows of the step's global batch.
        index: (N,) positions in the data.
        read: latents and conditions, ready to be sent; reading those of the next portion starts meanwhile.
    """

    part: Part
    index: Tensor
    read: Callable[[], tuple[Tensor, TextCondition]]


class Feed:
    """One process's reading of training data, in shuffled epochs of each stream.

    Args:
        seed: of the job; every process shuffles alike.
        engine: this process's: its number, how many share a batch, and the device of the thread that reads ahead.

    Attributes:
        data: what may be read at present.
        cursors: rows that each stream has read so far, over all epochs.
    """

    def __init__(self, data: TrainingData, seed: int, engine: Engine) -> None:
        self.data, self._all = data, data
        self.cursors = {"pairs": 0, "prompts": 0, "preferences": 0}
        self._seed, self._rank, self._world_size = seed, engine.rank, engine.world_size
        self._engine = engine
        self._order: tuple[str, int, Tensor] | None = None
        self._prefetch = Prefetch(self._read, engine.thread("prefetch"))

    @property
    def waited(self) -> float:
        """Seconds that reading has kept the job waiting."""
        return self._prefetch.waited

    def grant(self, needs: Needs) -> None:
        """Give just what a method declared."""
        self.data = self._all.only_what(needs)

    def advance(self, stream: str, count: int, size: int) -> tuple[Tensor, Tensor]:
        """The stream's next ``count`` rows of ``size``, the same on every process, and as many that come after them."""
        start = self.cursors[stream]
        self.cursors[stream] += count
        return self._take(stream, start, count, size), self._take(stream, start + count, count, size)

    def portions(self, stream: str, count: int, size: int) -> list[Portion]:
        """This process's micro-batches of the next ``count`` pairs or preferences, of at most ``size`` rows."""
        preferences = self.data.preferences
        if stream == "preferences" and preferences:
            data, places = preferences.pictures, preferences.pairs
        else:
            data, places = self.data, torch.arange(len(self.data))
        now, following = self.advance(stream, count, len(places))
        mine, after = (
            deal(cut(data.shapes[places[index].reshape(len(index), -1)[:, 0]], size), self._rank, self._world_size)
            for index in (now, following)
        )
        chosen = [now[part.rows] for part in mine]
        keys = [(stream, *places[index].flatten().tolist()) for index in [*chosen, following[after[0].rows]]]
        return [
            Portion(part, index, partial(self._prefetch.get, key, coming))
            for part, index, (key, coming) in zip(mine, chosen, pairwise(keys), strict=True)
        ]

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._prefetch.close()

    def _take(self, stream: str, start: int, count: int, size: int) -> Tensor:
        parts, position = [], start
        while position < start + count:
            epoch, offset = divmod(position, size)
            if self._order is None or self._order[:2] != (stream, epoch):
                order = numpy_generator(self._seed, epoch, 0, f"{stream}-order").permutation(size)
                self._order = (stream, epoch, torch.from_numpy(order))
            part = self._order[2][offset : offset + start + count - position]
            parts.append(part)
            position += len(part)
        return torch.cat(parts)

    def _read(self, key: tuple[str, *tuple[int, ...]]) -> tuple[Tensor, TextCondition]:
        stream, *places = key
        index, preferences = torch.tensor(places), self.data.preferences
        data = preferences.pictures if stream == "preferences" and preferences else self.data
        captions = index[::2] if stream == "preferences" else index  # one for both pictures
        assert data.latents is not None
        latents = pinned(data.latents[index], self._engine.device)
        return latents, data.text[data.text_of[captions]].for_transformer(self._engine)
