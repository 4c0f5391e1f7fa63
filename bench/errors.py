"""Errors that a user can act on: one line of the CLI, or the reason why a job ended. Nothing else is caught."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Something the user can mend. The message is one line that says what is wrong and what to do."""


class Missing(BenchError):
    """Something from outside is not here. The message says how to get it; ``asset`` is its name in ``bench assets``."""

    def __init__(self, message: str, asset: str) -> None:
        super().__init__(message)
        self.asset = asset


class DeviceLost(BenchError):
    """The device takes no more work from this process, whatever it is asked for. Nothing else may be tried in it."""


class JobFailure(Exception):
    """The method did something that ends this job and no other: the reason goes into its status."""


class Undeclared(JobFailure):
    """The method used a door that its ``needs`` does not open."""


def device_lost(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is CUDA's and leaves the process without its device.

    All of CUDA's errors but a lack of memory do: after an assert or a wild address in a kernel every later call fails.
    """
    while error is not None:
        said = str(error)
        ours = type(error).__name__ == "AcceleratorError" or "CUDA error" in said
        if isinstance(error, DeviceLost) or (ours and isinstance(error, RuntimeError) and "out of memory" not in said):
            return True
        error = error.__cause__ or error.__context__
    return False


def stop_if_lost(error: BaseException) -> None:
    """Raise DeviceLost where ``device_lost``. For those who otherwise go on with something else after an error."""
    if device_lost(error):
        if isinstance(error, DeviceLost):
            raise error
        said = " ".join(str(error).split())
        raise DeviceLost(
            f"the device is lost ({type(error).__name__}: {said}); run the same command again, in a new process"
        ) from error


def unknown(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """An error for a mistyped name, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return BenchError(f"unknown {kind} {name!r}; {hint}")
