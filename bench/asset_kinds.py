"""How a thing from outside is found, fetched, copied and checked: a file by URL, a model of the hub.

Files come through ``pooch`` into ``<cache>/assets/``, hub models through ``huggingface_hub`` into its own cache, which
other programs share. Files that arrived whole are kept; neither package resumes within a file (pooch 1.9,
huggingface_hub 2.4), so one that was cut off starts again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.errors import BenchError

RETRIES = 2
"""Further attempts at a download that broke off or came with another hash."""


class Differs(Exception):
    """What lies there is not the asset; the message says how it differs."""


@dataclass(frozen=True)
class Asset(ABC):
    """One line of the table.

    Attributes:
        size: bytes to fetch.
        licence: of the source, and of the content where that is another's.
        stand_in: may be replaced through ``BENCH_ASSET_<NAME>``, as tests do with tiny random models.
    """

    name: str
    what: str
    size: int
    licence: str
    stand_in: bool

    @property
    @abstractmethod
    def source(self) -> str:
        """Where it comes from, for people."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What pins its content, for records."""

    @abstractmethod
    def home(self, cache: Path) -> Path:
        """Where a copy of it is kept under a cache folder."""

    @abstractmethod
    def find(self, cache: Path) -> Path | None:
        """Where it lies on this machine, unchecked; None if it does not."""

    @abstractmethod
    def check(self, found: Path) -> None:
        """Raises Differs if a SHA-256 is not the pinned one."""

    @property
    @abstractmethod
    def hashed(self) -> bool:
        """True if every file of it is pinned by a hash."""

    @abstractmethod
    def download(self, cache: Path, *, anew: bool) -> None:
        """Fetch it, over a damaged copy if ``anew``. Raises BenchError, and keeps nothing that differs."""

    @abstractmethod
    def copy(self, folder: Path, cache: Path) -> None:
        """Take it from a folder of this machine. Raises BenchError, and keeps nothing that differs."""


@dataclass(frozen=True)
class File(Asset):
    """A file by URL, pinned by SHA-256."""

    url: str
    sha256: str

    @property
    def hashed(self) -> bool:
        return True

    @property
    def source(self) -> str:
        return self.url

    @property
    def identity(self) -> str:
        return f"sha256:{self.sha256}"

    def home(self, cache: Path) -> Path:
        return cache / "assets" / f"{self.name}{Path(self.url).suffix}"

    def find(self, cache: Path) -> Path | None:
        return self.home(cache) if self.home(cache).is_file() else None

    def check(self, found: Path) -> None:
        check_file(found, self.sha256)

    def download(self, cache: Path, *, anew: bool) -> None:  # pooch replaces a damaged copy in any case
        import pooch
        from requests import RequestException

        pooch.get_logger().setLevel("WARNING")
        home = self.home(cache)
        fetcher = pooch.create(
            path=home.parent,
            base_url="",
            registry={home.name: f"sha256:{self.sha256}"},
            urls={home.name: self.url},
            retry_if_failed=RETRIES,
        )
        try:
            fetcher.fetch(home.name)
        except ValueError as error:  # pooch's word for another hash
            raise BenchError(
                f"{self.url} no longer sends the {self.name} with SHA-256 {self.sha256[:12]}…; nothing was kept; "
                f"find a copy and run `bench assets fetch {self.name} --from FOLDER`"
            ) from error
        except RequestException as error:
            raise _unreachable(self, error) from error

    def copy(self, folder: Path, cache: Path) -> None:
        """Found by content, since two sources may call their files the same (``test.txt``)."""
        home = self.home(cache)
        for candidate in sorted(path for path in folder.rglob("*") if path.is_file()):
            same_size = candidate.stat().st_size == self.size
            if not same_size and candidate.name != home.name:
                continue
            try:
                self.check(candidate)
            except Differs as error:
                if candidate.name == home.name:
                    raise BenchError(
                        f"{candidate} is not the asset {self.name}: {error}; nothing was copied"
                    ) from error
                continue
            _copy_file(candidate, home, self.sha256)
            return
        raise BenchError(
            f"{folder} holds no file with the SHA-256 of {self.name} ({self.sha256[:12]}…, {self.size} bytes)"
        )


