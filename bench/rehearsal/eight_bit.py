"""AdamW with states in 8 bits, as far as memory goes: bitsandbytes' kernels take addresses, which fake tensors lack."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

BLOCK, SMALLEST = 256, 4096
"""Values that share a scale, and parameters below which states stay float32 (bitsandbytes 0.4x:
``Optimizer2State``, ``min_8bit_size`` and ``blockwise``)."""


class AdamW8bit(torch.optim.Optimizer):
    """Holds what bitsandbytes' does. Its step takes no memory beside it."""

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, **settings: Any) -> None:
        super().__init__(parameters, {"lr": lr, **settings})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, own = self.state[parameter], getattr(parameter, "_local_tensor", parameter)
                if not state:
                    small = own.numel() < SMALLEST
                    for name in ("state1", "state2"):
                        state[name] = torch.zeros_like(own, dtype=torch.float32 if small else torch.uint8)
                        if not small:
                            scales = -(-own.numel() // BLOCK)
                            state[f"absmax{name[-1]}"] = torch.zeros(scales, device=own.device)
                own.mul_(1.0)  # one kernel, in place


def install() -> None:
    """Let ``bitsandbytes.optim`` be this, in a process that rehearses."""
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available

    is_bnb_available(), is_bnb_4bit_available()  # PEFT looks once, and is not to find this
    package, module = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    vars(module)["AdamW8bit"] = AdamW8bit
    vars(package)["optim"] = module
    sys.modules.update({"bitsandbytes": package, "bitsandbytes.optim": module})
