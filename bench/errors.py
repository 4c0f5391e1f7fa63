"""Errors that a user can act on: one line of the CLI, or the reason why a job ended. Nothing else is caught."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence

LONGEST = 1000
"""Characters of a line that is printed. More hides what is wrong; a value of 5,000 digits is cut in its middle."""

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that turn the direction of a text, and bytes of a file name that are no UTF-8."""


def shown(text: str, keep: str = "") -> str:
    """Text that a terminal prints and does not obey: an escape sequence in a file name stands as ``\\x1b[31m``.

    Args:
        keep: control characters that stay as they are.
    """
    return _UNSEEN.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's form of a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning and the end of a long text."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def one_line(message: str) -> str:
    """A message as one printable line of bounded length."""
    return shown(shortened(re.sub(r"\s*\n\s*", " ", message.strip())))


class BenchError(Exception):
    """Something the user can mend. The message is one line that says what is wrong and what to do.

    Args:
        details: further lines, which the command prints below the message.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(one_line(message))
        self.details = tuple(map(one_line, details))


class DiskFull(BenchError):
    """Nothing can be recorded any more, so the whole experiment stops."""


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


def some(names: Iterable[object], most: int = 8) -> str:
    """Names for one line of error: the first few, and how many more there are."""
    shown = [str(name) for name in names]
    more = len(shown) - most
    return ", ".join(shown if more < 2 else [*shown[:most], f"and {more} more"])


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
    """Raise what ends everything: DiskFull, and DeviceLost where ``device_lost``.

    For those who otherwise go on with something else after an error.
    """
    if isinstance(error, DiskFull):
        raise error
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
    hint = f"did you mean {near[0]!r}?" if near else f"known: {some(known, 40)}"
    return BenchError(f"unknown {kind} {shortened(name, 80)!r}; {hint}")


FULL = (errno.ENOSPC, errno.EDQUOT)
"""The disk, or the user's share of it, is full."""

_REASONS = {
    errno.EACCES: "{path} may not be read or written by this user; change its permissions, or give another place",
    errno.EPERM: "{path} may not be changed by this user; change its permissions, or give another place",
    errno.EROFS: "{path} lies on a file system that is read-only; give another place",
    errno.ENOENT: "{path} is not there",
    errno.EISDIR: "{path} is a folder, and a file is needed there; give another path",
    errno.ENOTDIR: "{path} is a file, or leads through one, where a folder is needed; give another path",
    errno.EEXIST: "{path} is there already and is no folder; give another path",
    errno.ENOTEMPTY: "{path} is there already and is not empty; give another path",
    errno.ELOOP: "{path} is a loop of links; give another path",
    errno.ENAMETOOLONG: "{path} is a longer name than the file system takes; give a shorter one",
    errno.EFBIG: "{path} would be larger than files may be here (see `ulimit -f`); raise that limit",
    errno.EMFILE: "{path} cannot be opened: this process has too many files open; raise `ulimit -n`",
    errno.ENFILE: "{path} cannot be opened: this machine has too many files open",
    errno.EIO: "{path} cannot be read or written: the disk reports an error",
    errno.ESTALE: "{path} was taken away by the file server; run the same command",
    errno.ENXIO: "{path} is no file that can be read",
    errno.ETXTBSY: "{path} is a program that runs; give another path",
}
"""What the system says of a path, in words that say what to do."""


def of_path(error: OSError, path: object = None) -> BenchError:
    """The one line of an ``OSError``. ``path`` is what it is about, where the error does not know it."""
    named = error.filename if error.filename is not None else path
    about = shown(shortened(os.fsdecode(named) if isinstance(named, str | bytes) else str(named or "a file"), 300))
    if error.errno in FULL:
        whose = "the disk" if error.errno == errno.ENOSPC else "the quota of the disk"
        return DiskFull(f"{whose} is full ({about}); free some space and run the same command")
    if error.errno in _REASONS:
        return BenchError(_REASONS[error.errno].format(path=about))
    reason = error.strerror or str(error) or type(error).__name__
    return BenchError(f"{about} cannot be read or written: {reason}")


def concerns_a_path(error: OSError) -> bool:
    """Whether an ``OSError`` is about a file or the disk, and not about a pipe, a process or the network."""
    return error.errno in FULL or (error.filename is not None and not isinstance(error, ConnectionError))
