"""A web server on loopback that sends files as good and bad servers do: ranges, cut connections, redirects, errors."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What lies at one path.

    Attributes:
        cuts: after how many bytes the next answers break off.
        ranges: answer a Range header, as most servers do.
        shift: by how many bytes a range is answered wrongly.
        packed: compress what the client takes compressed, as most servers do with text.
        status: of every answer, if it is an error.
        moved_to: the URL of a redirect.
    """

    content: bytes = b""
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    shift: int = 0
    packed: bool = False
    status: int = 200
    moved_to: str = ""


@dataclass
class FileServer:
    """``files`` by path; ``asked``: path, Range and Authorization of every request; ``wait``: holds answers up."""

    files: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    wait: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@contextmanager
def serve() -> Iterator[FileServer]:
    """The server, up for the time of the block."""
    files = FileServer()
    files.wait.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": files}))
    files.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer_range(content: bytes, asked: str | None, shift: int = 0) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer to ``Range: bytes=N-`` (RFC 9110, 14.2), or to no such header."""
    span = re.fullmatch(r"bytes=(\d+)-", asked or "")
    if span is None:
        return 200, content, {}
    begin, total = int(span[1]) + shift, len(content)
    if begin >= total:
        return 416, b"", {"Content-Range": f"bytes */{total}"}
    return 206, content[begin:], {"Content-Range": f"bytes {begin}-{total - 1}/{total}"}


class _Handler(BaseHTTPRequestHandler):
    files: FileServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.files.asked.append((self.path, asked, self.headers.get("Authorization")))
        self.files.wait.wait(10)
        served = self.files.files.get(self.path, Served(status=404))
        if served.moved_to:
            self._send(302, b"", {"Location": served.moved_to})
        elif served.status != 200:
            self._send(served.status, b"")
        else:
            status, body, headers = answer_range(served.content, asked if served.ranges else None, served.shift)
            if served.packed and "gzip" in self.headers.get("Accept-Encoding", ""):
                body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
            self._send(status, body, headers, served.cuts.pop(0) if served.cuts else None)

    def log_message(self, *args: Any) -> None:
        pass

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
