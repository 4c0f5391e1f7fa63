"""Training data as a job sees it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.prompt import Prompt
from bench.training.needs import Needs


class Latents(Protocol):
    """Latents by pair; a tensor (pairs, C, H, W) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Float32 (N, C, H, W) of the pairs ``index`` (N,), all of one shape."""


class Text(Protocol):
    """Conditions by caption; a TextCondition is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> TextCondition:
        """Float32 conditions of the captions ``index`` (N,)."""


class Ahead(Protocol):
    """What encodes captions on a worker shortly before they are needed."""

    def announce(self, rows: Tensor) -> None:
        """Start on the captions ``rows`` (N,), which will be asked for."""

    def close(self) -> None:
        """Free the text encoders."""


@dataclass(frozen=True)
class TrainingData:
    """What every method of an experiment shares: cached latents, captions and their conditions.

    A method is given just what it declared: no latents without ``pairs``, no prompts without ``prompts``, no
    preferences without ``preference_pairs``.

    Attributes:
        latents: by pair, in the order of the subset.
        shapes: (pairs, 3): (C, H, W) of each pair's latents.
        text: by caption; every caption of the subset once.
        prompts: the captions.
        text_of: (pairs,) row of ``text`` and ``prompts`` that belongs to each pair.
        preferences: pairs of pictures of which one is preferred.
        ahead: what encodes ``text``, where the embeddings of all captions do not fit the cache.
    """

    latents: Latents | None
    shapes: Tensor
    text: Text
    prompts: tuple[Prompt, ...]
    text_of: Tensor
    preferences: Preferences | None = None
    ahead: Ahead | None = None

    def __len__(self) -> int:
        return len(self.text_of)

    def only_what(self, needs: Needs) -> TrainingData:
        """Just what a method said it needs."""
        return replace(
            self,
            latents=self.latents if needs.pairs else None,
            prompts=self.prompts if needs.prompts else (),
            preferences=self.preferences if needs.preference_pairs else None,
        )

    def close(self) -> None:
        """Free the text encoders, if captions are encoded ahead; not those of ``preferences``, which subsets share."""
        if self.ahead is not None:
            self.ahead.close()


@dataclass(frozen=True)
class Preferences:
    """Offline preference data.

    Attributes:
        pictures: all of them, encoded, with their captions' conditions.
        pairs: (P, 2) positions in ``pictures``: the preferred picture, and the other of the same caption and shape.
        record: what ``job.json`` holds of it.
    """

    pictures: TrainingData
    pairs: Tensor
    record: dict[str, Any] = field(default_factory=dict)
