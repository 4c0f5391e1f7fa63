"""What a cluster says before it kills, turned into what Ctrl-C says."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SIGTERM: schedulers, torchrun. SIGUSR1: what most sbatch scripts ask for. SIGUSR2: what submitit asks for."""


@contextlib.contextmanager
def stop_signals(*, then_ignored: bool = False) -> Iterator[None]:
    """Within, the first stop signal acts as Ctrl-C, which a running job holds back until its step is whole.

    Later ones do nothing: a scheduler often repeats itself, and says SIGKILL where it means at once. For the main
    thread.

    Args:
        then_ignored: keep ignoring them afterwards, because the process ends there: when one of a group has ended, the
            launcher tells the others to, which may be about to end in good order.
    """
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            return
        asked = True
        held = signal.getsignal(signal.SIGINT)
        if callable(held):
            held(signal.SIGINT, frame)
        else:  # a process that was started in the background ignores SIGINT, but must not ignore this
            raise KeyboardInterrupt

    usual = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, signal.SIG_IGN if then_ignored else handler)
