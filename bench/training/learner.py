"""What trains: the parameters, the optimizer, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench import flow
from bench.errors import BenchError
from bench.machine.engine import is_spread, spread, whole

if TYPE_CHECKING:
    from bench.machine.engine import Engine


class Learner:
    """Parameters under AdamW. Gradients are summed over micro-batches and processes, and divided by their items.

    Args:
        parameters: what trains, in a fixed order.
        lr, betas, weight_decay: AdamW's.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: of the weights' moving average; 0 keeps none.
        ema_every: updates between two steps of the average.
        ema_warmup: the decay after n updates is at most (1 + n) / (10 + n); else it is ``ema_decay`` from the first on.
        adam_8bit: AdamW of bitsandbytes, with states in 8 bits.

    Raises:
        BenchError: ``adam_8bit`` without bitsandbytes, or with parameters that are spread over processes.
    """

    def __init__(
        self,
        engine: Engine,
        parameters: list[torch.nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        max_grad_norm: float,
        ema_decay: float = 0.0,
        ema_every: int = 1,
        ema_warmup: bool = True,
        adam_8bit: bool = False,
    ) -> None:
        self.parameters = parameters
        settings: dict[str, Any] = dict(lr=lr, betas=betas, weight_decay=weight_decay)
        self.optimizer: torch.optim.Optimizer
        if adam_8bit:
            self.optimizer = _adam_8bit(parameters)(parameters, **settings)
        else:
            # One kernel for hundreds of tensors. The usual one keeps intermediate results of all of them: 8.4 GiB for
            # SD3.5-Medium. On a CPU the usual one stays, whose bits earlier runs have.
            fused = True if engine.device.type == "cuda" else None
            self.optimizer = torch.optim.AdamW(parameters, **settings, fused=fused)
        self.items = 0.0
        self.ema = [p.detach().clone() for p in parameters] if ema_decay else None
        self._engine = engine
        self._max_grad_norm = max_grad_norm
        self._ema_decay, self._ema_every, self._ema_warmup = ema_decay, ema_every, ema_warmup
        self._steps = 0

    def take_items(self) -> float:
        """Items that all processes have accumulated gradients of since the last update."""
        items = float(self._engine.sum(torch.tensor(self.items, dtype=torch.float64)))
        self.items = 0.0
        return items

    def average(self, items: float) -> float:
        """Make the gradients the mean over ``items``, clip them, and return their norm before that."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, self._engine.world_size / items)  # data parallelism averages over processes
        return float(whole(torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm)))

    def step(self) -> None:
        """One step of the optimizer, and of the average of the weights."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        if self.ema is not None and self._steps % self._ema_every == 0:
            limit = (1 + self._steps) / (10 + self._steps) if self._ema_warmup else 1.0
            flow.ema_update(self.ema, self.parameters, min(self._ema_decay, limit))

    def averaged(self) -> AbstractContextManager[None]:
        """Context with the moving average in place, if there is one; else nothing."""
        return nullcontext() if self.ema is None else self.swapped(self.ema)

    @contextmanager
    def swapped(self, values: Sequence[Tensor]) -> Iterator[None]:
        """Context with other values in place of the parameters'."""
        before = [p.detach().clone() for p in self.parameters]
        self.fill(values)
        try:
            yield
        finally:
            self.fill(before)

    @torch.no_grad()
    def fill(self, values: Sequence[Tensor]) -> None:
        """Give the parameters these values."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, values and average, as they lie on this process."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "parameters": [p.detach() for p in self.parameters],
            "ema": self.ema,
            "ema_steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, made by any number of processes."""
        if [p.shape for p in state["parameters"]] != [p.shape for p in self.parameters]:
            raise BenchError("the checkpoint's parameters have other shapes; it belongs to another configuration")
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self.parameters):
            for name, value in moments.get(number, {}).items():
                if getattr(value, "shape", None) == parameter.shape:
                    moments[number][name] = spread(value, parameter)
        for group, own in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            if "fused" in own:
                group["fused"] = own["fused"]  # the kernel is this device's, and not that of who wrote the checkpoint
        self.optimizer.load_state_dict(state["optimizer"])
        self.fill(spread(state["parameters"], self.parameters))
        self.ema, self._steps = spread(state["ema"], self.ema), state["ema_steps"]


def _adam_8bit(parameters: Sequence[Tensor]) -> Any:
    if any(map(is_spread, parameters)):
        raise BenchError(
            "adam_8bit cannot train weights that fsdp spreads over processes: bitsandbytes needs whole tensors; use "
            "--sharding ddp, or leave --adam-8bit out"
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise BenchError("adam_8bit needs bitsandbytes: pip install bitsandbytes") from error
    return AdamW8bit
