"""A web server on loopback that answers as the Hugging Face hub does: model info, file lists, files, and its errors."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from file_server import answer_range

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Model:
    """A repository of one commit. ``gated``: its files need the token ``granted``."""

    folder: Path
    gated: bool = False
    branches: tuple[str, ...] = ("main",)


@dataclass
class FakeHub:
    """``models`` by id; ``down``: every answer is 503; ``requests``: what was asked.

    ``cuts``: after how many bytes the next answers with a large file break off; ``ranges``: those that were asked for.
    """

    models: dict[str, Model] = field(default_factory=dict)
    down: bool = False
    requests: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    def files_sent(self) -> set[str]:
        """Names of the files whose contents were asked for."""
        return {
            path.split(f"/resolve/{COMMIT}/")[1]
            for path in self.requests
            if path.startswith("GET") and "/resolve/" in path
        }


@contextmanager
def serve() -> Iterator[FakeHub]:
    """The hub, up for the time of the block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git_id(content: bytes) -> str:
    """Name of a small file's blob: git's."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} /{path}")
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        parts = path.removeprefix("api/models/").split("/")
        name, verb, rest = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", parts[3:]
        model = self.hub.models.get(name)
        if self.hub.down:
            self._send(503, b"down")
        elif token == "expired":
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif model is None:
            anonymous = {"X-Error-Message": "Invalid username or password."}
            self._send(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"} if token else anonymous)
        elif rest and rest[0] not in (COMMIT, *model.branches):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif verb == "revision":
            siblings = [_sibling(_entry(model.folder, p)) for p in _files(model.folder)]
            self._send(200, json.dumps({"_id": "0", "id": name, "sha": COMMIT, "siblings": siblings}).encode())
        elif verb == "tree":
            self._send(200, json.dumps([_entry(model.folder, p) for p in _files(model.folder)]).encode())
        elif model.gated and token != "granted":
            self._send(403 if token else 401, b"", {"X-Error-Code": "GatedRepo"})
        else:
            content = (model.folder / "/".join(rest[1:])).read_bytes()
            entry = _entry(model.folder, model.folder / "/".join(rest[1:]))
            linked = (
                {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
                if "lfs" in entry
                else {}
            )
            status, content, span = answer_range(content, self.headers.get("Range"))
            cut = self.hub.cuts.pop(0) if self.hub.cuts and linked and self.command == "GET" else None
            if self.headers.get("Range"):
                self.hub.ranges.append(self.headers["Range"])
            self._send(status, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{entry["oid"]}"', **linked, **span}, cut)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    entry: dict[str, Any] = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": git_id(content),
    }
    if path.suffix in (".safetensors", ".bin"):  # large files: git LFS
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _sibling(entry: dict[str, Any]) -> dict[str, Any]:
    """The same file as model info lists it, which has other words."""
    lfs = entry.get("lfs")
    named = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
    return named | ({"lfs": {**lfs, "sha256": lfs["oid"]}} if lfs else {})
