"""Operators that a GPU does in one kernel where diffusers writes them out, one kernel for each sign of the formula."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


def fuse(model: torch.nn.Module) -> None:
    """Let the norms of queries and keys be one operator each: values are the same but for float32's rounding.

    diffusers' RMS norm is eight operators, and there are up to 6 of them in a block of SD3.5. torch's is one. The
    modules stay, with their names and weights.
    """
    from diffusers.models.normalization import RMSNorm

    for module in model.modules():
        if type(module) is RMSNorm and module.weight is not None and module.bias is None:
            module.__class__ = _fused_rms_norm()


@cache
def _fused_rms_norm() -> type[Any]:
    from diffusers.models.normalization import RMSNorm

    class FusedRMSNorm(RMSNorm):  # type: ignore[misc]  # diffusers has no types
        """``x / sqrt(mean(x²) + eps) * weight`` in float32."""

        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            # CUDA's autocast computes it in float32 whatever it is given; so do these casts, on every device.
            shape = list(self.dim)
            return torch.nn.functional.rms_norm(hidden_states.float(), shape, self.weight.float(), self.eps)

    return FusedRMSNorm
