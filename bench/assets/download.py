"""Downloads that resume after an interruption. A file appears only when its SHA-256 is right.

``pooch`` tries again and moves files to their place; this downloader keeps what has arrived in a ``.part`` file
beside that place and asks the server for the rest. A part of an outdated file gives a wrong hash, and the next attempt
starts from nothing.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.machine.progress import Progress, Task

if TYPE_CHECKING:
    import requests

RETRIES = 2
"""Further attempts after one that brought no byte or a wrong hash. One that brought bytes is not counted."""
PAUSE = 1.0
"""Seconds before an interrupted download resumes."""
TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection and for the next bytes."""
PIECE = 1 << 16
"""Bytes read at a time. A connection that breaks loses less than one piece of what had arrived."""
WHOLE_SHA256 = 64


class OtherContent(ValueError):
    """What a server sends has another SHA-256. A ``ValueError``, which ``pooch`` tries again after."""


def fetch(
    url: str,
    target: Path,
    sha256: str,
    size: int,
    *,
    what: str,
    lock: Path,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Bring a file to ``target``, unless it is there and right; what is there and wrong is replaced.

    Another process that fetches it at the same time waits for the first and finds it there.

    Args:
        sha256: the whole hash, or its first digits.
        size: expected bytes, for the bar and for the room they need.
        what: its name, for people.
        lock: the file that processes lock.
        headers: sent with each request. ``Authorization`` is not sent on to another host.

    Raises:
        OtherContent: what came has another hash; nothing is kept.
        requests.RequestException: it could not be had; what has arrived is kept for the next time.
        BenchError: the disk is full; what has arrived is kept.
    """
    import pooch
    from filelock import FileLock

    pooch.get_logger().setLevel("WARNING")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if target.exists() and hash_of(target).startswith(sha256):
            return  # checked here, as the content of an arrival is: pooch's errors do not tell what failed
        # A kill leaves a temporary file of pooch's. It lies in a folder of this file's own, which is emptied first.
        desk = target.with_name(f".{target.name}.fetch")
        shutil.rmtree(desk, ignore_errors=True)
        try:
            pooch.create(
                path=desk,
                base_url="",
                registry={target.name: None},
                urls={target.name: url},
                retry_if_failed=RETRIES,
            ).fetch(target.name, downloader=Resuming(target, sha256, size, what, headers or {}))
            (desk / target.name).replace(target)
        finally:
            shutil.rmtree(desk, ignore_errors=True)


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Resuming:
    """A downloader for ``pooch``. Arguments as in ``fetch``."""

    target: Path
    sha256: str
    size: int
    what: str
    headers: Mapping[str, str]

    @property
    def part(self) -> Path:
        """What has arrived."""
        return self.target.with_name(f".{self.target.name}.part")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        from requests import ConnectionError, Timeout
        from requests.exceptions import ChunkedEncodingError

        with Progress().task(self.what, self.size) as task:
            while True:
                before = self._have()
                try:
                    self.receive(url, task)
                    break
                except (ChunkedEncodingError, ConnectionError, Timeout):
                    if self._have() <= before:
                        raise
                    time.sleep(PAUSE)
        self.part.replace(output_file)
        if not hash_of(Path(output_file)).startswith(self.sha256):
            raise OtherContent(f"what {url} sends has another SHA-256")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def receive(self, url: str, task: Task) -> None:
        """One request for all that is missing."""
        import requests

        have = self._have()
        headers = {**self.headers, "Accept-Encoding": "identity"}  # bytes on disk are bytes of the answer
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            match _answered(answer, have):
                case "whole":
                    return
                case "other":
                    self.part.unlink()
                    self.receive(url, task)
                    return
                case "rest":
                    mode = "ab"
                case _:
                    answer.raise_for_status()
                    have, mode = 0, "wb"
            self._need(int(answer.headers.get("Content-Length", self.size - have)))
            try:
                with self.part.open(mode) as file:
                    for piece in answer.iter_content(PIECE):
                        file.write(piece)
                        task.set(file.tell())
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise self._full() from error
                raise

    def _need(self, missing: int) -> None:
        if shutil.disk_usage(self.part.parent).free < missing:
            raise self._full()

    def _full(self) -> BenchError:
        missing = max(self.size - self._have(), 0)
        return BenchError(
            f"the disk is full: {self.target.parent} has no room for the {missing / 1e6:,.1f} MB of {self.what} "
            "that are missing; what has arrived is kept: free some space and run the same command"
        )


def _answered(answer: requests.Response, have: int) -> str:
    """How a server answers who has the first ``have`` bytes.

    ``whole``: there are no more. ``rest``: it goes on after them. ``other``: it has another range, or a shorter file.
    ``all``: it starts from the first byte, or refuses.
    """
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if have and answer.status_code == 416:
        return "whole" if span and span[2] == str(have) else "other"
    if have and answer.status_code == 206:
        return "rest" if span and span[1] == str(have) else "other"
    return "all"
