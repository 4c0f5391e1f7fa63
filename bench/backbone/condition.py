"""A prompt as the transformer sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.machine.transfer import beside, pinned, sent

if TYPE_CHECKING:
    from bench.machine.engine import Engine


@dataclass
class TextCondition:
    """What a prompt is to the transformer: prompt_embeds (N, tokens, width) and pooled_prompt_embeds (N, width)."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, index: Any) -> TextCondition:
        """Rows; an index may be on the host."""
        if isinstance(index, Tensor):
            index = beside(index, self.prompt_embeds)
        return TextCondition(self.prompt_embeds[index], self.pooled_prompt_embeds[index])

    def to(self, device: torch.device) -> TextCondition:
        """The same on a device."""
        return TextCondition(sent(self.prompt_embeds, device), sent(self.pooled_prompt_embeds, device))

    def for_transformer(self, engine: Engine) -> TextCondition:
        """The same as the transformer takes it, still on the host: in the engine's precision and ready to be sent.

        Autocast would round ``prompt_embeds`` to that precision in every forward, and they are a row's largest part by
        far. The pooled ones, which meet the timestep first, stay float32.
        """
        rounded = self.prompt_embeds.to(engine.dtype)
        return TextCondition(pinned(rounded, engine.device), pinned(self.pooled_prompt_embeds, engine.device))

    def expand(self, count: int) -> TextCondition:
        """One prompt as a batch of ``count`` without copying."""
        return TextCondition(self.prompt_embeds.expand(count, -1, -1), self.pooled_prompt_embeds.expand(count, -1))

    @staticmethod
    def cat(parts: Sequence[TextCondition]) -> TextCondition:
        return TextCondition(
            torch.cat([p.prompt_embeds for p in parts]), torch.cat([p.pooled_prompt_embeds for p in parts])
        )
