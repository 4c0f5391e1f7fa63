"""Processes that end with the one that started them, also when that one is killed and can tell nobody.

    python -I -S bench/launch/bound.py PARENT COMMAND [ARGUMENT ...]

runs COMMAND in this very process, bound to the process PARENT, which must be its parent. Nothing but the standard
library is imported, so that it costs a start little.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent is gone. It outlasts exec."""
_LOOK = 1.0
"""Seconds between two looks at the parent, where the system sends no such signal."""


def bound(command: Sequence[str]) -> tuple[str, ...]:
    """A command line that runs ``command`` as a child of this process, and kills it when this process is gone."""
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), *command)


def die_with(parent: int) -> None:
    """From now on, SIGKILL ends this process when its parent is gone. At once, if that is so already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        _watch(parent)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    """Leave a child behind that looks whether ``parent`` lives."""
    this = os.getpid()
    if os.fork():
        return
    while os.getppid() == this:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(this, signal.SIGKILL)
        time.sleep(_LOOK)
    os._exit(0)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
