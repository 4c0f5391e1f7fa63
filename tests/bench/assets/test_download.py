"""Downloads from a server on loopback: they go on where they broke off, and end in the right bytes or in one error."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import file_server
import pytest
import requests
from file_server import FileServer, Served
from launching import wait_until

from bench.assets import download
from bench.errors import BenchError

CONTENT = bytes(range(256)) * 40
OTHER = bytes(reversed(CONTENT))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with one file at ``/file``."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr(download, "PIECE", 512)
    with file_server.serve() as running:
        running.files["/file"] = Served(CONTENT)
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file is to lie."""
    return tmp_path / "assets" / "file.bin"


def bring(server: FileServer, target: Path, sha256: str = SHA256, url: str = "", **headers: str) -> None:
    lock = target.parent / ".locks" / "file.lock"
    url = url or server.url("/file")
    download.fetch(url, target, sha256, len(CONTENT), what="the file", lock=lock, headers=headers)


def part_of(target: Path, content: bytes | None = None) -> Path:
    part = target.with_name(".file.bin.part")
    if content is not None:
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
    return part


def ranges(server: FileServer) -> list[str | None]:
    return [span for _, span, _ in server.asked]


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.is_file())


def test_a_whole_file_arrives_and_is_not_fetched_again(server: FileServer, target: Path) -> None:
    bring(server, target)
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file.bin"]
    assert ranges(server) == [None]


def test_a_cut_connection_goes_on_at_the_byte_where_it_broke(server: FileServer, target: Path) -> None:
    server.files["/file"].cuts = [5120, 1024]
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=5120-", "bytes=6144-"]
    assert left(target) == ["file.bin"]


def test_a_later_command_goes_on_with_what_an_earlier_one_left(server: FileServer, target: Path) -> None:
    server.files["/file"].cuts = [5120, 0]
    with pytest.raises(requests.RequestException):
        bring(server, target)
    assert left(target) == [".file.bin.part"]
    assert part_of(target).read_bytes() == CONTENT[:5120]
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=5120-"


def test_a_download_that_was_killed_leaves_nothing_after_the_next(server: FileServer, target: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bench.assets import download\n"
        "url, target, sha256, size = sys.argv[1:]\n"
        "lock = Path(target).parent / '.locks' / 'file.lock'\n"
        "download.fetch(url, Path(target), sha256, int(size), what='the file', lock=lock)"
    )
    given = [server.url("/file"), str(target), SHA256, str(len(CONTENT))]
    server.wait.clear()
    process = subprocess.Popen([sys.executable, "-c", code, *given])
    wait_until(lambda: bool(server.asked))
    process.kill()
    process.wait()
    server.wait.set()
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert sorted(path.name for path in target.parent.iterdir()) == [".locks", "file.bin"]


def test_a_server_that_brings_nothing_is_given_up(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 1)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    server.files["/file"].cuts = [0] * 9
    with pytest.raises(requests.RequestException):
        bring(server, target)
    assert len(server.asked) == 2


def test_a_server_without_ranges_sends_it_from_the_start(server: FileServer, target: Path) -> None:
    part_of(target, CONTENT[:5120])
    server.files["/file"].ranges = False
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=5120-"]


@pytest.mark.parametrize("kept", [CONTENT + b"longer", OTHER + b"longer"])
def test_a_part_that_is_longer_than_the_file_is_dropped(server: FileServer, target: Path, kept: bytes) -> None:
    part_of(target, kept)
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={len(kept)}-", None]


def test_a_part_that_was_whole_is_not_fetched_again(server: FileServer, target: Path) -> None:
    part_of(target, CONTENT)
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={len(CONTENT)}-"]


def test_a_range_that_begins_elsewhere_is_not_taken(server: FileServer, target: Path) -> None:
    part_of(target, CONTENT[:5120])
    server.files["/file"].shift = 100
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=5120-", None]


def test_a_part_of_another_file_costs_one_attempt(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 1)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    part_of(target, OTHER[:5120])
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=5120-", None]


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_another_file_is_refused_and_not_kept(server: FileServer, target: Path, sha256: str) -> None:
    server.files["/file"].content = OTHER
    with pytest.raises(ValueError, match=r"SHA-?256"):
        bring(server, target, sha256)
    assert left(target) == []


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_a_damaged_copy_is_replaced_and_a_right_one_is_not(server: FileServer, target: Path, sha256: str) -> None:
    target.parent.mkdir()
    target.write_bytes(OTHER)
    bring(server, target, sha256)
    bring(server, target, sha256)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_an_error_of_the_server_is_told_and_a_part_outlives_it(server: FileServer, target: Path) -> None:
    part_of(target, CONTENT[:5120])
    for status in (404, 403, 503):
        server.files["/file"].status = status
        with pytest.raises(requests.HTTPError, match=str(status)):
            bring(server, target)
    assert part_of(target).read_bytes() == CONTENT[:5120]


def test_a_server_that_compresses_is_asked_not_to(server: FileServer, target: Path) -> None:
    server.files["/file"].packed = True
    server.files["/file"].cuts = [5120]
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=5120-"]


def test_a_redirect_is_followed_and_a_token_stays_with_its_host(server: FileServer, target: Path) -> None:
    server.files["/old"] = Served(moved_to=server.url("/file", host="localhost"))
    part_of(target, CONTENT[:5120])
    bring(server, target, url=server.url("/old"), Authorization="Bearer secret")
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/old", "bytes=5120-", "Bearer secret"), ("/file", "bytes=5120-", None)]


def test_two_at_the_same_time_fetch_it_once(server: FileServer, target: Path) -> None:
    server.wait.clear()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(bring, server, target) for _ in range(2)]
        while not server.asked:
            threading.Event().wait(0.01)
        threading.Event().wait(0.2)
        server.wait.set()
        for one in both:
            one.result()
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_disk_without_room_is_seen_before_the_first_byte(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_of(target, CONTENT[:5120])
    usage = namedtuple("usage", "total used free")
    missing = len(CONTENT) - 5120
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage(0, 0, missing - 1))
    with pytest.raises(BenchError, match=r"^the disk is full: .* has no room for the 0\.0 MB of the file that are"):
        bring(server, target)
    assert part_of(target).read_bytes() == CONTENT[:5120]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage(0, 0, missing))
    bring(server, target)
    assert target.read_bytes() == CONTENT


def test_a_disk_that_fills_up_ends_in_one_line_and_keeps_the_part(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling:
        """A file that takes 1,024 bytes."""

        def __init__(self, path: Path, mode: str) -> None:
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self) -> Filling:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, piece: bytes) -> None:
            if self.file.tell() >= 1024:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.file.write(piece)

        def tell(self) -> int:
            return self.file.tell()

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode="r", *rest, **named: Filling(path, mode))
        with pytest.raises(BenchError, match="what has arrived is kept: free some space and run the same") as caught:
            bring(server, target)
    assert "\n" not in str(caught.value)
    assert part_of(target).read_bytes() == CONTENT[:1024]
    bring(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=1024-"]


def test_progress_is_told_in_bytes_of_the_whole(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, float]] = []
    monkeypatch.setattr(download.Task, "set", lambda self, done, note="": seen.append((self.name, done, self.total)))
    part_of(target, CONTENT[:5120])
    bring(server, target)
    assert seen[0] == ("the file", 5632, len(CONTENT))
    assert seen[-1] == ("the file", len(CONTENT), len(CONTENT))
