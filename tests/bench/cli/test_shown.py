"""What is printed is printable, on one line, and no longer than a reader bears; what the system says is in words."""

from __future__ import annotations

import errno
import os

import pytest

from bench.errors import FULL, LONGEST, BenchError, DiskFull, concerns_a_path, of_path, shown
from bench.machine.progress import Progress


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain é 日本 😀", "plain é 日本 😀"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;t\x07", r"\x1b]0;t\x07"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        (os.fsdecode(b"\xff.png"), r"\xff.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, printed: str) -> None:
    assert shown(text) == printed
    printed.encode()


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert str(BenchError("one\n  two\x1b")) == r"one two\x1b"
    text = str(BenchError("a" * 5000 + "b"))
    assert len(text) <= LONGEST + 3 and text.startswith("aaa") and text.endswith("b")


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_whatever_the_system_says_of_a_path_is_one_line_that_names_it(number: int) -> None:
    error = of_path(OSError(number, os.strerror(number), "/data/a\x1b.png"))
    assert r"/data/a\x1b.png" in str(error) and "\n" not in str(error) and "Errno" not in str(error)
    assert isinstance(error, DiskFull) == (number in FULL)


def test_a_pipe_or_a_server_is_no_path() -> None:
    assert not concerns_a_path(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert not concerns_a_path(ConnectionRefusedError(errno.ECONNREFUSED, "refused", "host"))
    assert concerns_a_path(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert concerns_a_path(PermissionError(errno.EACCES, "denied", "file"))


def test_a_line_of_progress_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say("pics/\x1b[31m\x07: 3 pairs")
    assert capsys.readouterr().err == "pics/\\x1b[31m\\x07: 3 pairs\n"
