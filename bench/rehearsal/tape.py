"""What happens on the pretended device: every operator runs on fake tensors, and memory, waits and crossings are noted.

Memory is that of live storages, each rounded up to 512 bytes as the CUDA caching allocator does
(``c10/cuda/CUDACachingAllocator.cpp``, ``kMinBlockSize``). Fragmentation is not seen.
"""

from __future__ import annotations

import sys
import sysconfig
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bench
from bench.errors import BenchError
from bench.rehearsal.pretence import PINNED

aten = torch.ops.aten

WEIGHTS, LOW, AVERAGES = "weights", "weights in the products' precision", "averages"
GRADIENTS, OPTIMIZER, ACTIVATIONS = "gradients", "optimizer", "activations"
TEXT, VAE, OTHER = "text", "VAE", "other"
KINDS = (WEIGHTS, LOW, AVERAGES, GRADIENTS, OPTIMIZER, ACTIVATIONS, TEXT, VAE, OTHER)
"""What memory consists of."""

BLOCK = 512
FLOAT = 0.1
"""What a number that is read from the device is: 0.1, or 1, or True. There are none there."""

# fmt: off
NO_KERNEL = frozenset((
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "diagonal", "empty", "empty_like",
    "empty_strided", "expand", "lift_fresh", "narrow", "new_empty", "new_empty_strided", "permute", "select",
    "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unfold", "unsqueeze",
    "view",
))
# fmt: on
"""Operators that launch nothing: views, and memory that is not written."""

INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)

COPIES_OF_TEXT = frozenset({"_to_copy", "clone", "repeat", "index", "index_select", "cat"})


class Refused(BenchError):
    """The code asks for something that fake tensors cannot give: its control flow hangs on values."""


@dataclass(frozen=True)
class Spot:
    """A place in the code, and what is done there."""

    what: str
    where: str


@dataclass
class Peak:
    """The most memory of a stretch of the rehearsal.

    Attributes:
        size: bytes.
        at: the operator that needed them.
        event: place in the list of events.
    """

    size: int = 0
    at: Spot = Spot("", "")
    event: int = 0


@dataclass
class Counts:
    """What happened, but for memory.

    Attributes:
        operators: that launch a kernel, by name.
        waits: the host waits until the device has come so far.
        crossings: copies from the host, which waits for each unless it is of pinned memory.
        host_bytes: of these copies.
        devices, dtypes: operators whose inputs differ in them.
    """

    operators: Counter[str] = field(default_factory=Counter)
    waits: Counter[Spot] = field(default_factory=Counter)
    crossings: Counter[Spot] = field(default_factory=Counter)
    host_bytes: int = 0
    devices: Counter[Spot] = field(default_factory=Counter)
    dtypes: Counter[Spot] = field(default_factory=Counter)

    def add(self, other: Counts, times: int = 1) -> None:
        """Count what happened elsewhere, so many times."""
        for name in ("operators", "waits", "crossings", "devices", "dtypes"):
            own: Counter[Any] = getattr(self, name)
            for key, count in getattr(other, name).items():
                own[key] += count * times
        self.host_bytes += other.host_bytes * times

    def since(self, before: Counts) -> Counts:
        """What happened after ``before``, a copy of an earlier moment."""
        out = Counts(host_bytes=self.host_bytes - before.host_bytes)
        for name in ("operators", "waits", "crossings", "devices", "dtypes"):
            setattr(out, name, getattr(self, name) - getattr(before, name))
        return out

    def copy(self) -> Counts:
        out = Counts()
        out.add(self)
        return out


