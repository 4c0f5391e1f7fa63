"""Permissions that bind root too, as they bind everybody else."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextmanager
def bound() -> Iterator[None]:
    """Within, this thread's root may not read or write what the permissions forbid (Linux's capabilities)."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    before = list(held)
    held[0] &= ~_OVERRIDES  # effective, capabilities 0 to 31
    assert libc.capset(header, held) == 0
    try:
        yield
    finally:
        assert libc.capset(header, (ctypes.c_uint32 * 6)(*before)) == 0


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Within, nothing in a folder can be written, nor anything added to it."""
    paths = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode & ~0o222)
    try:
        with bound():
            yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)
