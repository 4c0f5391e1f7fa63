"""The experiment files that come with the project, found by their names: ``paper_main`` for ``paper_main.toml``.

They lie in ``experiments/`` beside the packages, in a checkout as where a wheel was installed.
"""

from __future__ import annotations

from pathlib import Path

from bench.errors import unknown

FOLDER = Path(__file__).parents[2] / "experiments"


def names() -> list[str]:
    """The names, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def summary(name: str) -> str:
    """The first line of comment of an experiment's file."""
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()


def find(path: Path) -> Path:
    """The experiment file that a command names. A file at the path goes before a shipped experiment of that name.

    Raises:
        BenchError: a plain name, without folder and suffix, that neither a file nor a shipped experiment has.
    """
    if len(path.parts) != 1 or path.suffix or (path.exists() and not path.is_dir()):
        return path
    if path.name not in names():
        raise unknown("experiment", path.name, names())
    return FOLDER / f"{path.name}.toml"