class Tape(TorchDispatchMode):
    """While it is entered, operators on CUDA tensors run on fake ones; those on the CPU run as ever.

    Attributes:
        kind: what new memory is for.
        phase: what peaks are kept for, each by itself.
        counts: since ``begin``.
        live: bytes at present.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.kind, self.phase = OTHER, ""
        self.counts = Counts()
        self.live = 0
        self._held: dict[int, tuple[int, int]] = {}  # storage → its number and its bytes
        self._kinds: list[str] = []  # by the number of a storage
        self._before: dict[int, int] = {}  # bytes by number when the events began
        self._events: list[tuple[int, int]] = []
        self._peaks: dict[str, Peak] = {}
        self._watch_resizes()

    # -- stretches -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget what happened so far; what is live stays."""
        self.counts = Counts()
        self._before = dict(self._held.values())
        self._events, self._peaks = [], {}
        self._note_peak(torch.ops.aten.empty.memory_format)

    @contextmanager
    def of(self, kind: str | None = None, phase: str | None = None) -> Iterator[None]:
        """Inside, new memory is of this kind and peaks are this phase's."""
        before = self.kind, self.phase
        self.kind, self.phase = kind or self.kind, phase or self.phase
        try:
            yield
        finally:
            self.kind, self.phase = before

    def mark(self) -> int:
        """A moment, for ``made_since``."""
        return len(self._kinds)

    def name(self, tensors: Any, kind: str) -> None:
        """Say what the memory of these tensors is for."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor) and (number := self._number(tensor)) is not None:
                self._kinds[number] = kind

    def name_since(self, mark: int, kind: str) -> None:
        """Say what the memory that was taken since a moment, and is live, is for."""
        for number, _ in self._held.values():
            if number >= mark and self._kinds[number] != LOW:
                self._kinds[number] = kind

    def kind_of(self, tensor: Tensor) -> str | None:
        number = self._number(tensor)
        return None if number is None else self._kinds[number]

    def peaks(self) -> dict[str, tuple[Peak, dict[str, int]]]:
        """Of each phase since ``begin``: the peak, and the bytes of each kind at it."""
        amounts: Counter[str] = Counter()
        for number, size in self._before.items():
            amounts[self._kinds[number]] += size
        out, place = {}, 0
        for phase, peak in sorted(self._peaks.items(), key=lambda item: item[1].event):
            for number, change in self._events[place : peak.event]:
                amounts[self._kinds[number]] += change
            place = peak.event
            out[phase] = peak, {kind: amounts[kind] for kind in KINDS if amounts[kind]}
        return out

    def moment(self) -> int:
        """A moment since ``begin``, for ``risen``."""
        return len(self._events)

    def risen(self, moment: int) -> int:
        """Bytes by which the most memory since a moment exceeds what was live then."""
        return max(accumulate((change for _, change in self._events[moment:]), initial=0))

    def rise(self, size: int) -> None:
        """Note what would be taken for a moment, and given back, by something that is not done again."""
        number = len(self._kinds)
        self._kinds.append(self.kind)
        self._change(number, size, "what was done before")
        self._change(number, -size, None)

    def wait(self, what: str) -> None:
        """Note that the host waits for the device."""
        self.counts.waits[Spot(what, where())] += 1

    # -- memory ----------------------------------------------------------------------------------------------------

    def _number(self, tensor: Tensor) -> int | None:
        local = getattr(tensor, "_local_tensor", tensor)
        if not isinstance(local, FakeTensor):
            return None
        held = self._held.get(local.untyped_storage()._cdata)
        return held and held[0]

    def _watch(self, out: Any, func: Any, kind: str) -> None:
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, (list, tuple)):
                self._watch(tensor, func, kind)
            elif isinstance(tensor, FakeTensor) and tensor.fake_device.type == "cuda":
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._held:
                    size = _rounded(storage.nbytes())
                    number = len(self._kinds)
                    self._kinds.append(kind)
                    self._held[key] = number, size
                    weakref.finalize(storage, self._freed, key)
                    self._change(number, size, func)

    def _freed(self, key: int) -> None:
        number, size = self._held.pop(key)
        self._change(number, -size, None)

    def _change(self, number: int, change: int, func: Any) -> None:
        self.live += change
        self._events.append((number, change))
        if func is not None:
            self._note_peak(func)

    def _note_peak(self, func: Any) -> None:
        peak = self._peaks.setdefault(self.phase, Peak())
        if self.live > peak.size:
            peak.size, peak.event = self.live, len(self._events)
            peak.at = Spot(func if isinstance(func, str) else _name(func), where())

    def _watch_resizes(self) -> None:
        """FSDP gives whole weights back by making their storages empty."""
        storages: Any = torch.UntypedStorage
        usual, tape = storages.resize_, self

        def resize_(self: Any, size: int) -> Any:
            done = usual(self, size)
            if held := tape._held.get(self._cdata):
                new = _rounded(int(size))
                tape._held[self._cdata] = held[0], new
                tape._change(held[0], new - held[1], aten.resize_.default)
            return done

        storages.resize_ = resize_

    # -- operators -------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            return func(*args, **kwargs)  # somebody's own fakes: DTensor infers shapes with them
        if any(kind.__name__ == "DTensor" for kind in types):
            return NotImplemented  # it takes itself apart, and its parts come here
        tensors = list(_tensors((*args, *kwargs.values())))
        fakes = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        device = kwargs.get("device")
        to_cuda = device is not None and torch.device(device).type == "cuda"
        if not fakes and not to_cuda:
            return func(*args, **kwargs)
        return self._on_device(func, types, args, kwargs, tensors, fakes, to_cuda)

    def _on_device(
        self, func: Any, types: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor], fakes: Sequence[FakeTensor],
        to_cuda: bool,
    ) -> Any:  # fmt: skip
        if not to_cuda and all(tensor.fake_device.type != "cuda" for tensor in fakes):
            return self.fake.__torch_dispatch__(func, types, args, kwargs)  # FLOPs are counted on the meta device
        name = func._schema.name.partition("::")[2]
        if name not in NO_KERNEL:
            self.counts.operators[name] += 1
        if func is aten._local_scalar_dense.default:
            self.wait("a number is read")
            kind = fakes[0].dtype
            return True if kind is torch.bool else FLOAT if kind.is_floating_point else 1
        if func is aten.nonzero.default:
            return self._nonzero(func, fakes[0])
        self._check_generator(func, kwargs, fakes, to_cuda)
        _check_indices(func, args)
        _check_lists(name, args)
        args = self._whole_masks(func, args)
        hosts = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor)]
        if hosts:
            self._note_crossing(func, name, hosts, kwargs, to_cuda)
        self._note_dtypes(name, fakes)
        try:
            out = self.fake.__torch_dispatch__(func, types, args, kwargs)
        except DynamicOutputShapeException as error:
            raise Refused(
                f"{where()}: how many rows {_name(func)} gives hangs on values, and a rehearsal has none"
            ) from error
        out = self._arrived(out)
        self._watch(out, func, self._kind_of_result(name, fakes))
        return out

    def _nonzero(self, func: Any, mask: FakeTensor) -> Tensor:
        """All rows: as many as there can be."""
        self.wait("nonzero")
        with self.fake:
            out = torch.empty(mask.numel(), mask.dim(), dtype=torch.int64, device=mask.fake_device)
        self._watch(out, func, self.kind)
        return out

    def _whole_masks(self, func: Any, args: Any) -> Any:
        """Masks as indices take every row, and count as the wait that they are."""
        if func is not aten.index.Tensor or not any(
            isinstance(index, Tensor) and index.dtype is torch.bool for index in args[1]
        ):
            return args
        self.wait("a mask as index")
        indices: list[Tensor | None] = []
        for index in args[1]:
            if isinstance(index, FakeTensor) and index.dtype is torch.bool:
                rows = self._nonzero(func, index)
                indices += rows.unbind(1)
            else:
                indices.append(index)
        return (args[0], indices, *args[2:])

    @staticmethod
    def _check_generator(func: Any, kwargs: Any, fakes: Sequence[FakeTensor], to_cuda: bool) -> None:
        """As a device's kernel does (``aten/src/ATen/core/Generator.h``, ``check_generator``)."""
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu" and (to_cuda or fakes):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    def _note_crossing(self, func: Any, name: str, hosts: Sequence[Tensor], kwargs: Any, to_cuda: bool) -> None:
        sent = [tensor for tensor in hosts if tensor.dim()]
        copied = to_cuda or name == "copy_"
        if copied:
            self.counts.host_bytes += sum(tensor.nbytes for tensor in hosts)
            pinned = all(tensor in PINNED for tensor in hosts)
            self.counts.crossings[Spot("from pinned memory" if pinned else "from the host", where())] += 1
        elif sent:  # a device's kernel takes indices from the host, and waits for them
            self.counts.host_bytes += sum(tensor.nbytes for tensor in sent)
            self.counts.devices[Spot(f"{_name(func)} with tensors of cpu and cuda", where())] += 1

    def _note_dtypes(self, name: str, fakes: Sequence[FakeTensor]) -> None:
        kinds = {tensor.dtype for tensor in fakes if tensor.dim() and tensor.dtype.is_floating_point}
        if len(kinds) > 1 and not name.startswith(("copy_", "_to_copy", "_scaled_dot_product", "native_")):
            both = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            self.counts.dtypes[Spot(f"{name} with {both}", where())] += 1
        elif torch.float64 in kinds and name not in NO_KERNEL:
            self.counts.dtypes[Spot(f"{name} in float64", where())] += 1

    def _arrived(self, out: Any) -> Any:
        """A tensor that comes back to the host is a real one, of stated values, and the host has waited for it."""
        if isinstance(out, (list, tuple)):
            parts = [self._arrived(part) for part in out]
            return parts if any(new is not old for new, old in zip(parts, out, strict=True)) else out
        if not isinstance(out, FakeTensor) or out.fake_device.type != "cpu":
            return out
        self.wait("a tensor is read")
        if out.dtype is torch.int64:  # rows, for the most part
            return torch.arange(out.numel()).reshape(out.shape)
        if out.dtype is torch.bool:
            return torch.ones(out.shape, dtype=out.dtype)
        if out.dim() == 1 and out.is_floating_point():  # scores, for the most part: equal ones would train nothing
            return ((torch.arange(out.numel()) + 0.5) / out.numel()).to(out.dtype)
        return _zeros(out.shape, out.dtype)

    def _kind_of_result(self, name: str, fakes: Sequence[FakeTensor]) -> str:
        kinds = {self.kind_of(tensor) for tensor in fakes if tensor.dim()}
        if name == "_to_copy" and kinds == {WEIGHTS}:
            return LOW  # autocast keeps it
        if name in COPIES_OF_TEXT and kinds == {TEXT}:
            return TEXT
        return self.kind


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors among an operator's arguments; they lie in lists at most."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _check_indices(func: Any, args: Any) -> None:
    """As the CPU's kernel does: its tensors take no indices that lie on a device
    (``aten/src/ATen/native/TensorAdvancedIndexing.cpp``)."""
    of_the_host = func in INDEXING and not isinstance(args[0], FakeTensor)
    if of_the_host and any(isinstance(index, FakeTensor) for index in args[1]):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


