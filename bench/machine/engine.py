"""Where a job computes: its device, its precision, and the processes that share its work.

Processes, gathering and DDP come from accelerate, sharding from torch's FSDP2 (the call that accelerate makes too, but
not on a CPU). One process needs none of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.machine.environment import check_group

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
Sharding = Literal["ddp", "fsdp"]
PATIENCE = timedelta(days=1)
"""How long a process waits for another: rank 0 may fetch 34 GB, list a corpus or write 27 GB meanwhile. NCCL's ten
minutes are too short for that, and who died is noticed sooner: by the launcher, and by connections that close."""

REPLICATION: dict[str, Any] = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
"""Of DDP. SD3's only buffer, the position table, never changes; sharing it would be a collective in every first
forward. Gradients lie in the buckets that are sent, and not beside them: 8.4 GiB less for SD3.5-Medium."""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Compute:
    """How a job computes. Nothing here changes what is computed, but for rounding.

    Attributes:
        micro_batch: rows of a step's batch that a process works on at a time while there is a graph; None: its whole
            share. A method that makes several samples of a row (two of a preference pair) has as many in a forward.
        gradient_checkpointing: keep no activations inside a block, compute them again in the backward. The second
            forward is not charged: a budget does not depend on how memory is saved.
        compile: ``torch.compile`` the transformer's repeated blocks.
        adam_8bit: optimizer states in 8 bits (bitsandbytes), a quarter of their memory.
        evaluation_batch: images sampled together in an evaluation.
    """

    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    adam_8bit: bool = False
    evaluation_batch: int = 48


class Engine:
    """Device, precision and processes.

    Attributes:
        rank, world_size: this process's number and how many share the work.
        device: where tensors live. A GPU has its number, which calls on another thread need: ``cuda`` is ``cuda:0``.
        dtype: of matrix products; weights that train and targets stay float32.
        sharding: ``ddp`` keeps the whole model on each device; ``fsdp`` spreads weights, gradients and optimizer
            states of a full fine-tune (an adapter is small enough to be kept whole).
    """

    def __init__(
        self,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        sharding: Sharding = "ddp",
        accelerator: Accelerator | None = None,
    ) -> None:
        self.device, self.dtype, self.sharding = _numbered(torch.device(device)), dtype, sharding
        self._accelerator = accelerator
        self._unshared = 0
        self._waiting: Any = None
        self.rank = accelerator.process_index if accelerator else 0
        self.world_size = accelerator.num_processes if accelerator else 1
        if self._together:
            # Processes wait for each other, and tell each other what they found, over connections of the CPU: there
            # the patience does not hang on how the group was made, and a process that dies closes its connections.
            self._waiting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)

    @classmethod
    def from_environment(cls, *, dtype: str = "auto", sharding: Sharding = "ddp") -> Engine:
        """The engine of this process, in the group that torchrun's environment describes, or alone.

        Args:
            dtype: ``auto`` (bfloat16 on CUDA, float32 elsewhere), ``bfloat16`` or ``float32``.
        """
        check_group()
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        replication = DistributedDataParallelKwargs(**REPLICATION)
        group = InitProcessGroupKwargs(timeout=PATIENCE)
        try:
            accelerator = Accelerator(
                cpu=not torch.cuda.is_available(),
                kwargs_handlers=[replication, group],
                # Else `accelerate launch` would set both through the environment, behind --dtype and --compile.
                mixed_precision="no",
                dynamo_backend="no",
            )
        except (KeyError, ValueError) as error:  # of its own variables, whose words it holds against its lists
            variables = ", ".join(sorted(name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))))
            raise BenchError(
                f"the environment does not say how processes share the work: {' '.join(str(error).split())}; set right "
                f"or unset {variables or 'the variables of your launcher'}"
            ) from error
        device = accelerator.device
        auto = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else torch.float32
        chosen = auto if dtype == "auto" else DTYPES[dtype]
        check_dtype(chosen, device)
        # Float32 is float32: else the VAE's pictures would hang on whether a scorer on another thread needs it exact.
        torch.backends.cudnn.allow_tf32 = False
        return cls(device=device, dtype=chosen, sharding=sharding, accelerator=accelerator)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes records."""
        return self.rank == 0

    @property
    def _together(self) -> bool:
        return self.world_size > 1

    def close(self) -> None:
        """Leave the group, after every process has come this far: threads of gloo that outlive it abort the process."""
        if self._together:
            self.barrier()
            torch.distributed.destroy_process_group()

    # -- talking to the other processes ------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self._together:
            torch.distributed.barrier(group=self._waiting)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, the same on each. Integers stay exact."""
        if not self._together:
            return values
        held = values.to(self.device, copy=True)
        torch.distributed.all_reduce(held)
        return held.to(values.device)

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if not self._together:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, src=0, group=self._waiting)
        return held[0]

    def gather_rows(self, rows: list[T]) -> list[T]:
        """Every process's list, one after the other in rank order."""
        if not self._together:
            return rows
        everyone: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(everyone, rows, group=self._waiting)
        return [row for theirs in everyone for row in theirs]

    def fail_together(self, problem: str | None, error: Callable[[str], Exception]) -> None:
        """Raise on every process if there is a problem on one, so that none waits for another that has left."""
        problems = [p for p in self.gather_rows([problem]) if p]
        if problems:
            raise error(problems[0])

    def main_first(self, action: Callable[[], T]) -> T:
        """Run something that fills a cache on rank 0, then on the others, which find it filled."""
        if not self.is_main:
            self.barrier()
        result = action()
        if self.is_main:
            self.barrier()
        return result

    # -- threads and time --------------------------------------------------------------------------------------------

    def thread(self, name: str) -> ThreadPoolExecutor:
        """One thread that computes on this engine's device; a new thread would begin on the first GPU."""
        if self.device.type == "cuda":
            return ThreadPoolExecutor(1, name, torch.cuda.set_device, (self.device,))
        return ThreadPoolExecutor(1, name)

    def settle(self) -> None:
        """Wait until the device has done all that it was told: a clock that is read before counts too little."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # -- the model that trains ---------------------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which matrix products run in ``dtype``."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def wrap(self, model: torch.nn.Module, blocks: list[torch.nn.Module], *, shard: bool) -> torch.nn.Module:
        """The module to call in training: ``model`` itself, sharded in place, or inside DDP.

        Args:
            blocks: the repeated layers, each sharded by itself.
            shard: whether there is enough that trains for sharding to pay.
        """
        if not self._together:
            return model
        assert self._accelerator is not None
        if self.sharding == "fsdp" and shard:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            mesh = init_device_mesh(self.device.type, (self.world_size,))
            low = None if self.dtype == torch.float32 else self.dtype
            # Inputs are not cast: a timestep of 1000 sigma has no room in bfloat16.
            policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
            for block in blocks:
                fully_shard(block, mesh=mesh, mp_policy=policy)
            # Whole parameters must not outlive a forward: an EMA may be swapped in between two of them.
            fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
            return model
        wrapped: torch.nn.Module = self._accelerator.prepare_model(model)
        self._accelerator.free_memory()  # it would hold on to the model, its gradients and buckets after the job's end
        return wrapped

    def share_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Make the gradients of parameters the mean over processes, where no backward has done so by now.

        DDP and FSDP have, so nothing is left to do here.
        """

    @contextmanager
    def without_sync(self, module: torch.nn.Module) -> Iterator[None]:
        """Context in which gradients add up on each process; the next backward outside shares them. May be nested."""
        if not self._together:
            yield
            return
        self._unshared += 1
        _share_gradients(module, False)
        try:
            yield
        finally:
            self._unshared -= 1
            _share_gradients(module, self._unshared == 0)


