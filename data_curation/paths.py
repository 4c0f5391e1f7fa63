"""File names that a table gives: they stay inside the corpus's folder, whatever they say."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from bench.corpus import BadPair
from data_curation.pictures import limited

LEAVES = "its file name leaves the folder"


def files_of(path: Path, suffix: str) -> list[Path]:
    """The files of a suffix in a folder or below, sorted; a file itself, if it has the suffix."""
    return sorted(path.rglob(f"*{suffix}")) if path.is_dir() else [path] if path.suffix == suffix else []


class Inside:
    """A folder whose files are found by name. Nothing outside it is ever opened, links that lead out included."""

    def __init__(self, folder: Path) -> None:
        self.root = folder.resolve()

    def length(self, name: str) -> int:
        """Bytes of the file ``name``. Raises BadPair if it leaves the folder, is no file, or is not there."""
        try:
            path = self.root / name
            if not _resolved(path.parent).is_relative_to(self.root) or path.name in ("", ".."):
                raise BadPair(LEAVES)
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                if not path.resolve().is_relative_to(self.root):
                    raise BadPair(LEAVES)
                found = path.stat()
        except FileNotFoundError as error:
            raise BadPair("its file is not there") from error
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise BadPair(f"no file can be reached under its name ({type(error).__name__})") from error
        if not stat.S_ISREG(found.st_mode):
            raise BadPair("its name is not that of a file")
        limited(found.st_size)
        return found.st_size

    def read(self, name: str) -> bytes:
        """The content of the file ``name``, checked again. Raises BadPair; trouble with the disk passes through."""
        self.length(name)
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, PermissionError) as error:
            raise BadPair(f"its file cannot be opened ({type(error).__name__})") from error


@lru_cache(maxsize=1 << 16)
def _resolved(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
