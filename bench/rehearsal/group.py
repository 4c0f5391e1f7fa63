"""A group of processes of which one is rehearsed: nothing is sent, and what is sent would have had its size."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bench.machine.engine import REPLICATION, Engine, Sharding
from bench.rehearsal.tape import GRADIENTS, Tape

T = TypeVar("T")


class PretendedEngine(Engine):
    """The engine of the first of ``processes`` on pretended GPUs.

    What all processes find alike is known without them: a sum over processes is that of equal parts. The device is what
    accelerate gives a process that is alone on one GPU: ``cuda``, without a number.
    """

    def __init__(self, tape: Tape, *, dtype: torch.dtype, sharding: Sharding, processes: int) -> None:
        super().__init__(device="cuda:0" if processes > 1 else "cuda", dtype=dtype, sharding=sharding)
        self._tape = tape
        if processes > 1:
            _join(processes)
            self.world_size = processes
            replicas: Any = _Replicas(tape)
            self._accelerator = replicas

    def barrier(self) -> None:
        return

    def sum(self, values: Tensor) -> Tensor:
        if not self._together:
            return values
        if values.device.type == "cpu":  # through the device and back, since NCCL knows no other way
            values.to(self.device, copy=True)
            self._tape.wait("a sum over processes")
        return values * self.world_size

    def broadcast(self, value: T) -> T:
        return value

    def gather_rows(self, rows: list[T]) -> list[T]:
        return rows

    def close(self) -> None:
        return

    def thread(self, name: str) -> ThreadPoolExecutor:
        """As the engine's, but what it is given happens on the tape, and who gives it waits until it is done.

        So two threads never write on the tape at once, and what a thread does stands in the part that asked for it.
        """
        worker = super().thread(name)
        usual = worker.submit

        def submit(work: Callable[..., T], /, *arguments: Any, **options: Any) -> Future[T]:
            future = usual(self._on_tape, work, *arguments, **options)
            wait((future,))
            return future

        worker.submit = submit  # type: ignore[method-assign]
        return worker

    def _on_tape(self, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        with torch.autograd.set_multithreading_enabled(False), self._tape:  # both are of one thread
            return work(*arguments, **options)


def _join(processes: int) -> None:
    """Torch's own group of processes that do not exist (``torch.testing._internal.distributed.fake_pg``)."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        if dist.get_world_size() == processes:
            return
        dist.destroy_process_group()
    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())


class _Replicas:
    """What ``Engine`` asks accelerate for."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def prepare_model(self, model: torch.nn.Module) -> torch.nn.Module:
        return Replica(model, self._tape)

    def free_memory(self) -> None:
        """It holds nothing."""


class Replica(torch.nn.Module):
    """Stands in for DDP, whose reducer takes no fake gradients (``torch/csrc/distributed/c10d/reducer.cpp``).

    Its buckets hold each gradient once more, in float32. With ``gradient_as_bucket_view`` gradients lie in them.
    """

    def __init__(self, model: torch.nn.Module, tape: Tape) -> None:
        super().__init__()
        self.module = model
        self.require_backward_grad_sync = True
        self._trained = [p for p in model.parameters() if p.requires_grad]
        with tape.of(GRADIENTS):
            self._buckets = torch.empty(sum(p.numel() for p in self._trained), device="cuda")

    def forward(self, *arguments: Any, **options: Any) -> Any:
        if torch.is_grad_enabled() and REPLICATION.get("gradient_as_bucket_view"):
            parts = self._buckets.split([p.numel() for p in self._trained])
            for parameter, part in zip(self._trained, parts, strict=True):
                if parameter.grad is None:
                    parameter.grad = part.view_as(parameter).zero_()
        return self.module(*arguments, **options)
