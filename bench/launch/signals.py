"""What a cluster says before it kills, turned into what Ctrl-C says; and both turned into one line."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SIGTERM: schedulers, torchrun. SIGUSR1: what most sbatch scripts ask for. SIGUSR2: what submitit asks for."""

_AGAIN = 0.1
"""Seconds until a stop is asked for again that came where Python lets no error pass."""
_heard: int | None = None
"""The signal that the present command was stopped by."""


def heard() -> int | None:
    """The number of the signal that asked the present command to stop, if one did."""
    return _heard


def note(number: int) -> None:
    """Remember by which signal the present command is stopped. The first one counts."""
    global _heard
    _heard = _heard or number


@contextlib.contextmanager
def stop_signals(*, then_ignored: bool = False) -> Iterator[None]:
    """Within, the first stop signal acts as Ctrl-C, which a running job holds back until its step is whole.

    Later ones do nothing: a scheduler often repeats itself, and says SIGKILL where it means at once. For the main
    thread.

    Args:
        then_ignored: keep ignoring them afterwards, because the process ends there: when one of a group has ended, the
            launcher tells the others to, which may be about to end in good order.
    """
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            return
        stopping = True
        note(number)
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


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A whole command: within, Ctrl-C and stop signals raise KeyboardInterrupt, and ``heard`` says which it was."""
    global _heard
    _heard = None
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    usual, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def interrupt(number: int, frame: FrameType | None) -> None:
        note(number)
        raise KeyboardInterrupt

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):  # in a destructor or a callback, which goes on all the same
            threading.Timer(_AGAIN, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        else:
            hook(lost)

    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = unraisable
    try:
        with stop_signals():
            yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, usual)