@dataclass(frozen=True)
class HubModel(Asset):
    """A model of the Hugging Face hub at one revision.

    Attributes:
        files: what must be there, with SHA-256 where one is known from two sources that do not depend on each other.
        patterns, ignored: which files of the repository are fetched; default: just ``files``.
    """

    repo: str
    revision: str
    files: Mapping[str, str | None]
    patterns: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def hashed(self) -> bool:
        return all(self.files.values())

    @property
    def source(self) -> str:
        return f"https://huggingface.co/{self.repo}/tree/{self.revision}"

    @property
    def identity(self) -> str:
        return f"{self.repo}@{self.revision}"

    def home(self, cache: Path) -> Path:
        return cache / "assets" / self.name

    def find(self, cache: Path) -> Path | None:
        """A copy under the cache folder, else the snapshot in the hub's own cache."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        found = self.home(cache)
        if not found.is_dir():
            try:
                found = Path(snapshot_download(self.repo, revision=self.revision, local_files_only=True))
            except LocalEntryNotFoundError:
                return None
        return found if all((found / file).is_file() for file in self.files) else None

    def check(self, found: Path) -> None:
        for file, sha256 in self.files.items():
            if sha256 is not None:
                check_file(found / file, sha256)

    def download(self, cache: Path, *, anew: bool) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

        try:
            snapshot_download(
                self.repo,
                revision=self.revision,
                allow_patterns=list(self.patterns or self.files),
                ignore_patterns=list(self.ignored),
                force_download=anew,
            )
        except GatedRepoError as error:
            raise BenchError(
                f"{self.repo} is gated: accept its licence on its page on the hub, log in with `hf auth login`, "
                f"and run `bench assets fetch {self.name}` again"
            ) from error
        except (HfHubHTTPError, OSError) as error:
            if error.errno == errno.ENOSPC:
                raise
            raise _unreachable(self, error) from error
        shutil.rmtree(self.home(cache), ignore_errors=True)  # a damaged copy there would go before the hub's cache

    def copy(self, folder: Path, cache: Path) -> None:
        if not self.hashed:
            raise BenchError(
                f"{self.name} has no pinned hashes to check a copy by; give its folder where it is used instead "
                "(`--backbone FOLDER`)"
            )
        named = (folder, folder / self.name, folder / self.repo.partition("/")[2])
        whole = [place for place in named if all((place / file).is_file() for file in self.files)]
        if not whole:
            raise BenchError(f"{folder} does not hold the files of {self.repo}: {', '.join(self.files)}")
        try:
            self.check(whole[0])
        except Differs as error:
            raise BenchError(f"{whole[0]} is not the asset {self.name}: {error}; nothing was copied") from error
        partial = self.home(cache).with_name(f".{self.name}.{os.getpid()}.partial")
        for file, sha256 in self.files.items():
            assert sha256 is not None  # checked above, file by file
            _copy_file(whole[0] / file, partial / file, sha256)
        shutil.rmtree(self.home(cache), ignore_errors=True)
        partial.rename(self.home(cache))


def _unreachable(asset: Asset, error: Exception) -> BenchError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BenchError(
        f"asset {asset.name} could not be fetched from {asset.source} ({type(error).__name__}: {reason[:160]}); "
        f"without a network, run `bench assets fetch {asset.name} --from FOLDER`"
    )


def _copy_file(source: Path, target: Path, sha256: str) -> None:
    """Copy and check the copy, so that ``target`` appears only whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(source, partial)
        check_file(partial, sha256)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_file(path: Path, sha256: str) -> None:
    """Raises Differs if the file's SHA-256 is another one."""
    found = sha256_of(path)
    if found != sha256:
        raise Differs(f"SHA-256 of {path} is {found[:12]}… and not {sha256[:12]}…")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    facts = path.stat()
    return _hashed(path.resolve(), facts.st_size, facts.st_mtime_ns)


@cache
def _hashed(path: Path, size: int, changed: int) -> str:
    """Hashed once per process and state of the file, since a large model is asked for by several metrics."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
