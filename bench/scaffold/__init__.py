"""What ``bench new`` writes: a package with a method that runs at once, made from the templates beside this file."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from bench import registry
from bench.errors import BenchError
from bench.experiment.config import ROWS
from bench.records import atomic

TEMPLATES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "experiment.toml": "experiment.toml.txt",
    "{name}.py": "method.py.txt",
    "tests/test_{name}.py": "test_method.py.txt",
}
"""File of the package → template. The templates are text files, so that no tool takes them for code."""


def write_method(name: str, folder: Path) -> list[str]:
    """Write the package and return what to do with it, a line each.

    Raises:
        BenchError: one line for an invalid name, a name in use, or a folder that exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BenchError(f"{name!r} cannot name a method; take lower-case letters, digits and _, such as my_method")
    if name in registry.table("methods"):
        raise BenchError(f"there is a method named {name!r} already; take another name")
    if name in ROWS or name in registry.table("subsets"):
        raise BenchError(f"{name!r} is a word of experiments already (a row or a subset); take another name")
    if importlib.util.find_spec(name) is not None:
        raise BenchError(f"there is a Python module named {name!r} already; take another name")
    if folder.exists():
        raise BenchError(f"{folder} is there already; take another name, or another folder with --out")
    words = {"name": name, "Name": "".join(part.capitalize() for part in name.split("_")), "package": _dashed(name)}
    try:
        with atomic.unfinished_folder(folder) as partial:
            for path, template in TEMPLATES.items():
                target = partial / _filled(path, words)
                target.parent.mkdir(parents=True, exist_ok=True)
                text = (Path(__file__).parent / template).read_text(encoding="utf-8")
                target.write_text(_filled(text, words), encoding="utf-8")
            partial.rename(folder)
    except OSError as error:
        raise BenchError(f"{folder} cannot be written: {error.strerror}") from error
    return [
        f"wrote {folder}",
        f"bench check {folder / name}.py",
        f"bench run {folder / 'experiment.toml'}",
        f"python -m pytest {folder / 'tests'}",
    ]


def _filled(text: str, words: dict[str, str]) -> str:
    """A template with its words; other braces stay as they are."""
    return re.sub(r"\{(name|Name|package)\}", lambda match: words[match[1]], text)


def _dashed(name: str) -> str:
    """The package as an index would call it."""
    return re.sub(r"_+", "-", name).strip("-")
