"""A group of processes of which one is rehearsed: nothing is sent, and what is sent would have had its size."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.constants import default_pg_timeout

from bench.machine.engine import REPLICATION, Engine, Sharding
from bench.rehearsal.tape import GRADIENTS, Tape

T = TypeVar("T")

SHORT = default_pg_timeout
"""Patience of a group that was made without one, other than NCCL's (``torch.distributed.constants``)."""
OF_DEVICES = timedelta(minutes=10)
"""NCCL's (the same file; ``default_pg_nccl_timeout`` is None in a build without NCCL)."""


class PretendedEngine(Engine):
    """The engine of the first of ``processes`` on pretended GPUs.

    What all processes find alike is known without them: a sum over processes is that of equal parts. The device is what
    accelerate gives a process that is alone on one GPU: ``cuda``, without a number.
    """

    def __init__(self, tape: Tape, *, dtype: torch.dtype, sharding: Sharding, processes: int) -> None:
        self._tape, together = tape, processes > 1
        if together:
            _join(processes)
        replicas: Any = _Replicas(tape, processes) if together else None
        device = "cuda:0" if together else "cuda"
        super().__init__(device=device, dtype=dtype, sharding=sharding, accelerator=replicas)

    def sum(self, values: Tensor) -> Tensor:
        if not self._together:
            return values
        if values.device.type == "cpu":  # through the device and back, since NCCL knows no other way
            values.to(self.device, copy=True)
            self._tape.wait("a sum over processes")
        return values * self.world_size

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
    _pretend_waiting()


class _Waiting:
    """A group of gloo in which one process waits for others that do not exist, and has what they would send.

    Attributes:
        patience: after which the real one gives up.
    """

    def __init__(self, patience: timedelta) -> None:
        self.patience = patience


_new_group: Any = dist.new_group


def _pretend_waiting() -> None:
    """Replace the calls by which processes wait for each other. Nobody is waited for; how long they would be is seen.

    Only names of ``torch.distributed`` are replaced. FSDP takes its own from the module below it.
    """

    def new_group(*arguments: Any, backend: str | None = None, timeout: timedelta | None = None, **options: Any) -> Any:
        if backend == "gloo":
            return _Waiting(timeout or SHORT)
        return _new_group(*arguments, backend=backend, timeout=timeout, **options)

    def barrier(group: Any = None, **options: Any) -> None:
        _check_patience(group)

    def broadcast_object_list(values: list[Any], src: int | None = None, group: Any = None, **options: Any) -> None:
        _check_patience(group)

    def all_gather_object(values: list[Any], value: Any, group: Any = None) -> None:
        _check_patience(group)
        values[:] = [value, *([] for _ in values[1:])]

    replaced: Any = dist
    replaced.new_group, replaced.barrier = new_group, barrier
    replaced.broadcast_object_list, replaced.all_gather_object = broadcast_object_list, all_gather_object


def _check_patience(group: Any) -> None:
    """RuntimeError in a group that gives up soon: one process may score, encode or write for longer."""
    patience = group.patience if isinstance(group, _Waiting) else OF_DEVICES
    if patience <= SHORT:
        raise RuntimeError(
            f"processes wait here in a group that gives up after {patience.total_seconds() / 60:g} minutes, and what "
            "they wait for can take longer; wait with the engine's barrier"
        )


class _Replicas:
    """What ``Engine`` asks accelerate for."""

    process_index = 0

    def __init__(self, tape: Tape, processes: int) -> None:
        self._tape, self.num_processes = tape, processes

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