def _check_lists(name: str, args: Any) -> None:
    """As the kernels of ``_foreach_`` do, which go tensor by tensor where devices differ
    (``aten/src/ATen/native/ForeachUtils.h``). Only a copy may cross, and a number of the host."""
    if not name.startswith("_foreach_") or name.startswith("_foreach_copy"):
        return
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and all(isinstance(each, Tensor) for each in arg)]
    for together in zip(*lists, strict=False):
        if len({isinstance(each, FakeTensor) for each in together if each.dim()}) > 1:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two, cpu and cuda:0")


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros of the CPU that take no memory before they are written to."""
    import math

    import numpy as np

    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).reshape(tuple(shape))


def _rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _name(func: Any) -> str:
    return str(func._schema.name.partition("::")[2])


# -- places in the code ------------------------------------------------------------------------------------------------

OWN = Path(bench.__file__).parent
LIBRARIES = tuple(f"{Path(sysconfig.get_path(name))}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@cache
def _shown(file: str) -> str | None:
    """How a file is called in a report; None: it is a library's, or a rehearsal's own."""
    path = Path(file)
    inside = path.is_relative_to(OWN)
    if inside and path.is_relative_to(OWN / "rehearsal"):
        return None
    if not inside and (file.startswith(("<", *LIBRARIES)) or "site-packages" in file):
        return None
    for base in (OWN.parent, Path.cwd()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return file


def where() -> str:
    """``file:line`` of the innermost frame that is the project's or a plugin's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if shown := _shown(frame.f_code.co_filename):
            return f"{shown}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def place_of(error: BaseException) -> str:
    """``file:line`` of the innermost of these frames that an error passed through, and of the method's above it."""
    innermost, method, trace = "?", "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if shown := _shown(file):
            innermost = f"{shown}:{trace.tb_lineno}"
            if not Path(file).is_relative_to(OWN):
                method = innermost
        trace = trace.tb_next
    return f"{innermost}, from {method}" if method not in ("", innermost) else innermost