def _numbered(device: torch.device) -> torch.device:
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raise BenchError, one line, unless ``device`` is there and computes in ``dtype`` by its own circuits.

    The CPU computes in bfloat16 everywhere, if slowly. On CUDA devices before compute capability 8.0 torch imitates it
    through float32, which saves neither time nor workspace: refused.
    """
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise BenchError("this torch sees no CUDA device; check the driver with nvidia-smi, or run on the CPU")
        if dtype == torch.bfloat16:
            with torch.cuda.device(device):
                if not torch.cuda.is_bf16_supported(including_emulation=False):
                    raise BenchError(
                        f"{torch.cuda.get_device_name()} does not compute in bfloat16; use --dtype float32"
                    )
        return
    for tried, line in (
        (torch.float32, f"this torch cannot use the device {device}; run on the CPU"),
        (dtype, f"{device} does not compute in {str(dtype).removeprefix('torch.')}; use --dtype float32"),
    ):
        try:
            torch.ones(2, 2, dtype=tried, device=device).mm(torch.ones(2, 2, dtype=tried, device=device))
        except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
            raise BenchError(line) from error


def _share_gradients(module: Any, share: bool) -> None:
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
        module.set_requires_gradient_sync(share)
    else:
        module.require_backward_grad_sync = share  # what DDP's own no_sync sets


def is_spread(value: Any) -> bool:
    """Whether a process holds only its share of a tensor."""
    return hasattr(value, "full_tensor")


def whole(value: Any, *, keep: bool = True, copy: bool = False) -> Any:
    """A state with sharded tensors put together on the CPU. Every process must call it; those with ``keep`` get it.

    Args:
        copy: whether a tensor that lies on the CPU already is copied.
    """
    match value:
        case Tensor():
            full: Tensor = value.full_tensor() if is_spread(value) else value  # type: ignore[attr-defined]
            return full.detach().to("cpu", copy=copy) if keep else None
        case dict():
            return {key: whole(part, keep=keep, copy=copy) for key, part in value.items()}
        case list() | tuple():
            return type(value)(whole(part, keep=keep, copy=copy) for part in value)
    return value


def digest_of(model: torch.nn.Module, engine: Engine) -> str:
    """SHA-256 over the names, shapes and values of a model's tensors. Every process must call it, and gets the same.

    Tensors are put together one by one, so it needs no memory to speak of. Hashing takes about a second a gigabyte.
    """
    state = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        tensor = whole(value, keep=engine.is_main)
        if engine.is_main:
            state.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
            state.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return engine.broadcast(state.hexdigest())


def spread(value: Any, like: Any) -> Any:
    """The reverse of ``whole``: ``value`` with each tensor on the device and in the shards of its twin in ``like``."""
    match value, like:
        case Tensor(), Tensor():
            from torch.distributed.tensor import DTensor, distribute_tensor

            if isinstance(like, DTensor):
                return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
            return value.to(like.device)
        case dict(), dict():
            return {key: spread(part, like.get(key)) for key, part in value.items()}
        case ((list() | tuple()), (list() | tuple())) if len(value) == len(like):
            return type(value)(spread(part, twin) for part, twin in zip(value, like, strict=True))
    return value
