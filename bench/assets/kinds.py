"""How an asset is found, fetched, copied and checked: a file by URL, a model of the hub.

Files come into ``<cache>/assets/``, hub models into the cache of ``huggingface_hub``, which other programs share. Large
files go on where a download broke off (``bench.assets.download``).
"""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.assets import download
from bench.errors import BenchError, concerns_a_path, of_path
from bench.records import atomic


class Differs(Exception):
    """The file or folder is not the asset; the message says how it differs."""


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
    def check(self, path: Path) -> None:
        """Raises Differs if a SHA-256 is not the pinned one."""

    @property
    @abstractmethod
    def verdict(self) -> str:
        """The words of ``verify`` for a copy that passes ``check``: ``ok``, and which part could not be checked."""

    @property
    def by_hand(self) -> str:
        """What brings it where no network is, for the line of an error."""
        return f"run `bench assets fetch {self.name} --from FOLDER`"

    @abstractmethod
    def download(self, cache: Path, *, anew: bool) -> None:
        """Fetch it, over a damaged copy if ``anew``. Raises BenchError, and keeps nothing that differs."""

    @abstractmethod
    def copy(self, folder: Path, cache: Path) -> None:
        """Take it from a folder of this machine. Raises BenchError, and keeps nothing that differs."""


@dataclass(frozen=True)
class File(Asset):
    """A file by URL, pinned by SHA-256.

    Attributes:
        sha256: all 64 digits; or at least the first 8, where the source publishes no more than those. OpenMMLab and
            torchvision put them into the file's name. Eight digits tell a damaged file from a whole one, and editions
            from each other; they do not protect against somebody who makes a file to match.
    """

    url: str
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{8,64}", self.sha256):
            raise ValueError(f"{self.name}: {self.sha256!r} is neither a SHA-256 nor 8 or more of its first digits")

    @property
    def _whole(self) -> bool:
        return len(self.sha256) == download.WHOLE_SHA256

    @property
    def verdict(self) -> str:
        return "ok" if self._whole else "ok, hash prefix only"

    @property
    def source(self) -> str:
        return self.url

    @property
    def identity(self) -> str:
        return f"sha256:{self.sha256}" if self._whole else f"sha256 prefix:{self.sha256}"

    def home(self, cache: Path) -> Path:
        return cache / "assets" / f"{self.name}{Path(self.url).suffix}"

    def find(self, cache: Path) -> Path | None:
        return self.home(cache) if self.home(cache).is_file() else None

    def check(self, path: Path) -> None:
        check_file(path, self.sha256)

    def download(self, cache: Path, *, anew: bool) -> None:  # a damaged copy is replaced in any case
        from requests import RequestException

        home = self.home(cache)
        try:
            download.fetch(
                self.url,
                home,
                self.sha256,
                self.size,
                what=self.name,
                lock=home.parent / ".locks" / f"{home.name}.lock",
            )
        except download.OtherContent as error:
            raise _another(self, self.url, self.sha256) from error
        except (RequestException, ValueError) as error:  # a ValueError: of the client, for a URL or a proxy
            raise _unreachable(self, error) from error

    def copy(self, folder: Path, cache: Path) -> None:
        """Found by content, since two sources may call their files the same (``test.txt``)."""
        home = self.home(cache)
        names = (home.name, Path(self.url).name)
        for candidate in sorted(path for path in folder.rglob("*") if path.is_file()):
            if candidate.stat().st_size != self.size and candidate.name not in names:
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
    def verdict(self) -> str:
        return "ok" if all(self.files.values()) else "ok, by the hub's own hashes"

    @property
    def source(self) -> str:
        return f"https://huggingface.co/{self.repo}/tree/{self.revision}"

    @property
    def by_hand(self) -> str:
        if all(self.files.values()):
            return super().by_hand
        folder = f"models--{self.repo.replace('/', '--')}"
        return f"copy the folder {folder} of another machine's hub cache into this one's, $HF_HOME/hub"

    @property
    def identity(self) -> str:
        return f"{self.repo}@{self.revision}"

    def home(self, cache: Path) -> Path:
        return cache / "assets" / self.name

    def find(self, cache: Path) -> Path | None:
        """A copy under the cache folder, else the snapshot in the hub's own cache."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        folder = self.home(cache)
        if not folder.is_dir():
            try:
                folder = Path(
                    snapshot_download(
                        self.repo, revision=self.revision, local_files_only=True, allow_patterns=list(self.files)
                    )
                )
            except LocalEntryNotFoundError:
                return None
        return folder if all((folder / file).is_file() for file in self.files) else None

    def check(self, path: Path) -> None:
        for file, pinned in self.files.items():
            if sha256 := pinned or _listed(path / file):
                check_file(path / file, sha256)

    def download(self, cache: Path, *, anew: bool) -> None:
        from huggingface_hub.errors import GatedRepoError

        try:
            self._download(anew)
        except GatedRepoError as error:
            raise BenchError(
                f"{self.repo} is gated: accept its licence on its page on the hub, log in with `hf auth login`, "
                f"and run `bench assets fetch {self.name}` again"
            ) from error
        except BenchError:
            raise
        except Exception as error:  # the transport's errors have no lasting class: requests, httpx and httpx2 in turn
            if isinstance(error, OSError) and concerns_a_path(error):
                raise of_path(error) from error
            raise _unreachable(self, error) from error
        shutil.rmtree(self.home(cache), ignore_errors=True)  # a damaged copy there would go before the hub's cache

    def _download(self, anew: bool) -> None:
        """Large files first and by our own downloader, since the hub's client (2.4) forgets what it has of a file.

        It finds them in its cache, links to them and brings the rest. Large is what the hub keeps in git LFS; the cache
        names such a file by its SHA-256.
        """
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.file_download import repo_folder_name
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        wanted, ignored = list(self.patterns or self.files), list(self.ignored)
        listed = HfApi().model_info(self.repo, revision=self.revision, files_metadata=True).siblings or []
        chosen = list(
            filter_repo_objects(listed, allow_patterns=wanted, ignore_patterns=ignored, key=lambda file: file.rfilename)
        )
        store = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repo, repo_type="model")
        for file in chosen:
            if anew:  # there may be a damaged copy where a link should be
                (store / "snapshots" / self.revision / file.rfilename).unlink(missing_ok=True)
            if file.lfs is not None:
                self._download_large(file.rfilename, file.lfs.sha256, file.lfs.size, store)
        small = [file.rfilename for file in chosen if file.lfs is None]
        if anew and small:
            snapshot_download(self.repo, revision=self.revision, allow_patterns=small, force_download=True)
        snapshot_download(self.repo, revision=self.revision, allow_patterns=wanted, ignore_patterns=ignored)

    def _download_large(self, file: str, sha256: str, size: int, store: Path) -> None:
        from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

        if self.files.get(file) not in (None, sha256):
            raise _another(self, f"{self.repo}/{file}", str(self.files[file]))
        url = hf_hub_url(self.repo, file, revision=self.revision)
        get_hf_file_metadata(url)  # raises the hub's own errors
        try:
            download.fetch(
                url,
                store / "blobs" / sha256,
                sha256,
                size,
                what=file,
                lock=store.parent / ".locks" / store.name / f"{sha256}.lock",  # the hub's own
                headers={"Authorization": f"Bearer {get_token()}"} if get_token() else {},
            )
        except download.OtherContent as error:
            raise _another(self, url, sha256) from error

    def copy(self, folder: Path, cache: Path) -> None:
        if not all(self.files.values()):
            raise BenchError(f"{self.name} has no pinned hashes to check a copy by; {self.by_hand}")
        named = (folder, folder / self.name, folder / self.repo.partition("/")[2])
        whole = [place for place in named if all((place / file).is_file() for file in self.files)]
        if not whole:
            raise BenchError(f"{folder} does not hold the files of {self.repo}: {', '.join(self.files)}")
        try:
            self.check(whole[0])
        except Differs as error:
            raise BenchError(f"{whole[0]} is not the asset {self.name}: {error}; nothing was copied") from error
        home = self.home(cache)
        with atomic.unfinished_folder(home) as copy:
            for file, sha256 in self.files.items():
                assert sha256 is not None  # checked above, file by file
                _copy_file(whole[0] / file, copy / file, sha256)
            shutil.rmtree(home, ignore_errors=True)
            copy.rename(home)


def _another(asset: Asset, source: str, sha256: str) -> BenchError:
    return BenchError(
        f"{source} no longer sends the {asset.name} with SHA-256 {sha256[:12]}…; nothing was kept; "
        f"find a copy and {asset.by_hand}"
    )


def _unreachable(asset: Asset, error: Exception) -> BenchError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    socks = "install the package PySocks for your proxy; " if "SOCKS" in reason.upper() else ""
    return BenchError(
        f"asset {asset.name} could not be fetched from {asset.source} ({type(error).__name__}: {reason[:160]}); {socks}"
        f"without a network, {asset.by_hand}"
    )


def _copy_file(source: Path, target: Path, sha256: str) -> None:
    """Copy and check the copy, so that ``target`` appears only whole."""
    with atomic.unfinished(target.parent, target.name) as partial:
        with source.open("rb") as content:
            shutil.copyfileobj(content, partial)
        partial.flush()
        check_file(Path(partial.name), sha256)
        atomic.keep(partial, target)


def _listed(file: Path) -> str | None:
    """The SHA-256 that the hub listed for a large file when it was fetched: the name of what its cache links to."""
    name = file.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def check_file(path: Path, sha256: str) -> None:
    """Raises Differs if the file's SHA-256 does not begin with ``sha256``."""
    actual = sha256_of(path)
    if not actual.startswith(sha256):
        raise Differs(f"SHA-256 of {path} is {actual[:12]}… and not {sha256[:12]}…")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    facts = path.stat()
    return _hashed(path.resolve(), facts.st_size, facts.st_mtime_ns)


@cache
def _hashed(path: Path, size: int, changed: int) -> str:
    """Hashed once per process and state of the file, since a large model is asked for by several metrics."""
    return download.hash_of(path)
