"""A prompt as the transformer sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class TextCondition:
    """What a prompt is to the transformer: prompt_embeds (N, tokens, width) and pooled_prompt_embeds (N, width)."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, index: Any) -> TextCondition:
        return TextCondition(self.prompt_embeds[index], self.pooled_prompt_embeds[index])

    def to(self, device: torch.device) -> TextCondition:
        """The same on a device."""
        return TextCondition(self.prompt_embeds.to(device), self.pooled_prompt_embeds.to(device))

    def expand(self, count: int) -> TextCondition:
        """One prompt as a batch of ``count`` without copying."""
        return TextCondition(self.prompt_embeds.expand(count, -1, -1), self.pooled_prompt_embeds.expand(count, -1))

    @staticmethod
    def cat(parts: Sequence[TextCondition]) -> TextCondition:
        return TextCondition(
            torch.cat([p.prompt_embeds for p in parts]), torch.cat([p.pooled_prompt_embeds for p in parts])
        )
