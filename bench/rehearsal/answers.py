"""Two answers that torch's autograd must get before it runs a backward over CUDA tensors on a machine without CUDA.

For each gradient the engine asks which accelerator there is and whether it holds a context. The CUDA build says CUDA,
finds no driver, and raises (``CUDAHooks::hasPrimaryContext``). No switch of torch turns that off. Tried with 2.12.1:

- a private backend in Python (``_setup_privateuseone_for_python_backend``): the engine then wants a stream of CUDA that
  nobody gives it (an assertion in ``engine.cpp``);
- the setter ``c10::cuda::_internal::setHasPrimaryContext``: the hooks do not read it;
- the CPU build: it refuses every CUDA tensor.

So a library of two functions is loaded before torch, and the dynamic linker takes its answers: there is no
accelerator. It is compiled where it is needed, by the system's C compiler, and kept in the cache. It is never loaded in
a process that trains.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from bench.errors import BenchError

TORCH = ("2.12.1",)
"""Versions that a rehearsal was tried with: the names below, and a dozen that ``pretence`` replaces, are no promise of
torch's."""

SOURCE = """\
unsigned short _ZN2at11accelerator14getAcceleratorEb(_Bool checked) { (void)checked; return 0; }
_Bool _ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE(signed char type) { (void)type; return 0; }
"""
"""``at::accelerator::getAccelerator(bool)``, whose optional is empty, and ``isAccelerator(DeviceType)``, which is false
(``aten/src/ATen/DeviceAccelerator.h`` of torch 2.12)."""

COMPILERS = ("cc", "gcc", "clang")


def why_not() -> str | None:
    """Why no rehearsal runs on this machine, in one line; None: one does. Loads no torch."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return f"rehearsals run on Linux, not on {sys.platform} {platform.machine()}"
    version = metadata.version("torch")
    public, _, build = version.partition("+")
    if public not in TORCH:
        return f"rehearsals are tried with torch {' and '.join(TORCH)}, and this is {version}"
    if build.startswith("cpu") or not _has_cuda():
        return f"torch {version} is the build for the CPU alone, which refuses CUDA tensors; a build for CUDA is needed"
    if compiler() is None:
        return f"there is no C compiler ({', '.join(COMPILERS)}), which builds a library of two functions"
    return None


def _has_cuda() -> bool:
    spec = find_spec("torch")  # which loads nothing
    folders = spec.submodule_search_locations if spec else None
    return any((Path(folder) / "lib" / "libtorch_cuda.so").is_file() for folder in folders or ())


def compiler() -> str | None:
    """The system's C compiler."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def library(cache: Path) -> Path:
    """The library, compiled on the first call.

    Raises:
        BenchError: it cannot be compiled here.
    """
    folder = cache / "rehearsal"
    name = hashlib.sha256(f"{SOURCE}{platform.machine()}".encode()).hexdigest()[:16]
    path = folder / f"answers-{name}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    program = compiler()
    if program is None:
        raise BenchError(str(why_not()))
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / path.name
        command = [program, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(made)]
        done = subprocess.run(command, input=SOURCE, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = " ".join(done.stderr.split())[:200]
            raise BenchError(f"{program} could not build the library that a rehearsal needs: {reason}")
        made.replace(path)
    return path


def load(path: Path) -> None:
    """Load the library, so that torch, which must come after it, takes its answers.

    Raises:
        RuntimeError: torch is loaded already.
    """
    if "torch" in sys.modules:
        raise RuntimeError("the answers must be loaded before torch")
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
