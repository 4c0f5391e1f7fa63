"""Numbers on their way to a device, so that the host does not wait: neither for the copy nor for what the device does.

From page-locked memory a copy runs while the host goes on. From other memory the driver first takes the values to such
memory, which is quick for indices. A copy to the host always waits, and is not done here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device. ``values`` may be on any; if they are there already, they are not copied."""
    return values.to(device, non_blocking=device.type != "cpu")


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host in page-locked memory, if ``device`` is a GPU, which copies them from there by itself."""
    return values.pin_memory() if device.type == "cuda" else values


def beside(index: Tensor, picked: Tensor) -> Tensor:
    """An index on the device of what it picks from."""
    return sent(index, picked.device)
