"""A GPU that is not there: what code asks ``torch.cuda`` for is answered, and nothing of it is done.

Only for a process that does nothing else: functions of torch are replaced and stay so. Each replacement stands here
with its reason.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten

CAPABILITY = (9, 0)
"""Compute capability of the pretended GPU: an H100's."""

PINNED: Any = WeakIdKeyDictionary()
"""Tensors of the CPU that were asked to lie in pinned memory."""


def pretend(processes: int, waited: Callable[[str], None]) -> None:
    """Replace what would ask a driver.

    Args:
        processes: GPUs that there seem to be.
        waited: called with a name when the code waits for the device by a call of ``torch.cuda``.
    """
    _pretend_device(processes, waited)
    _pretend_pinning()
    _let_modules_move()
    _choose_attention()


def _pretend_device(processes: int, waited: Callable[[str], None]) -> None:
    torch._C._ensureCUDADeviceGuardSet()  # a guard that does nothing: one device, whose streams are nothing
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") goes through the dispatcher
    # "May CUDA be initialised for a fake tensor?" No, although it seems to be available.
    fakes: Any = FakeTensorMode
    fakes.avoid_device_init = property(lambda self: True)
    cuda: Any = torch.cuda
    cuda._lazy_init = lambda: None
    cuda.is_available = lambda: True
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.is_current_stream_capturing = lambda: False
    cuda.device_count = lambda: processes
    cuda.current_device = lambda: 0
    cuda.set_device = _set_device
    cuda.device = _Device
    cuda.get_device_name = lambda device=None: "a pretended GPU"
    cuda.get_device_capability = lambda device=None: CAPABILITY
    cuda.get_device_properties = lambda device=None: SimpleNamespace(
        name="a pretended GPU", major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=2**40, multi_processor_count=132
    )
    cuda.synchronize = lambda device=None: waited("torch.cuda.synchronize")
    for name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda device=None: None)
    for name in ("max_memory_allocated", "memory_allocated", "max_memory_reserved", "memory_reserved"):
        setattr(cuda, name, lambda device=None: 0)
    cuda.Stream, cuda.Event = Stream, Event
    cuda.current_stream = cuda.default_stream = lambda device=None: Stream()
    cuda.stream = lambda stream: contextlib.nullcontext()
    cuda.amp.common.amp_definitely_not_available = lambda: False  # autocast would switch itself off
    for module in ("torch.utils._foreach_utils", "torch.optim.optimizer"):  # else optimizers go tensor by tensor
        supported: Any = vars(sys.modules[module])["_foreach_supported_types"]
        if FakeTensor not in supported:
            supported.append(FakeTensor)


def _set_device(device: Any) -> None:
    """As torch's: it wants a number, and ``cuda`` alone has none."""
    torch.cuda._utils._get_device_index(device)
    _thread.chose = True


_thread: Any = threading.local()


def _check_thread() -> None:
    """A thread begins on the first GPU: what it asks of CUDA before it chooses another goes there, on every process."""
    if threading.current_thread() is not threading.main_thread() and not getattr(_thread, "chose", False):
        raise RuntimeError("this thread asks CUDA for something before it chose its GPU with torch.cuda.set_device")


class _Device:
    """``with torch.cuda.device(0)``."""

    def __init__(self, device: Any) -> None:
        self.idx = device.index if isinstance(device, torch.device) else device

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class Stream:
    """Does nothing: a fake kernel has run when it is called."""

    device_type, device_index, stream_id, priority, cuda_stream = 1, 0, 0, 0, 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.device = torch.device("cuda:0")

    def wait_stream(self, stream: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def record_event(self, event: Any = None) -> Any:
        return event or Event()


class Event:
    """Is over when it begins."""

    def __init__(self, *arguments: Any, **options: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 0.0


def _pretend_pinning() -> None:
    """Pinned memory is CUDA's to give. A tensor that asks for it is remembered: a copy of it makes nobody wait."""

    def pin_memory(self: Tensor, device: Any = None) -> Tensor:
        _check_thread()
        PINNED[self] = True
        return self

    kind: Any = Tensor
    kind.pin_memory = pin_memory
    kind.is_pinned = lambda self, device=None: self in PINNED


def _let_modules_move() -> None:
    """``Module.to`` puts new parameters in place of the old ones: torch would swap the two tensors, which fails where
    something refers to a fake one."""

    def _apply(self: Any, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(change)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                with torch.no_grad():
                    new = change(parameter)
                if new is not parameter:
                    self._parameters[name] = torch.nn.Parameter(new, parameter.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = change(buffer)
        return self

    module: Any = torch.nn.Module
    module._apply = _apply


def _choose_attention() -> None:
    """Attention's choice of a kernel asks for the device's properties. Chosen here as on a GPU of this capability
    (``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp``): flash for bfloat16 and heads of at most 256 channels,
    the memory-efficient kernel else."""
    functional: Any = torch.nn.functional
    usual = functional.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        if query.device.type != "cuda":
            options = {"scale": scale, "enable_gqa": enable_gqa}
            return usual(query, key, value, attn_mask, dropout_p, is_causal, **options)
        if torch.is_autocast_enabled("cuda"):
            low = torch.get_autocast_dtype("cuda")
            query, key, value = (part.to(low) for part in (query, key, value))
        flash = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= 256 and attn_mask is None
        if flash:
            kernel = aten._scaled_dot_product_flash_attention
            out = kernel(query, key, value, dropout_p, is_causal, False, scale=scale)
            return out[0]
        graph = any(part.requires_grad for part in (query, key, value)) and torch.is_grad_enabled()
        kernel = aten._scaled_dot_product_efficient_attention
        out = kernel(query, key, value, attn_mask, graph, dropout_p, is_causal, scale=scale)
        return out[0]

    functional.scaled_dot_product_attention = attention
