"""Files of a corpus: which of a folder's files are its own, and under which names they are found."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bench.corpus import BadPair, Problem, Unreachable
from data_curation.pictures import limited

LEAVES = "its file name leaves the folder"

OTHER_LAYOUTS = (".tar", ".parquet", ".arrow")
"""Files that are a corpus by themselves. A corpus of another layout does not read them."""

OTHER_LAYOUT = "a corpus of another layout than the files beside it; give it a folder of its own"

SYSTEM = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__")
) | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
"""Names, in lower case, that macOS, Windows and network disks leave. Hidden names (``.git``, ``._x``) come on top."""

HUB_FOLDERS = ("datasets--", "models--", "spaces--")
"""How the folders of the Hugging Face hub's cache begin. Their snapshots hold links to ``blobs`` beside them."""


def left_over(name: str) -> bool:
    """Whether a relative path belongs to a system or an editor: hidden, a backup, or in a folder that is one of these.

    Such files are no members of a corpus, in folders and in tars alike.
    """
    return any(
        (part.startswith(".") and part != "..")
        or part.endswith("~")
        or (part.startswith("#") and part.endswith("#"))
        or part.lower() in SYSTEM
        for part in PurePosixPath(name).parts
    )


def files_in(folder: Path) -> Iterator[Path | Problem]:
    """What lies in a folder and below, sorted by the parts of the path, without what a system or an editor left.

    A folder that cannot be listed, and a link to a folder, are problems: nobody knows what is behind them.
    """
    waiting: list[Path | os.DirEntry[str]] = [folder]
    while waiting:
        entry = waiting.pop()
        path = Path(entry)
        try:
            if entry is folder or (isinstance(entry, os.DirEntry) and entry.is_dir(follow_symlinks=False)):
                with os.scandir(path) as entries:
                    own = [inner for inner in entries if not left_over(inner.name)]
                waiting += sorted(own, key=lambda inner: inner.name, reverse=True)
            elif entry.is_symlink() and path.is_dir():
                yield Problem(path.relative_to(folder).as_posix(), "it is a link to a folder, which is not followed")
            else:
                yield path
        except (PermissionError, FileNotFoundError) as error:
            yield Problem(path.relative_to(folder).as_posix(), f"it cannot be listed ({type(error).__name__})")


def files_of(path: Path, suffix: str) -> tuple[list[Path], list[Problem]]:
    """The files of a suffix in a folder or below, sorted; a file itself, if it has the suffix. And what hides some."""
    if not path.is_dir():
        return ([path] if path.suffix.lower() == suffix and path.is_file() else []), []  # a pipe is waited for for ever
    paths, problems = [], []
    for item in files_in(path):
        if isinstance(item, Problem):
            problems.append(item)
        elif item.suffix.lower() == suffix and item.is_file():
            paths.append(item)
    return paths, problems


def one_spelling(name: str) -> str:
    """A name with each letter and its accents in one character (NFC), as names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def as_on_disk(folder: Path, name: str) -> Path:
    """``folder / name``, spelled as the disk has it: macOS makes an accent a character of its own, others do not."""
    if name.isascii() or os.path.lexists(folder / name):
        return folder / name
    place = folder
    for part in Path(name).parts:
        spellings = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        place /= next((spelling for spelling in spellings if os.path.lexists(place / spelling)), part)
    return place


class Inside:
    """A folder whose files are found by name. Nothing outside it is ever opened, links that lead out included.

    A snapshot of the hub's cache is links to the blobs of the same repository, which count as inside.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder.resolve()
        self._homes = (self.root, *_blobs(self.root))

    def holds(self, path: Path) -> bool:
        """Whether a path leads to something inside, links followed."""
        resolved = path.resolve()
        return any(resolved.is_relative_to(home) for home in self._homes)

    def path(self, name: str) -> Path:
        """The file ``name``. Raises BadPair if it leaves the folder, is no file, is too long, or is not there."""
        return self._checked(name)[0]

    def length(self, name: str) -> int:
        """Bytes of the file ``name``. Raises BadPair as ``path`` does."""
        return self._checked(name)[1].st_size

    def read(self, name: str) -> bytes:
        """The content of the file ``name``, checked again. Raises BadPair; trouble with the disk passes through."""
        path = self.path(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, PermissionError) as error:
            raise Unreachable(f"its file cannot be opened ({type(error).__name__})") from error

    def _checked(self, name: str) -> tuple[Path, os.stat_result]:
        try:
            path = as_on_disk(self.root, name)
            if not _resolved(path.parent).is_relative_to(self.root) or path.name in ("", ".."):
                raise BadPair(LEAVES)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                if not self.holds(path):
                    raise BadPair(LEAVES)
                status = path.stat()
        except FileNotFoundError as error:
            raise Unreachable("its file is not there") from error
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise Unreachable(f"no file can be reached under its name ({type(error).__name__})") from error
        if not stat.S_ISREG(status.st_mode):
            raise BadPair("its name is not that of a file")
        limited(status.st_size)
        return path, status


@lru_cache(maxsize=1 << 16)
def _resolved(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _blobs(root: Path) -> list[Path]:
    """The folder of blobs, if ``root`` is a snapshot of the hub's cache or lies in one."""
    return [
        snapshots.parent / "blobs"
        for snapshots in root.parents
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith(HUB_FOLDERS)
    ]
