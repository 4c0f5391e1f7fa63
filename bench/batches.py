"""Batches, and how their rows are cut into micro-batches and dealt to processes.

Rows are positions in a step's global batch. Of rows that any process can hold, cutting comes first and dealing second,
so that what is computed depends on the size of micro-batches alone, and not on how many processes there are. Rows that
lie on a process already are cut there; the sum over them is the same up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.prompt import Prompt

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pairs:
    """A micro-batch of training pairs, all of one latent shape.

    Attributes:
        latents: clean latents (N, C, H, W), float32.
        text: their captions' conditions.
        indices: (N,) positions in the subset.
        rows: (N,) positions in the step's global batch. Noise is drawn per row, so it depends neither on the number of
            processes nor on the size of micro-batches.
    """

    latents: Tensor
    text: TextCondition
    indices: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def latent_shape(self) -> Shape:
        """(C, H, W)."""
        return tuple(self.latents.shape[1:])


@dataclass(frozen=True)
class PreferencePairs:
    """A micro-batch of preference pairs, two pictures of one prompt each, all of one latent shape.

    Attributes:
        winners, losers: clean latents (N, C, H, W) of the preferred and the other picture, float32.
        text: their prompts' conditions (N).
        indices, rows: (N,), as in ``Pairs``.
    """

    winners: Tensor
    losers: Tensor
    text: TextCondition
    indices: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def latent_shape(self) -> Shape:
        """(C, H, W)."""
        return tuple(self.winners.shape[1:])


@dataclass(frozen=True)
class PromptBatch:
    """This process's share of the training prompts of a step, each ``repeat`` times in a row.

    Attributes:
        distinct: conditions of the different prompts. Text is large, so a row's is looked up when it is asked for.
        of: (N,) row of ``distinct`` for each row.
        prompts: the prompts themselves, for rewards.
        rows: (N,) positions in the step's global batch, as in ``Pairs``.
        shares: (first, end) row of each process.
        latent_shape: (C, H, W) of the images to sample.
    """

    distinct: TextCondition
    of: Tensor
    prompts: tuple[Prompt, ...]
    rows: Tensor
    shares: tuple[tuple[int, int], ...]
    latent_shape: Shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> PromptBatch:
        chosen = tuple(self.prompts[i] for i in index.tolist())
        return PromptBatch(self.distinct, self.of[index], chosen, self.rows[index], self.shares, self.latent_shape)

    @property
    def text(self) -> TextCondition:
        """Conditions of the rows (N)."""
        return self.distinct[self.of]


@dataclass(frozen=True)
class Part:
    """Rows of one micro-batch. ``padding``: another process has one more, and this one keeps it company for nothing."""

    rows: Tensor
    padding: bool = False


Rows = Pairs | PreferencePairs | PromptBatch
"""Whatever has rows to draw for."""


def cut(shapes: Tensor, size: int) -> list[Tensor]:
    """Rows in micro-batches of at most ``size``, each of one latent shape.

    Args:
        shapes: (rows, 3) latent shape of each row.
    """
    _, kind = shapes.unique(dim=0, return_inverse=True)
    return [rows for one in kind.unique() for rows in torch.nonzero(kind == one).flatten().split(size)]


def deal(parts: list[Tensor], rank: int, world_size: int) -> list[Part]:
    """The micro-batches of a process: every ``world_size``-th, and as many on each, or some would wait for ever."""
    turns = range(rank, -(-len(parts) // world_size) * world_size, world_size)
    return [Part(parts[i]) if i < len(parts) else Part(parts[0], padding=True) for i in turns]


def deal_shares(rows: Tensor, shares: tuple[tuple[int, int], ...], size: int, rank: int) -> list[Part]:
    """The micro-batches of a process that holds the rows of its share, as positions in the share.

    Neighbours go together, and all micro-batches of a share but the last are full, whichever rows are visited.

    Args:
        rows: global rows to visit, each once, the same on every process.
        shares: (first, end) row of each process.
        size: rows of a micro-batch at most.
    """
    dealt = []
    for first, end in shares:
        own = rows[(rows >= first) & (rows < end)] - first
        dealt.append([own[part.sort().values] for part in own.argsort().split(size)] if len(own) else [])
    most = max(map(len, dealt))
    missing = most - len(dealt[rank])
    return [Part(part) for part in dealt[rank]] + [Part(torch.zeros(1, dtype=torch.long), padding=True)] * missing
